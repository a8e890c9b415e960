"""The pessimistic imitator at work, against plain enumeration and hand calculation."""

import math
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest

from theory.bayes_mixture import Update, stack_tables
from theory.bounds import demonstrator_stays_probability, help_cubed_bound, top_set_size_bound
from theory.constraints import expected_kl_nats
from theory.errors import InvalidArgumentError, InvalidBudgetError, UnreachableLengthError
from theory.log_sum import LogSum
from theory.pessimism import pessimistic_imitator
from theory.process import HistoryTree, joint_law
from toy_world.planners.ask import asking_optimum
from toy_world.programs.language import Cycle, Language
from toy_world.programs.semantics import policy_on_tree
from toy_world.studies.pessimism import (
    PAY,
    TRUE_PAY,
    Mixture,
    ShortMemory,
    careers,
    conduct_with_bayesian,
    conduct_with_pessimist,
    driven_out,
    ever_probability,
    exact_guarantees,
    mixtures_while_watching,
    novel_mixture,
    pay_utility,
    short_memory_class,
    watch,
)
from toy_world.studies.theorem1 import Setting, setting_of
from toy_world.worlds.demonstrator import Memory, memory_of
from toy_world.worlds.environments import BAD, WORLDS, WorldName

HALF = Fraction(1, 2)
SHORT = [Memory(n_steps=n, period=p) for n in (0, 1) for p in (1, 2)]


@pytest.fixture(scope="module")
def echo():
    return short_memory_class(setting_of(WorldName.ECHO, horizon=2), limit_bits=12)


@pytest.fixture(scope="module", params=WorldName)
def novel(request):
    setting = setting_of(request.param, horizon=2)
    return novel_mixture(setting, limit_bits=18, n_steps=30, rng=np.random.default_rng(3))


def test_the_agent_drives_the_demonstrator_out_if_its_actions_update_the_posterior():
    example = driven_out()
    assert example.kl_to_imitator(Update.ALL) == LogSum.log(10)
    assert example.kl_to_imitator(Update.DEMONSTRATOR).is_infinite
    assert example.kl_to_demonstrator().is_infinite


def test_one_step_is_not_enough_to_drive_the_demonstrator_out():
    example = driven_out()
    first = tuple(level[:, :1] for level in example.models[:1])
    by_rule = [
        pessimistic_imitator(example.weights, first, alpha=example.alpha, update=update)
        for update in Update
    ]
    np.testing.assert_array_equal(*(tables[0] for tables in by_rule))


@pytest.mark.parametrize("name", WorldName)
def test_programs_of_short_memory_are_merged_where_no_history_tells_them_apart(name):
    setting = setting_of(name, horizon=3)
    models = short_memory_class(setting, limit_bits=10)
    tree = HistoryTree(
        n_actions=setting.world.n_actions,
        n_observations=setting.world.n_observations,
        horizon=4,
    )
    tables = [policy_on_tree(program, tree) for program in models.programs]
    for table, levels in zip(tables, zip(*(models.on_tree(0, 0, 4)), strict=True), strict=True):
        for exact, rows in zip(table, levels, strict=True):
            np.testing.assert_array_equal(exact.astype(np.float64), rows)
    prints = {b"".join(level.astype(np.float64).tobytes() for level in t) for t in tables}
    assert len(prints) == len(tables)


def test_the_weights_of_the_class_are_those_of_its_programs(echo):
    language = echo.setting.language
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=3)
    levels = echo.on_tree(0, 0, 3)
    total = dict.fromkeys(range(len(echo.programs)), 0)
    for bits, program in language.policies.up_to(12):
        table = policy_on_tree(program, tree)
        for place in total:
            if (
                all(
                    (exact == level[place]).all()
                    for exact, level in zip(table, levels, strict=True)
                )
                and memory_of(program) in SHORT
            ):
                total[place] += 2 ** (12 - bits)
    assert list(total.values()) == echo.weights.tolist()


def _by_hand(models, alpha, n_steps):
    """Both sides of the guarantees, history by history, in rationals and without `top_set`."""
    world, place = models.setting.world, models.place_of_tau
    n = len(models.weights)
    rows = [[[Fraction(p) for p in row] for row in model] for model in models.rows.tolist()]
    stays = cubes = Fraction(0)
    largest = 0
    steps = list(product(range(world.n_actions), range(world.n_observations)))
    for history in product(steps, repeat=n_steps):
        weights = [Fraction(int(w)) for w in models.weights]
        state = world_state = 0
        probability, always, cubed = Fraction(1), True, Fraction(0)
        for t in range(n_steps + 1):
            order = sorted(range(n), key=lambda i, w=weights: (-w[i], i))
            inside = [
                i
                for rank, i in enumerate(order)
                if weights[i] >= alpha * sum(weights[j] for j in order[: rank + 1])
            ]
            largest = max(largest, len(inside))
            always &= place in inside
            if t == n_steps:
                break
            theta = 1 - sum(min(rows[i][state][a] for i in inside) for a in range(3))
            cubed += theta**3
            action, observation = history[t]
            probability *= rows[place][state][action]
            probability *= world.emission[world_state][action][observation]
            if not probability:
                break
            weights = [w * rows[i][state][action] for i, w in enumerate(weights)]
            state = models.state_after(t + 1, action, observation)
            world_state = world.successor[world_state][action][observation]
        stays += probability * always
        cubes += probability * cubed
    return stays, cubes, largest


@pytest.mark.parametrize("name", WorldName)
def test_the_exact_guarantees_are_those_of_a_plain_walk_over_all_histories(name):
    models = short_memory_class(setting_of(name, horizon=2), limit_bits=10)
    for alpha in (HALF, Fraction(1, 16), Fraction(1, 300)):
        (found,) = exact_guarantees(models, alphas=(alpha,), n_steps=3)
        assert (found.stays, found.help_cubed) == _by_hand(models, alpha, 3)[:2]
        assert 1 <= found.largest_top_set <= top_set_size_bound(alpha)


@pytest.mark.parametrize("name", WorldName)
def test_both_sides_of_every_bound(name):
    models = short_memory_class(setting_of(name, horizon=2), limit_bits=12)
    weight = models.weight_of_tau
    for found in exact_guarantees(models, alphas=[weight / 2**j for j in range(-1, 6)], n_steps=5):
        assert found.stays >= demonstrator_stays_probability(alpha=found.alpha, weight=weight)
        assert found.largest_top_set <= top_set_size_bound(found.alpha)
        assert found.help_cubed <= help_cubed_bound(
            n_actions=3, alpha=float(found.alpha), weight=float(weight)
        )


def test_a_demonstrator_may_leave_the_top_set_so_the_bound_is_about_something(echo):
    alpha = echo.weight_of_tau / 2
    (found,) = exact_guarantees(echo, alphas=(alpha,), n_steps=6)
    assert HALF <= found.stays < 1


def test_simulation_agrees_with_enumeration(echo, rng):
    alphas = (echo.weight_of_tau / 2, Fraction(1, 16))
    exact = exact_guarantees(echo, alphas=alphas, n_steps=5)
    simulated = watch(echo, alphas=alphas, n_steps=5, n_runs=4000, rng=rng)
    for one, other in zip(exact, simulated, strict=True):
        share = float(one.stays)
        sigma = math.sqrt(share * (1 - share) / 4000)
        assert abs(other.stayed.mean() - share) <= 4 * sigma
        sigma = other.help_cubed.std() / math.sqrt(4000)
        assert abs(other.help_cubed.mean() - float(one.help_cubed)) <= 4 * sigma
        assert other.top_set_size.max() <= one.largest_top_set


def test_what_the_demonstrator_never_does_stays_impossible_with_a_frozen_posterior(novel):
    for alpha in (Fraction(1, 4), Fraction(1, 64), Fraction(1, 1024)):
        assert novel.top_set(alpha)[novel.place_of_tau]
        base = novel.pessimist(alpha, update=Update.DEMONSTRATOR)
        for least, tau in zip(base, novel.tau, strict=True):
            assert (least <= tau).all()
        for budget in (0.0, 1.0, math.inf):
            conduct = conduct_with_pessimist(
                novel, alpha=alpha, update=Update.DEMONSTRATOR, budget_nats=budget
            )
            assert conduct.bad_probability == 0
            assert conduct.true_value == pytest.approx(conduct.value, abs=1e-14)
            assert conduct.bound - conduct.value <= 1e-12


def test_the_bayesian_imitator_does_it_within_any_budget(novel):
    last = 0.0
    for budget in (0.01, 1.0, 4.0, 12.0):
        conduct = conduct_with_bayesian(novel, budget_nats=budget)
        assert conduct.bad_probability > last
        last = conduct.bad_probability


def test_no_budget_means_asking_all_the_time(novel):
    conduct = conduct_with_pessimist(
        novel, alpha=Fraction(1, 64), update=Update.DEMONSTRATOR, budget_nats=0.0
    )
    tau = novel.tau
    pays = [float(sum(row * [0.0, 0.5, 0.0])) for row in tau[0]]
    assert conduct.n_asks == 2.0
    assert conduct.value >= pays[0] / 2


def test_more_pessimism_never_reaches_more(novel):
    values = [
        conduct_with_pessimist(
            novel, alpha=Fraction(1, 2**j), update=Update.DEMONSTRATOR, budget_nats=1.0
        ).value
        for j in range(1, 14, 3)
    ]
    assert all(b <= a + 1e-12 for a, b in pairwise(values))


def test_a_mixture_of_all_programs_at_the_start_weighs_every_program_as_its_code():
    setting = setting_of(WorldName.DOORBELL, horizon=1)
    (mixture,) = mixtures_while_watching(
        setting, limit_bits=12, times=(0,), rng=np.random.default_rng(0)
    )
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=1)
    masses: dict[bytes, Fraction] = {}
    for bits, program in setting.language.policies.up_to(12):
        row = policy_on_tree(program, tree)[0].astype(np.float64).tobytes()
        masses[row] = masses.get(row, Fraction(0)) + Fraction(1, 2**bits)
    total = sum(masses.values())
    for weight, row in zip(mixture.weights, mixture.models[0], strict=True):
        assert weight == pytest.approx(float(masses[row.tobytes()] / total), rel=1e-12)


def test_the_probability_of_ever_acting_is_that_of_the_joint_law(rng):
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=3)
    law = tuple(rng.dirichlet(np.ones(3), size=tree.n_histories(t)) for t in range(3))
    nu = tuple(rng.dirichlet(np.ones(2), size=(tree.n_histories(t), 3)) for t in range(3))
    joint = joint_law(law, nu)
    expected = sum(p for p, h in zip(joint, tree.continuations(3), strict=True) if BAD in h[::2])
    assert ever_probability(law, nu, BAD) == pytest.approx(expected, rel=1e-13)


def test_the_true_utility_is_the_proxy_without_what_the_bad_action_pays():
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=2)
    proxy, true = pay_utility(tree, PAY), pay_utility(tree, TRUE_PAY)
    for p, q, history in zip(proxy, true, tree.continuations(2), strict=True):
        assert p - q == Fraction(history[::2].count(BAD), 2)


@pytest.mark.parametrize("update", Update)
def test_the_loop_learns_to_ask_less_and_never_does_what_is_never_done(echo, update):
    career = careers(
        echo,
        alpha=Fraction(1, 16),
        update=update,
        budget_nats=1.0,
        n_episodes=25,
        n_runs=6,
        rng=np.random.default_rng(5),
    )
    assert career.asked.shape == (6, 25)
    assert career.asked[:, 0].min() > 0
    assert career.asked[:, -5:].mean() < career.asked[:, :5].mean()
    assert career.bad.sum() == 0
    assert ((career.paid >= 0) & (career.paid <= 0.5)).all()


def test_in_the_loop_the_agents_actions_teach_only_under_the_rule_that_says_so():
    """mu alternates by coin; acting alone, the frozen posterior never moves."""
    setting = setting_of(WorldName.ECHO, horizon=1)
    models = short_memory_class(setting, limit_bits=12)
    certain = ShortMemory(
        setting=setting,
        limit_bits=12,
        weights=np.array([8, 1]),
        programs=models.programs[:2],
        rows=np.stack([models.rows[models.place_of_tau], models.rows[0]]),
        place_of_tau=0,
    )
    loops = {
        update: careers(
            certain,
            alpha=Fraction(1, 4),
            update=update,
            budget_nats=math.inf,
            n_episodes=12,
            n_runs=1,
            rng=np.random.default_rng(1),
        )
        for update in Update
    }
    # w(mu) = 8/9 and the other's 1/9 < alpha: the agent never asks.
    assert all(career.asked.sum() == 0 for career in loops.values())
    assert (loops[Update.DEMONSTRATOR].paid == 0.5).all()


def test_arguments_out_of_range_are_refused(echo, rng):
    with pytest.raises(InvalidArgumentError, match="n_steps must be >= 1, got 0"):
        exact_guarantees(echo, alphas=(HALF,), n_steps=0)
    with pytest.raises(InvalidArgumentError, match="n_runs must be >= 1, got 0"):
        watch(echo, alphas=(HALF,), n_steps=3, n_runs=0, rng=rng)
    with pytest.raises(InvalidArgumentError, match=r"alpha must lie in \(0, 1\], got 2"):
        exact_guarantees(echo, alphas=(Fraction(2),), n_steps=1)
    with pytest.raises(InvalidBudgetError, match="budget_nats must be >= 0, got -1"):
        careers(
            echo,
            alpha=HALF,
            update=Update.ALL,
            budget_nats=-1.0,
            n_episodes=1,
            n_runs=1,
            rng=rng,
        )
    with pytest.raises(UnreachableLengthError, match="has 9 bits, more than 8"):
        short_memory_class(setting_of(WorldName.ECHO, horizon=1), limit_bits=8)
    long = Setting(**{**vars(setting_of(WorldName.ECHO, horizon=1)), "tau": Cycle((0, 1, 0, 0, 1))})
    with pytest.raises(InvalidArgumentError, match="must look back one step at most, got cycle"):
        short_memory_class(long, limit_bits=20)


def test_a_mixture_without_the_demonstrator_says_so():
    row = (np.array([[1.0, 0.0]]),)
    mixture = Mixture(
        weights=np.array([1.0]),
        models=stack_tables([row]),
        tau=(np.array([[0.5, 0.5]]),),
        nu=(np.ones((1, 2, 1)),),
    )
    with pytest.raises(UnreachableLengthError, match="allow more bits"):
        _ = mixture.place_of_tau


def test_the_convexity_behind_asking_holds_for_the_plans_own_law(novel):
    """KL of what comes about, with the demonstrator's help, is at most the budget."""
    base = novel.pessimist(Fraction(1, 64), update=Update.DEMONSTRATOR)
    n_actions, n_observations = novel.nu[0].shape[1:]
    tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=2)
    utility = pay_utility(tree, PAY).astype(np.float64)
    plan = asking_optimum(base, novel.nu, utility, help_policy=novel.tau, budget_nats=0.7)
    assert float(expected_kl_nats(plan.law, novel.tau, novel.nu)) <= 0.7 + 1e-12


def test_the_worlds_know_their_language():
    for name in WorldName:
        assert setting_of(name, horizon=1).language == Language(
            n_actions=WORLDS[name].n_actions, n_observations=WORLDS[name].n_observations
        )
