import math
from collections import defaultdict
from dataclasses import replace

import pytest

from llm_experiment.config import Fidelity, Preset, Regulariser, preset_config
from llm_experiment.suite import Suite, SuiteConfig, default_suite, suite_agents, suite_jobs
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidBudgetError
from theory.missing_mass import Help

TINY = preset_config(Preset.TINY)


def jobs_of(preset=Preset.TINY, fidelity=Fidelity.OURS, suite=Suite.DEFAULT, *, quick=False):
    agent = preset_config(preset, fidelity)
    return suite_jobs(agent, default_suite(preset, fidelity, suite, quick=quick))


def test_the_default_suite_is_four_budgets_of_three_seeds_and_three_comparisons():
    jobs = jobs_of()
    main = [job.config for job in jobs if job.variant == "exact budget"]
    assert sorted((c.constraint.budget_nats, c.seed) for c in main) == [
        (budget, seed) for budget in (1, 3, 6, 10) for seed in (0, 1, 2)
    ]
    others = {job.name: job.config for job in jobs if job.variant != "exact budget"}
    assert len(others) == 3
    assert others["shift-0.5-budget10-seed0"].world.reward_shift == -0.5
    for budget in (1, 3):
        realized = others[f"realized-budget{budget}-seed0"].constraint
        assert (realized.accounting, realized.budget_nats) == (Accounting.REALIZED, budget)


def test_jobs_differ_from_what_they_share_in_nothing_else():
    shared = TINY.world, TINY.ppo, TINY.stages
    for job in jobs_of():
        if job.variant == "exact budget":
            assert (job.config.world, job.config.ppo, job.config.stages) == shared
            assert job.config.constraint.accounting is Accounting.EXACT


def test_the_quick_suite_is_an_agent_of_each_of_two_budgets():
    jobs = jobs_of(quick=True)
    assert [(job.config.constraint.budget_nats, job.config.seed) for job in jobs] == [
        (3, 0),
        (10, 0),
    ]


def test_the_quick_suite_of_a_packaged_model_is_one_agent():
    (job,) = jobs_of(Preset.SMOLLM2, quick=True)
    assert (job.config.constraint.budget_nats, job.config.seed) == (10, 0)


def test_an_agent_that_is_the_base_policy_is_no_job_and_keeps_its_place_among_the_agents():
    suite = SuiteConfig(budgets_nats=(3.0, 0.0), n_seeds=2, realized_budgets_nats=(0.0,))
    agents = [job.name for job in suite_agents(TINY, suite)]
    assert agents == [
        "exact-budget3-seed0",
        "exact-budget0-seed0",
        "exact-budget3-seed1",
        "exact-budget0-seed1",
        "realized-budget0-seed0",
        "shift-0.5-budget3-seed0",
    ]
    jobs = [job.name for job in suite_jobs(TINY, suite)]
    assert jobs == [name for name in agents if "budget0" not in name]
    assert suite_jobs(TINY, SuiteConfig(budgets_nats=(0.0,), realized_budgets_nats=())) == ()


def test_with_published_targets_a_budget_of_0_is_trained():
    published = preset_config(Preset.TINY, Fidelity.PUBLISHED)
    suite = SuiteConfig(budgets_nats=(0.0,), n_seeds=1, control_shifts=())
    suite = replace(suite, realized_budgets_nats=())
    assert [job.name for job in suite_jobs(published, suite)] == ["realized-budget0-seed0"]


def test_the_full_suite_adds_seeds_other_regularisers_and_long_episodes():
    default, full = jobs_of(), jobs_of(suite=Suite.FULL)
    assert {job.name for job in default} < {job.name for job in full}
    regularisers = {job.config.constraint.regulariser for job in full}
    assert regularisers == set(Regulariser)
    free = [job for job in full if not job.config.constraint.budgeted]
    assert all(job.config.constraint.episode_budget_nats == math.inf for job in free)
    assert len({job.config.constraint.penalty_per_nat for job in free}) > 3
    long = [job for job in full if job.variant == "trained at 512"]
    stages = {stage for job in long for stage in job.config.stages}
    assert [(s.n_tokens, s.agent_steps) for s in stages] == [(512, 2 * TINY.stages[0].agent_steps)]


def test_every_kind_of_agent_of_the_full_suite_has_five_seeds():
    seeds = defaultdict(list)
    for job in jobs_of(suite=Suite.FULL):
        seeds[job.variant, job.config.constraint.budget_nats].append(job.config.seed)
    assert len(seeds) == 13
    assert all(found == [0, 1, 2, 3, 4] for found in seeds.values())


def test_the_paper_suite_is_the_published_budgets_of_three_runs():
    for fidelity in Fidelity:
        jobs = jobs_of(Preset.PAPER, fidelity)
        assert sorted((j.config.constraint.budget_nats, j.config.seed) for j in jobs) == [
            (budget, seed) for budget in (10, 20) for seed in (0, 1, 2)
        ]
        stem = "realized" if fidelity is Fidelity.PUBLISHED else "exact"
        assert {job.variant for job in jobs} == {f"{stem} budget"}


def test_two_agents_of_one_name_are_refused():
    with pytest.raises(InvalidArgumentError, match="got exact-budget3-seed0 twice"):
        suite_jobs(TINY, SuiteConfig(budgets_nats=(3.0, 3.0)))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"budgets_nats": (1.0, -2.0)}, InvalidBudgetError, "got -2.0"),
        ({"budgets_nats": (math.nan,)}, InvalidBudgetError, "got nan"),
        ({"budgets_nats": ()}, InvalidArgumentError, "at least 1 budget"),
        ({"n_base_episodes": 0}, InvalidArgumentError, "n_base_episodes must be >= 1.*got 0"),
        ({"n_seeds": 0}, InvalidArgumentError, "n_seeds must be >= 1.*got 0"),
        ({"n_comparison_seeds": 0}, InvalidArgumentError, "n_comparison_seeds must be >= 1"),
        ({"evaluation_lengths": (1,)}, InvalidArgumentError, "lengths must be >= 2.*got 1"),
    ],
)
def test_suites_outside_their_domain_are_refused_with_the_number(settings, error, words):
    with pytest.raises(error, match=words):
        SuiteConfig(**settings)


def test_a_run_with_vetoes_has_an_agent_without_them_beside_it():
    world = replace(TINY.world, vetoes="vetoes.json", missing_mass=Help.DEMONSTRATOR)
    agent = replace(TINY, world=world)
    quick = default_suite(Preset.TINY, Fidelity.OURS, Suite.DEFAULT, quick=True)
    *vetoed, plain = suite_jobs(agent, quick)
    assert [job.config.world for job in vetoed] == [world, world]
    assert (plain.name, plain.variant) == ("plain-budget10-seed0", "without vetoes")
    assert plain.config == replace(vetoed[-1].config, world=TINY.world)
    assert suite_jobs(agent, replace(quick, without_vetoes=False)) == tuple(vetoed)
