"""An actor of few tokens is the actor of all whose residual is 0 elsewhere, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from llm_experiment.agent.few_tokens import choose_tokens, lump, parts
from llm_experiment.agent.policy import FixedKLPolicy
from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.base.protocol import BaseStep
from llm_experiment.chat.observation import LARGEST, pack_observation
from llm_experiment.config import ActorForm, TargetRule
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    PIECES,
    S,
    small_config,
    small_world,
)
from theory.errors import InvalidArgumentError

N_TOKENS, N_FEATURES, N_ROWS = 9, 4, 12
ACTED = torch.tensor([1, 4, 5, 8])
OTHERS = torch.tensor([0, 2, 3, 6, 7])
RULES = [TargetRule.ATTAINABLE, TargetRule.PUBLISHED, None]


def policy(rule, n_acted=None):
    torch.manual_seed(0)
    return FixedKLPolicy(
        spaces.Box(-LARGEST, LARGEST, shape=(N_FEATURES + 2 + N_TOKENS,)),
        spaces.Discrete(N_TOKENS),
        lambda _: 1e-3,
        actor_learning_rate=1e-3,
        target_rule=rule,
        actor_tokens=n_acted,
    )


def twins(rule):
    """A policy of few tokens, and one of all that gives the others 0."""
    few, every = policy(rule, len(ACTED)), policy(rule)
    with torch.no_grad():
        few.acted.copy_(ACTED)
        for parameter in few.parameters():
            parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(2))
        rows = torch.cat([ACTED, torch.tensor([N_TOKENS])])
        every.critic.load_state_dict(few.critic.state_dict())
        every.actor.weight[rows] = few.actor.weight
        every.actor.bias[rows] = few.actor.bias
    return few, every, rows


def observations(log_probs=None, *, budget=1.5):
    generator = torch.Generator().manual_seed(1)
    if log_probs is None:
        log_probs = torch.randn(N_ROWS, N_TOKENS, generator=generator)
        log_probs[:, 3] = -torch.inf
        log_probs[0, OTHERS] = -torch.inf
        log_probs[1, ACTED] = -torch.inf
    step = BaseStep(
        log_probs=log_probs.log_softmax(-1),
        features=torch.randn(len(log_probs), N_FEATURES, generator=generator),
        missing_mass=torch.zeros(len(log_probs)),
    )
    budgets = torch.full((len(log_probs),), budget)
    return pack_observation(step, fraction_left=0.25, budget_nats=budgets)


@pytest.mark.parametrize("rule", RULES)
def test_it_acts_as_an_actor_of_all_tokens_whose_residual_is_0_elsewhere(rule):
    few, every, _ = twins(rule)
    seen = observations()
    with torch.no_grad():
        found, expected = few.act_on(seen), every.act_on(seen)
    for name in ("log_probs", "base_log_probs", "kl_nats", "target_nats"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6, msg=name
        )


def test_outside_the_tokens_that_it_moves_the_base_policys_proportions_stay():
    few, _, _ = twins(TargetRule.ATTAINABLE)
    with torch.no_grad():
        step = few.act_on(observations()[2:])
    ratios = (step.log_probs - step.base_log_probs)[:, [0, 2, 6, 7]]
    assert ratios[:, 0].abs().min() > 1e-3
    torch.testing.assert_close(ratios, ratios[:, :1].expand(-1, 4), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_it_learns_what_an_actor_of_all_tokens_would(rule):
    """From the symbols taken: the same ratio to what acted, the same entropy, the same gradient."""
    few, every, rows = twins(rule)
    seen = observations()[2:]
    with torch.no_grad():
        tokens = every.act_on(seen).sample(generator=torch.Generator().manual_seed(3))
        acted = few.act_on(seen).log_prob(tokens)
    assert set(tokens.tolist()) & set(OTHERS.tolist())
    assert set(tokens.tolist()) & set(ACTED.tolist())
    taken = few.learnable(seen, tokens)
    step, values = few.learn_on(taken.rows)
    torch.testing.assert_close(
        step.log_prob(taken.symbols) + taken.log_shares, acted, rtol=0, atol=1e-6
    )
    plain = every.learnable(seen, tokens)
    expected, expected_values = every.learn_on(plain.rows)
    assert torch.equal(plain.rows, seen)
    assert torch.equal(plain.symbols, tokens)
    assert not plain.log_shares.any()
    torch.testing.assert_close(values, expected_values)
    torch.testing.assert_close(step.entropy_nats(), expected.entropy_nats(), rtol=1e-6, atol=1e-6)
    weights = torch.linspace(-1, 1, len(tokens))
    for law, agent, symbols in ((step, few, taken.symbols), (expected, every, tokens)):
        loss = (weights * law.log_prob(symbols)).sum() + law.entropy_nats().sum()
        torch.autograd.backward(loss + law.kl_nats.sum())
        assert agent.actor.weight.grad.abs().max() > 1e-3
    torch.testing.assert_close(
        few.actor.weight.grad, every.actor.weight.grad[rows], rtol=1e-4, atol=1e-5
    )


def test_a_lump_has_the_mass_of_what_it_stands_for():
    law = np.random.default_rng(0).dirichlet(np.ones(N_TOKENS), size=5)
    lumped = lump(torch.from_numpy(np.log(law)), ACTED).exp().numpy()
    np.testing.assert_allclose(lumped[:, :-1], law[:, ACTED], rtol=1e-12)
    np.testing.assert_allclose(lumped[:, -1], law[:, OTHERS].sum(axis=1), rtol=1e-12)


def test_the_likeliest_tokens_are_chosen_and_those_that_are_needed():
    law = np.random.default_rng(1).dirichlet(np.ones(N_TOKENS), size=6)
    least = int(law.sum(axis=0).argmin())
    best = np.argsort(-law.sum(axis=0))[:3]
    some = iter(torch.from_numpy(np.log(law)).split(4))
    chosen = choose_tokens(some, 4, n_tokens=N_TOKENS, always=(least, least))
    assert chosen.tolist() == sorted({least, *best.tolist()})
    with pytest.raises(InvalidArgumentError, match=r"actor_tokens must be >= 2, .* got 1"):
        choose_tokens(iter(()), 1, n_tokens=N_TOKENS, always=(0, 1))


def test_parts_are_all_rows_in_order_however_large_the_vocabulary():
    rows = torch.arange(10)[:, None]
    for n_tokens in (1, 2**22, 2**30):
        assert torch.equal(torch.cat(list(parts(rows, n_tokens=n_tokens))), rows)
    assert [len(part) for part in parts(rows, n_tokens=2**22)] == [2] * 5


def agent_of(n_acted):
    return LockstepPPO(small_world(), replace(small_config(), actor_tokens=n_acted))


def test_an_agent_of_few_tokens_learns_within_its_budget_and_is_restored(tmp_path):
    agent = agent_of(4).finish()
    assert {NEWLINE, S, COLON} <= set(agent.policy.acted.tolist())
    assert agent.policy.actor.weight.shape[0] == 4 + 1
    assert agent.policy.actor.weight.abs().max() > 0
    budget = agent.config.constraint.budget_nats
    assert max(r.spent_nats_max for r in agent.records) <= budget + 1e-9
    # The first pass over a rollout starts from the policy that played it.
    assert abs(agent.records[0].update_kl_nats) < 1
    agent.save(tmp_path / "agent.safetensors")
    again = LockstepPPO.load(tmp_path / "agent.safetensors", world=small_world())
    seen = agent.last_rollout.kept_observations
    assert torch.equal(again.policy.acted, agent.policy.acted)
    with torch.no_grad():
        np.testing.assert_array_equal(again.act_on(seen).log_probs, agent.act_on(seen).log_probs)


def test_too_few_to_hand_over_a_turn_are_refused_before_anything_is_played():
    with pytest.raises(InvalidArgumentError, match=r"actor_tokens must be >= 3, .* got 2"):
        agent_of(2)


def test_the_ratio_to_what_acted_is_1_before_anything_is_learnt():
    agent = agent_of(4).finish()
    agent._fill_buffer(agent.last_rollout)
    with torch.no_grad():
        taken = agent.policy.learnable(
            agent.last_rollout.kept_observations,
            torch.from_numpy(agent.last_rollout.tokens[agent.last_rollout.agent_steps]),
        )
        step, _ = agent.policy.learn_on(taken.rows)
        now = agent.policy.act_on(agent.last_rollout.kept_observations)
    symbols = np.concatenate([batch.actions for batch in agent.rollout_buffer.get(7)])
    assert sorted(symbols) == sorted(taken.symbols.tolist())
    tokens = torch.from_numpy(agent.last_rollout.tokens[agent.last_rollout.agent_steps])
    torch.testing.assert_close(
        step.log_prob(taken.symbols), now.log_prob(tokens) - taken.log_shares, rtol=0, atol=1e-6
    )


def test_as_many_tokens_as_there_are_is_all_of_them_to_the_last_bit():
    every, none = agent_of(len(PIECES)).finish(), agent_of(None).finish()
    assert every.policy.acted is None
    for name, tensor in none.policy.state_dict().items():
        assert torch.equal(every.policy.state_dict()[name], tensor), name


def test_an_actor_through_the_head_moves_every_token():
    with pytest.raises(InvalidArgumentError, match="leave out --actor-tokens"):
        replace(small_config(), actor=ActorForm.THROUGH_HEAD, actor_tokens=4)
