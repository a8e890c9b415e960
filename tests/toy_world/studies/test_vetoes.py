"""Vetoed imitators: their rates and laws by other ways, what is proved of them, and the planner."""

import math
from fractions import Fraction

import numpy as np
import pytest

from theory.bayes_mixture import Update
from theory.constraints import adaptive_kl_nats
from theory.vetoes import is_vetoed
from toy_world.planners.ask import asking_optimum
from toy_world.programs.semantics import action_probabilities, trace_of
from toy_world.studies.mixtures import mixtures_while_watching
from toy_world.studies.vetoes import (
    AUDIT_ALPHA,
    BUDGETS_NATS,
    FALSE_ALPHAS,
    Filling,
    Imitator,
    audit,
    events_left,
    false_vetoes,
    filling_outcomes,
    outcomes,
    situation_after,
    watch,
)
from toy_world.worlds.environments import BAD, WorldName
from toy_world.worlds.setting import setting_of

BITS, EVENT_BITS, STEPS = 16, 10, 24


def watched(world, seed=0):
    setting = setting_of(world, horizon=1)
    rng = np.random.default_rng(seed)
    return watch(setting, n_steps=STEPS, limit_bits=BITS, event_bits=EVENT_BITS, rng=rng)


@pytest.fixture(scope="module")
def echo():
    return watched(WorldName.ECHO)


@pytest.fixture(scope="module", params=WorldName, ids=lambda world: world.value)
def anywhere(request):
    return watched(request.param)


@pytest.fixture(scope="module")
def situation(anywhere):
    return situation_after(anywhere, STEPS, limit_bits=BITS, blur=0.1)


def test_the_rates_are_the_mixtures_and_the_demonstrators(echo):
    setting = setting_of(WorldName.ECHO, horizon=1)
    mixtures = mixtures_while_watching(
        setting, limit_bits=BITS, times=(0, 1, 7), rng=np.random.default_rng(0)
    )
    seen = echo.demonstration
    for k, mixture in zip((0, 1, 7), mixtures, strict=True):
        if k < 7:  # a shorter demonstration of the same seed begins alike
            imitator = mixture.imitator(update=Update.ALL)
            np.testing.assert_allclose(echo.evidence.rates[k], imitator[0][0], rtol=1e-12)
        steps = np.stack([seen.actions[:k], seen.observations[:k]], axis=1)
        trace = trace_of(
            setting.tau, tuple(steps.reshape(-1).tolist()), n_actions=3, n_observations=2
        )
        exact = [float(p) for p in action_probabilities(setting.tau, trace)]
        assert echo.tau_rates[k].tolist() == exact


def test_what_might_be_done_is_what_the_demonstrator_gives_some_probability(echo):
    met, might = echo.evidence.met, echo.might_be_done
    for c in range(len(met)):
        for action in range(3):
            rates = echo.tau_rates[met[c], action]
            assert might[c, action] == any(rates > 0)
    assert not might[:, BAD].any()


def test_help_is_the_mass_of_what_is_vetoed(echo):
    words, hard = echo.evidence.vocabulary, Fraction(1, 2**EVENT_BITS)
    for k in (0, 5, STEPS - 1):
        vetoed = echo.evidence.vetoed(k, hard)
        barred = (vetoed & echo.evidence.met[:, k][:, None]).any(axis=0)
        assert echo.help[k].hard == pytest.approx(echo.evidence.rates[k] @ barred, abs=1e-12)
        assert echo.help[k].blocked == pytest.approx(echo.tau_rates[k] @ barred, abs=1e-12)
        assert echo.help[k].n_vetoed == vetoed.sum()
    assert words.limit_bits == EVENT_BITS
    assert echo.help[0].hard == pytest.approx(1)  # nothing was ever seen


def test_an_event_that_did_not_occur_is_vetoed_at_the_least_prior(anywhere):
    """Safety: whatever the data, at alpha = 2^-n the vetoes are the events without occurrence."""
    evidence = anywhere.evidence
    for k in (0, 3, STEPS):
        after = evidence.after(k)
        vetoed = evidence.vetoed(k, Fraction(1, 2**EVENT_BITS))
        assert vetoed[evidence.vocabulary.included].tolist() == (after.occurrences == 0).tolist()


def test_near_the_hard_vetoes_what_is_never_done_is_impossible_at_any_budget(situation):
    found = outcomes(situation, budgets_nats=(0.0, 4.0, 30.0, math.inf))
    by = {(o.imitator, o.budget_nats): o.never_probability for o in found}
    for budget in (0.0, 4.0, 30.0, math.inf):
        assert by[Imitator.HARD, budget] == 0
    assert by[Imitator.BAYESIAN, math.inf] == pytest.approx(1)
    assert by[Imitator.BLURRED, 4.0] > 0.9
    for o in found:
        assert o.bound - o.never_probability <= 1e-11
        assert o.missing_mass == 0 or o.imitator not in (Imitator.BAYESIAN, Imitator.BLURRED)


def test_a_vetoed_law_is_its_base_or_nothing_and_a_plan_near_it_is_paid_for(
    situation,
):
    mixture = situation.mixture
    plain, hard = situation.base(Imitator.BAYESIAN), situation.base(Imitator.HARD)
    audited = situation.base(Imitator.BLURRED_AUDITED)
    blurry = situation.base(Imitator.BLURRED)
    for less, more in ((hard, plain), (audited, blurry)):
        for rows, whole in zip(less, more, strict=True):
            assert np.all((rows == whole) | (rows == 0))
    plan = asking_optimum(
        audited, mixture.nu, situation.utility, help_policy=mixture.tau, budget_nats=0.5
    )
    assert plan.attained <= 0.5 + 1e-12


@pytest.fixture(scope="module")
def fillings():
    echo = watched(WorldName.DOORBELL)
    situation = situation_after(echo, STEPS, limit_bits=BITS, blur=0.1)
    return {
        (o.filling, o.budget_nats): o.never_probability
        for o in filling_outcomes(situation, budgets_nats=BUDGETS_NATS)
    }, situation


def test_only_the_demonstrator_may_fill_what_the_vetoes_leave_out(fillings):
    found, situation = fillings
    plain = {
        o.budget_nats: o.never_probability
        for o in outcomes(situation, budgets_nats=BUDGETS_NATS)
        if o.imitator is Imitator.BAYESIAN
    }
    for budget in BUDGETS_NATS:
        assert found[Filling.ASK, budget] == 0
        assert found[Filling.DEMONSTRATOR, budget] == 0
        # At the root everything is vetoed, so that the gap is the imitator's own law there.
        for filling in (Filling.BASE, Filling.FALLBACK):
            assert found[filling, budget] > plain[budget] / 2 > 0


def test_without_asking_the_best_plan_is_no_better(fillings):
    """The planner without the option to ask finds at most what the one with it finds."""
    found, situation = fillings
    for o in outcomes(situation, budgets_nats=(1.0, 4.0)):
        if o.imitator is Imitator.BAYESIAN:
            assert found[Filling.BASE, o.budget_nats] <= o.never_probability + 1e-11


def test_an_audit_of_a_bayesian_imitator_vetoes_nothing_that_the_demonstrator_does(anywhere):
    evidence = anywhere.evidence
    vetoed = evidence.vetoed(STEPS, AUDIT_ALPHA)
    assert not (vetoed & anywhere.might_be_done).any()


def test_false_vetoes_keep_to_the_bound_for_the_bayesian_imitator():
    """In the mean; here in each of a few demonstrations, far below it."""
    runs = [watched(WorldName.METRONOME, seed) for seed in range(3)]
    rows = false_vetoes(runs, alphas=FALSE_ALPHAS, weight_bound=Fraction(1, 2**10))
    for row in rows:
        assert row.n_false <= row.most <= row.bound_over_weight
        assert row.bound_over_weight == pytest.approx(row.bound * 2**10)
    assert [row.n_false for row in rows] == sorted(row.n_false for row in rows)
    first = rows[0]
    odds = runs[0].evidence.vocabulary.prior_odds_sum
    assert first.bound == pytest.approx(float((1 / first.alpha - 1) * odds))


def test_what_the_audit_leaves_is_dear_in_the_mean(anywhere):
    for is_blurred, evidence in ((False, anywhere.evidence), (True, anywhere.blurred(0.1))):
        left = events_left(anywhere, evidence, is_blurred=is_blurred)
        assert len(left) > 5
        for each in left:
            assert each.mean_price_nats > each.bound_nats
            assert each.least_price_nats <= each.mean_price_nats
            assert each.mean_price_nats >= math.log(each.visits / each.expected) - 1e-12
            (vetoed,) = is_vetoed([2.0**-each.bits], [1.0], [0], alpha=float(AUDIT_ALPHA))
            assert not vetoed


def test_a_bayesian_imitator_is_never_badly_wrong(anywhere):
    """`-ln m_E <= -ln xi(actions)`, visit by visit: what is done is not E."""
    evidence = anywhere.evidence
    taken = evidence.rates[np.arange(STEPS), evidence.actions]
    found = audit(evidence, STEPS, is_blurred=False)
    assert 0 < found.greatest_doubt_nats <= -np.log(taken).sum()


def test_an_audit_names_what_is_most_in_doubt(anywhere):
    blurry = anywhere.blurred(0.5)
    found = audit(blurry, STEPS, is_blurred=True)
    after = blurry.after(STEPS)
    assert found.greatest_doubt_nats == pytest.approx(
        max(-m for m, c in zip(after.log_never, after.occurrences, strict=True) if c == 0)
    )
    assert found.n_vetoed == blurry.vetoed(STEPS, AUDIT_ALPHA).sum() > 0
    assert found.event.endswith(("then a0", "then a1", "then a2"))
    assert (found.greatest_doubt_nats >= found.needed_nats) or found.n_vetoed == 0


def test_a_blurred_imitator_that_is_audited_long_enough_lets_nothing_through(anywhere):
    """At half of uniform, a sixth for a2 at each of 24 steps: 4.4 nats of doubt."""
    situation = situation_after(anywhere, STEPS, limit_bits=BITS, blur=0.5)
    for o in outcomes(situation, budgets_nats=(8.0, math.inf)):
        if o.imitator is Imitator.BLURRED_AUDITED:
            assert o.never_probability == 0
        if o.imitator is Imitator.BLURRED:
            assert o.never_probability > 0.99


def test_filled_by_the_demonstrator_the_hard_law_leaves_out_none_of_his_actions(situation):
    """`KL(tau || nu + theta tau)` is finite, for the worst observations."""
    left, tau = situation.base(Imitator.HARD), situation.mixture.tau
    full = tuple(
        rows + (1 - rows.sum(axis=1, keepdims=True)).clip(0) * own
        for rows, own in zip(left, tau, strict=True)
    )
    assert math.isfinite(adaptive_kl_nats(tau, full))
