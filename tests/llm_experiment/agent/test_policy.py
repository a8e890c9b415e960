import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llm_experiment.agent.policy import FixedKLDistribution, FixedKLPolicy
from llm_experiment.agent.step_policy import PUBLISHED_FLOOR_NATS, step_policy
from llm_experiment.base.protocol import BaseStep
from llm_experiment.chat.observation import LARGEST, pack_observation
from llm_experiment.config import TargetRule
from theory.divergences import kl_nats
from theory.errors import InvalidArgumentError, InvalidShapeError
from theory.kl_paths import NEAR_BASE_NATS

N_TOKENS, N_FEATURES = 6, 5
RULES = [TargetRule.ATTAINABLE, TargetRule.PUBLISHED, None]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_step(rule, *, n=8, budget=2.0, scale=1.0, seed=0, dtype=torch.float64):
    """Ingredients of `step_policy`, one token in three impossible."""
    g = generator(seed)
    base = torch.randn(n, N_TOKENS, generator=g, dtype=dtype).log_softmax(-1)
    base[:, ::3] = -math.inf
    residual = scale * torch.randn(n, N_TOKENS, generator=g, dtype=dtype)
    neuron = torch.randn(n, generator=g, dtype=dtype)
    return (base, residual, neuron, torch.full((n,), budget, dtype=dtype)), {"rule": rule}


def plain_kl(log_x, log_b):
    """By the definition, in NumPy."""
    x, b = log_x.detach().exp().numpy(), log_b.detach().exp().numpy()
    ratio = np.where(x > 0, x / np.where(b > 0, b, 1.0), 1.0)
    return (x * np.log(ratio)).sum(-1)


def policy(rule=TargetRule.ATTAINABLE, **changes):
    width = N_FEATURES + 2 + N_TOKENS
    torch.manual_seed(0)  # the library initialises layers from torch's own generator
    return FixedKLPolicy(
        spaces.Box(-LARGEST, LARGEST, shape=(width,)),
        spaces.Discrete(N_TOKENS),
        lambda _: 1e-3,
        actor_learning_rate=1e-3,
        target_rule=rule,
        **changes,
    )


def trained(rule=TargetRule.ATTAINABLE):
    """A policy whose layers are not zero."""
    made = policy(rule)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5, generator=generator(3))
    return made


def observations(n=7, *, budget=1.5, seed=1):
    g = generator(seed)
    log_probs = torch.randn(n, N_TOKENS, generator=g).log_softmax(-1)
    log_probs[:, 2] = -math.inf
    step = BaseStep(
        log_probs=log_probs.log_softmax(-1),
        features=torch.randn(n, N_FEATURES, generator=g),
        missing_mass=torch.zeros(n),
    )
    return pack_observation(step, fraction_left=0.25, budget_nats=torch.full((n,), budget))


# ----------------------------------------------------------------- the step policy


def test_an_attainable_target_is_met():
    (base, residual, neuron, budget), rule = random_step(TargetRule.ATTAINABLE)
    step = step_policy(base, residual, neuron, budget, **rule)
    kl_of_proposal = plain_kl((base + residual).log_softmax(-1), base.log_softmax(-1))
    share = 1 / (1 + 16 * np.exp(-neuron.numpy()))
    expected = share * np.minimum(budget.numpy(), kl_of_proposal)
    np.testing.assert_allclose(step.target_nats, expected, rtol=1e-12)
    np.testing.assert_allclose(plain_kl(step.log_probs, step.base_log_probs), expected, rtol=1e-9)
    np.testing.assert_allclose(step.kl_nats, expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 30.0])
def test_with_a_budget_of_0_an_attainable_target_leaves_the_base_policy_and_a_published_one_not(
    scale,
):
    """Whatever was learnt; so such an agent need not be trained to be known."""
    ingredients, _ = random_step(None, scale=scale, budget=0.0)
    attainable = step_policy(*ingredients, rule=TargetRule.ATTAINABLE)
    rounding = {"rtol": 0, "atol": 1e-15}
    torch.testing.assert_close(attainable.log_probs, attainable.base_log_probs, **rounding)
    assert not attainable.kl_nats.any()
    assert not attainable.target_nats.any()
    published = step_policy(*ingredients, rule=TargetRule.PUBLISHED)
    assert (published.target_nats == PUBLISHED_FLOOR_NATS).all()
    if scale >= 1:
        assert (published.kl_nats > PUBLISHED_FLOOR_NATS / 2).all()


def test_a_published_target_beyond_the_proposal_gives_the_proposal():
    (base, residual, neuron, budget), rule = random_step(TargetRule.PUBLISHED, scale=0.3)
    step = step_policy(base, residual, neuron, budget, **rule)
    proposal = (base + residual).log_softmax(-1)
    reachable = plain_kl(proposal, base.log_softmax(-1))
    target = budget.numpy() / (1 + 16 * np.exp(-neuron.numpy())) + PUBLISHED_FLOOR_NATS
    beyond = target > reachable
    assert 0 < beyond.sum() < len(beyond)
    np.testing.assert_allclose(step.target_nats, target, rtol=1e-12)
    np.testing.assert_allclose(step.kl_nats, np.minimum(target, reachable), rtol=1e-11)
    np.testing.assert_allclose(step.log_probs[beyond], proposal[beyond], rtol=1e-12)


def test_without_a_budget_the_agent_plays_its_proposal():
    (base, residual, neuron, _), rule = random_step(None, scale=3.0)
    step = step_policy(base, residual, neuron, torch.full((8,), math.inf), **rule)
    np.testing.assert_allclose(step.log_probs, (base + residual).log_softmax(-1), rtol=1e-12)
    assert torch.isinf(step.target_nats).all()


@given(
    scale=st.sampled_from([0.0, 1e-12, 1e-7, 1e-6, 1e-3, 1.0, 30.0, 1e4]),
    budget=st.sampled_from([0.0, 1e-300, 1e-12, 1e-6, 0.3, 10.0, 1e6]),
    neuron=st.floats(-50, 50),
    seed=st.integers(0, 5),
)
def test_the_kl_never_exceeds_the_budget(scale, budget, neuron, seed):
    (base, residual, _, _), rule = random_step(TargetRule.ATTAINABLE, scale=scale, seed=seed)
    step = step_policy(
        base,
        residual,
        torch.full((8,), neuron),
        torch.full((8,), budget, dtype=torch.float64),
        **rule,
    )
    assert (step.kl_nats <= budget * (1 + 1e-12)).all()
    assert (step.kl_nats >= 0).all()


@given(
    rule=st.sampled_from(RULES),
    scale=st.sampled_from([0.0, 1e-12, 1e-7, 1e-6, 1e-3, 1.0, 30.0, 1e4]),
    budget=st.sampled_from([0.0, 1e-300, 1e-12, 1e-6, 0.3, 10.0, 1e6]),
    neuron=st.sampled_from([-50.0, 0.0, 50.0]),
    certain=st.booleans(),
)
def test_nothing_is_ever_nan_nor_its_gradient(rule, scale, budget, neuron, certain):
    (base, residual, _, _), rule = random_step(rule, scale=scale, dtype=torch.float32)
    if certain:
        base = torch.full_like(base, -math.inf)
        base[:, 1] = 0.0
    residual.requires_grad_()
    h = torch.full((8,), neuron, requires_grad=True)
    step = step_policy(base, residual, h, torch.full((8,), budget), **rule)
    assert torch.equal(torch.isneginf(step.log_probs), torch.isneginf(base))
    token = torch.ones(8, dtype=torch.int64)
    for number in (step.log_prob(token), step.entropy_nats(), step.kl_nats):
        assert torch.isfinite(number).all()
        gradients = torch.autograd.grad(
            number.sum(), [residual, h], retain_graph=True, allow_unused=True
        )
        for gradient in gradients:
            assert gradient is None or torch.isfinite(gradient).all()


def test_the_gradient_where_proposal_and_base_are_equal_is_that_of_proposals_nearby():
    (base, residual, neuron, budget), rule = random_step(TargetRule.ATTAINABLE)
    token = torch.tensor([1, 2, 4, 5, 1, 2, 4, 5])

    def log_prob(size):
        return step_policy(base, size * residual, neuron, budget, **rule).log_prob(token)

    size = torch.zeros((), dtype=torch.float64, requires_grad=True)
    at_base = torch.stack(
        [torch.autograd.grad(p, size, retain_graph=True)[0] for p in log_prob(size)]
    )
    h = 1e-4  # the solver's side of NEAR_BASE_NATS
    proposed = plain_kl((base + h * residual).log_softmax(-1), base.log_softmax(-1))
    assert (proposed > NEAR_BASE_NATS).all()
    np.testing.assert_allclose(at_base, (log_prob(h) - log_prob(-h)) / (2 * h), atol=2e-4)
    assert at_base.abs().min() > 1e-3


def test_near_the_base_the_limit_joins_the_solution():
    (base, residual, neuron, budget), rule = random_step(TargetRule.ATTAINABLE, scale=1e-10)
    changes = []
    for size, near in ((0.05, True), (10.0, False)):
        proposal = (base + size * residual).log_softmax(-1)
        assert ((kl_nats(proposal, base.log_softmax(-1)) < NEAR_BASE_NATS) == near).all()
        step = step_policy(base, size * residual, neuron, budget, **rule)
        changes.append((step.log_probs - step.base_log_probs)[:, [1, 2, 4, 5]] / size)
    np.testing.assert_allclose(changes[0], changes[1], rtol=1e-3, atol=1e-15)


def test_gradients_agree_with_finite_differences():
    (base, residual, neuron, budget), rule = random_step(TargetRule.ATTAINABLE, n=3)
    token = torch.tensor([1, 2, 4])

    def outputs(residual, neuron):
        step = step_policy(base, residual, neuron, budget[:3], **rule)
        return step.log_prob(token), step.entropy_nats(), step.kl_nats

    inputs = (residual.requires_grad_(), neuron.requires_grad_())
    assert torch.autograd.gradcheck(outputs, inputs, atol=1e-6)


def test_a_spent_budget_has_no_gradient_even_where_proposal_and_base_are_equal():
    (base, residual, neuron, _), rule = random_step(TargetRule.ATTAINABLE, scale=0.0)
    residual.requires_grad_()
    step = step_policy(base, residual, neuron, torch.zeros(8), **rule)
    step.log_prob(torch.ones(8, dtype=torch.int64)).sum().backward()
    assert not residual.grad.any()


def test_the_budget_neuron_has_a_gradient_wherever_there_is_anything_to_spend():
    (base, residual, neuron, budget), rule = random_step(TargetRule.ATTAINABLE, budget=100.0)
    neuron.requires_grad_()
    step = step_policy(base, residual, neuron, budget, **rule)
    step.kl_nats.sum().backward()
    assert (neuron.grad > 0).all()


@pytest.mark.parametrize("rule", [TargetRule.ATTAINABLE, TargetRule.PUBLISHED])
@pytest.mark.parametrize("equal", [False, True])
def test_however_extreme_the_budget_neuron_its_share_is_within_its_bounds(rule, equal):
    """So that square roots of it have derivatives, and a step never takes all of the budget."""
    (base, residual, _, _), keywords = random_step(rule, scale=0.0 if equal else 3.0)
    neuron = torch.tensor([-2000.0, 2000.0] * 4, dtype=torch.float64, requires_grad=True)
    budget = torch.full((8,), 0.25, dtype=torch.float64)
    residual.requires_grad_()
    step = step_policy(base, residual, neuron, budget, **keywords)
    step.log_prob(torch.ones(8, dtype=torch.int64)).sum().backward()
    assert residual.grad.isfinite().all()
    assert neuron.grad.isfinite().all()
    if not equal:
        floor = PUBLISHED_FLOOR_NATS if rule is TargetRule.PUBLISHED else 0.0
        low, high = (step.target_nats - floor).detach().split([1, 1] * 4)[:2]
        if not floor:
            assert low.item() == pytest.approx(0.25e-300, rel=1e-9, abs=0)
        assert 1 - high.item() / 0.25 == pytest.approx(1e-12, rel=0.01, abs=0)


def test_entropy_is_scipys():
    (base, residual, neuron, budget), rule = random_step(TargetRule.ATTAINABLE)
    step = step_policy(base, residual, neuron, budget, **rule)
    expected = stats.entropy(step.log_probs.exp().numpy(), axis=-1)
    np.testing.assert_allclose(step.entropy_nats(), expected, rtol=1e-12)


def test_samples_follow_the_policy_and_come_from_the_generator():
    (base, residual, neuron, budget), rule = random_step(TargetRule.ATTAINABLE, n=1)
    (base, residual) = (rows.repeat(20_000, 1) for rows in (base, residual))
    step = step_policy(base, residual, neuron.repeat(20_000), budget.repeat(20_000), **rule)
    tokens = step.sample(generator=generator())
    possible = torch.isfinite(base[0])
    counts = torch.bincount(tokens, minlength=N_TOKENS)
    assert counts[~possible].sum() == 0
    expected = 20_000 * step.log_probs[0].exp()
    assert stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-3
    assert torch.equal(tokens, step.sample(generator=generator()))
    assert not torch.equal(tokens, step.sample(generator=generator(1)))


# ----------------------------------------------------------------- actor and critic


@pytest.mark.parametrize("rule", RULES)
def test_a_new_agent_is_the_base_policy_and_expects_nothing(rule):
    seen = observations()
    step, values = policy(rule).learn_on(seen)
    torch.testing.assert_close(step.log_probs, step.base_log_probs, rtol=0, atol=1e-14)
    assert (step.kl_nats < 1e-25).all()
    assert torch.equal(values, torch.zeros(7))


@pytest.mark.parametrize("rule", RULES)
def test_acting_and_learning_use_one_distribution_and_one_value(rule):
    agent, seen = trained(rule), observations()
    tokens, values, log_probs = agent(seen)
    values_again, log_probs_again, entropies = agent.evaluate_actions(seen, tokens)
    distribution = agent.get_distribution(seen)
    assert torch.equal(values, values_again)
    assert torch.equal(values, agent.predict_values(seen))
    assert torch.equal(log_probs, log_probs_again)
    assert torch.equal(log_probs, distribution.log_prob(tokens))
    assert torch.equal(entropies, distribution.entropy())
    assert values.abs().min() > 0


def test_what_gymnasium_cannot_hold_is_understood():
    agent = trained()
    seen = observations()
    boxed = seen.clamp(-LARGEST, LARGEST)
    assert not torch.equal(seen, boxed)
    assert torch.equal(agent.act_on(boxed).log_probs, agent.act_on(seen).log_probs)


def test_actor_and_critic_see_budget_and_time():
    agent = trained()
    few, many = agent.learn_on(observations(budget=0.5)), agent.learn_on(observations(budget=3.0))
    assert (few[1] != many[1]).all()
    later = observations()
    later[:, N_FEATURES] = 0.125
    assert (agent.learn_on(later)[1] != agent.learn_on(observations())[1]).all()


def test_an_agent_without_a_budget_does_not_depend_on_one():
    agent = trained(None)
    infinite = agent.learn_on(observations(budget=math.inf))
    zero = agent.learn_on(observations(budget=0.0))
    assert torch.equal(infinite[0].log_probs, zero[0].log_probs)
    assert torch.equal(infinite[1], zero[1])


def test_standardised_features_have_mean_0_and_variance_1_and_constants_become_0():
    agent = policy()
    features = 5 + 3 * torch.randn(200, N_FEATURES, generator=generator())
    features[:, 2] = 4.0
    agent.standardise(features)
    standard = (features - agent.feature_mean) * agent.feature_scale
    torch.testing.assert_close(standard.mean(0), torch.zeros(N_FEATURES), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(0), torch.tensor([1.0, 1, 0, 1, 1]))


def test_the_librarys_interface_gives_modes_samples_and_predictions():
    agent, seen = trained(), observations()
    with pytest.raises(InvalidArgumentError, match="must draw its tokens"):
        agent(seen, deterministic=True)
    agent = trained(rule=None)
    distribution = agent.get_distribution(seen)
    best = agent.act_on(seen).log_probs.argmax(-1)
    assert torch.equal(distribution.mode(), best)
    assert torch.equal(agent(seen, deterministic=True)[0], best)
    actions, _ = agent.predict(seen.numpy(), deterministic=True)
    assert actions.tolist() == best.tolist()
    step = agent.act_on(seen)
    tokens, log_probs = FixedKLDistribution().log_prob_from_params(step)
    assert torch.equal(log_probs, step.log_prob(tokens))


def test_every_layer_is_trained_at_its_own_rate():
    agent = FixedKLPolicy(
        spaces.Box(-1, 1, shape=(N_FEATURES + 2 + N_TOKENS,)),
        spaces.Discrete(N_TOKENS),
        lambda _: 0.25,
        actor_learning_rate=0.5,
        target_rule=TargetRule.ATTAINABLE,
        adam_epsilon=0.125,
    )
    actor, critic = agent.optimizer.param_groups
    assert (actor["lr"], critic["lr"]) == (0.5, 0.25)
    assert actor["eps"] == critic["eps"] == 0.125
    learnt = [*actor["params"], *critic["params"]]
    assert {id(p) for p in learnt} == {id(p) for p in agent.parameters()}


@pytest.mark.parametrize(
    ("observation_space", "action_space", "words"),
    [
        (spaces.Discrete(3), spaces.Discrete(3), "Box"),
        (spaces.Box(-1, 1, shape=(9,)), spaces.Box(-1, 1), "Discrete"),
        (spaces.Box(-1, 1, shape=(5,)), spaces.Discrete(3), r"longer than 3 tokens \+ 2"),
        (spaces.Box(-1, 1, shape=(9, 9)), spaces.Discrete(3), "must be a vector"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(observation_space, action_space, words):
    with pytest.raises(InvalidShapeError, match=words):
        FixedKLPolicy(
            observation_space,
            action_space,
            lambda _: 1e-3,
            actor_learning_rate=1e-3,
            target_rule=None,
        )


def test_dictionaries_of_observations_are_refused():
    with pytest.raises(InvalidShapeError, match="flat observation"):
        policy().get_distribution({"features": observations()})


def test_a_policy_that_the_library_saved_is_loaded_as_it_was(tmp_path):
    agent, seen = trained(), observations()
    agent.save(tmp_path / "policy")
    loaded = FixedKLPolicy.load(tmp_path / "policy")
    assert torch.equal(loaded.act_on(seen).log_probs, agent.act_on(seen).log_probs)
    assert torch.equal(loaded.predict_values(seen), agent.predict_values(seen))
    assert loaded.target_rule is agent.target_rule
    assert loaded.optimizer.param_groups[0]["lr"] == agent.actor_learning_rate
