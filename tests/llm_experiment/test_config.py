import importlib
import math
from dataclasses import replace

import pytest

from llm_experiment.base.packaged import PACKAGED_MODELS
from llm_experiment.config import (
    PROCESS,
    ActorForm,
    AgentConfig,
    ConstraintConfig,
    Fidelity,
    PPOConfig,
    Precision,
    Preset,
    Regulariser,
    Stage,
    TargetRule,
    WorldConfig,
    check_vocabularies,
    differences,
    preset_config,
    with_fidelity,
)
from llm_experiment.run import parse_options
from llm_experiment.suite import Suite, default_suite, suite_jobs
from mightnt.command_line import BAD_USAGE
from mightnt.results import from_jsonable, to_jsonable
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidBudgetError

TINY = preset_config(Preset.TINY)
PAPER = preset_config(Preset.PAPER)
VARIANTS = [preset_config(preset, fidelity) for preset in Preset for fidelity in Fidelity]


def test_the_paper_preset_holds_the_published_protocol():
    # The numbers are those of the protocol as published, in the order of its description.
    assert [(s.agent_steps, s.n_tokens, s.ramp_fraction) for s in PAPER.stages] == [
        (3_000_000, 256, 1.0),
        (3_000_000, 256, 0.0),
        (3_000_000, 512, 0.0),
    ]
    assert PAPER.n_episodes == 64
    assert PAPER.world.student_temperature == 0.05
    assert PAPER.world.max_reply_tokens == 512
    ppo = PAPER.ppo
    assert (ppo.clip_range, ppo.n_epochs, ppo.batch_size) == (0.1, 8, 8192)
    assert (ppo.entropy_coefficient, ppo.value_coefficient) == (1e-4, 0.5)
    assert (ppo.gamma, ppo.gae_lambda) == (1.0, 1.0)
    assert (ppo.actor_learning_rate, ppo.critic_learning_rate) == (2e-5, 1e-4)
    assert (ppo.adam_epsilon, ppo.max_gradient_norm, ppo.clip_actor_only) == (1e-5, 0.1, True)
    assert not PAPER.standardise_features
    assert PAPER.world.base_model == "mistralai/Mixtral-8x7B-v0.1"
    assert PAPER.world.reward_model.endswith("distilbert-base-uncased-finetuned-sst-2-english")
    assert PAPER.constraint.episode_budget_nats < math.inf


@pytest.mark.parametrize("fidelity", Fidelity)
def test_the_paper_preset_trains_three_agents_at_each_published_budget_and_no_others(fidelity):
    suite = default_suite(Preset.PAPER, fidelity, Suite.DEFAULT, quick=False)
    jobs = suite_jobs(preset_config(Preset.PAPER, fidelity), suite)
    trained = {(job.config.constraint.budget_nats, job.config.seed) for job in jobs}
    assert trained == {(budget, seed) for budget in (10.0, 20.0) for seed in (0, 1, 2)}
    assert len(jobs) == 6
    assert {job.config.total_agent_steps for job in jobs} == {9_000_000}


def test_the_published_budget_rises_over_the_first_three_million_steps():
    config = replace(PAPER, constraint=replace(PAPER.constraint, budget_nats=20.0))
    steps = (0, 1_500_000, 3_000_000, 5_999_999, 6_000_000, 8_999_999)
    seen = [config.schedule_at(done) for done in steps]
    assert [entry.budget_nats for entry in seen] == [0.0, 10.0, 20.0, 20.0, 20.0, 20.0]
    assert [entry.stage.n_tokens for entry in seen] == [256, 256, 256, 256, 512, 512]


def test_everything_published_is_an_option_of_the_paper_preset():
    options = parse_options([
        "--preset", "paper", "--fidelity", "published", "--dtype", "nf4", "--score-blank-replies",
        "--device", "cuda:0", "--agent-device", "cuda:1", "--base-model", "some/model",
    ])  # fmt: skip
    agent = options.settings.agent
    assert agent.constraint.accounting is Accounting.REALIZED
    assert agent.constraint.target_rule is TargetRule.PUBLISHED
    assert agent.world.dtype is Precision.NF4
    assert agent.world.score_blank_replies
    assert not PAPER.world.score_blank_replies
    assert agent.world.prompt == PAPER.world.prompt
    assert (agent.world.device, agent.world.agent_device) == ("cuda:0", "cuda:1")
    assert agent.stages == PAPER.stages


def test_the_budget_is_exact_unless_the_published_fidelity_is_asked_for():
    for preset in Preset:
        ours = preset_config(preset).constraint
        assert ours.accounting is Accounting.EXACT
        assert ours.target_rule is TargetRule.ATTAINABLE
        assert ours.auxiliary_coefficient == 0
        published = preset_config(preset, Fidelity.PUBLISHED).constraint
        assert published.accounting is Accounting.REALIZED
        assert published.target_rule is TargetRule.PUBLISHED
        assert published.auxiliary_coefficient > 0


def test_the_published_actor_comes_with_the_published_fidelity():
    for preset in Preset:
        assert preset_config(preset, Fidelity.PUBLISHED).actor is ActorForm.LINEAR
        small = preset in (Preset.TINY, Preset.PAPER)
        assert preset_config(preset).actor is (ActorForm.LINEAR if small else ActorForm.LOW_RANK)


def test_packaged_presets_are_the_published_dialogue_on_the_model_that_they_name():
    for preset in (Preset.SMOLLM2, Preset.GEMMA3_270M):
        world = preset_config(preset).world
        assert world.base_model == preset.value
        assert world.base_model in PACKAGED_MODELS
        paper = PAPER.world
        assert (world.prompt, world.separator) == (paper.prompt, paper.separator)
        assert world.student_temperature == paper.student_temperature
        suite = default_suite(preset, Fidelity.OURS, Suite.DEFAULT, quick=False)
        assert suite.budgets_nats[1:3] == (10.0, 20.0)  # the published ones are trained first
        assert suite.evaluation_lengths == (256, 512)


def test_the_prompt_of_the_paper_preset_leaves_the_teacher_in_the_middle_of_a_turn():
    assert PAPER.world.prompt is not None
    assert PAPER.world.prompt.endswith("Teacher: Do you")
    assert PAPER.world.prompt.count(f"{PAPER.world.separator}Student:") == 2


def test_the_budget_rises_linearly_over_the_ramp_and_then_stays():
    stage = Stage(agent_steps=1000, ramp_fraction=0.4)
    budgets = [stage.budget_nats(10.0, steps_done=steps) for steps in (0, 100, 200, 400, 999)]
    assert budgets == [0.0, 2.5, 5.0, 10.0, 10.0]


def test_no_ramp_and_no_budget_need_no_arithmetic_with_infinity():
    assert Stage(agent_steps=10).budget_nats(3.0, steps_done=0) == 3.0
    assert Stage(agent_steps=10, ramp_fraction=1.0).budget_nats(math.inf, steps_done=0) == math.inf


def test_the_schedule_goes_through_the_stages_by_the_steps_taken_and_stays_in_the_last():
    stages = (
        Stage(agent_steps=100, n_tokens=8, ramp_fraction=1.0),
        Stage(agent_steps=50, n_tokens=8),
        Stage(agent_steps=50, n_tokens=16, ramp_fraction=0.5),
    )
    config = replace(TINY, stages=stages)
    assert config.total_agent_steps == 200
    seen = [config.schedule_at(steps) for steps in (0, 99, 100, 149, 150, 160, 199, 200, 10_000)]
    assert [entry.number for entry in seen] == [1, 1, 2, 2, 3, 3, 3, 3, 3]
    assert [entry.stage for entry in seen] == [stages[entry.number - 1] for entry in seen]
    assert [entry.budget_nats for entry in seen] == [0.0, 9.9, 10, 10, 0, 4, 10, 10, 10]


def test_only_an_episode_budget_binds():
    free = ConstraintConfig(regulariser=Regulariser.NONE)
    penalised = ConstraintConfig(regulariser=Regulariser.TOKEN_PENALTY, penalty_per_nat=0.1)
    assert free.episode_budget_nats == penalised.episode_budget_nats == math.inf
    assert ConstraintConfig(budget_nats=3.0).episode_budget_nats == 3.0
    assert not free.budgeted
    assert not penalised.budgeted


def test_only_a_budget_of_0_with_attainable_targets_is_the_base_policy():
    zero = ConstraintConfig(budget_nats=0.0)
    realized = replace(zero, accounting=Accounting.REALIZED)
    assert zero.is_base_policy
    assert realized.is_base_policy
    others = (
        ConstraintConfig(budget_nats=1e-9),
        replace(realized, target_rule=TargetRule.PUBLISHED),
        replace(zero, regulariser=Regulariser.NONE),
        replace(zero, regulariser=Regulariser.TOKEN_PENALTY, penalty_per_nat=0.1),
    )
    assert not any(constraint.is_base_policy for constraint in others)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ConstraintConfig(budget_nats=-1.0), InvalidBudgetError, "got -1.0"),
        (lambda: ConstraintConfig(budget_nats=math.nan), InvalidBudgetError, "got nan"),
        (lambda: ConstraintConfig(budget_nats=math.inf), InvalidBudgetError, "regulariser none"),
        (
            lambda: ConstraintConfig(target_rule=TargetRule.PUBLISHED),
            InvalidArgumentError,
            "accounting realized",
        ),
        (
            lambda: ConstraintConfig(regulariser=Regulariser.TOKEN_PENALTY),
            InvalidArgumentError,
            "penalty_per_nat must be > 0 with regulariser token-penalty",
        ),
        (
            lambda: ConstraintConfig(penalty_per_nat=0.5),
            InvalidArgumentError,
            "got 0.5 with episode-budget",
        ),
        (
            lambda: ConstraintConfig(auxiliary_coefficient=-2.0),
            InvalidArgumentError,
            "auxiliary_coefficient must be >= 0 and finite, got -2.0",
        ),
        (lambda: Stage(agent_steps=0), InvalidArgumentError, "agent_steps.*>= 1.*got 0"),
        (lambda: Stage(agent_steps=1, n_tokens=1), InvalidArgumentError, "n_tokens.*got 1"),
        (
            lambda: Stage(agent_steps=1, ramp_fraction=1.5),
            InvalidArgumentError,
            r"ramp_fraction.*\[0, 1\], got 1.5",
        ),
        (lambda: PPOConfig(clip_range=0.0), InvalidArgumentError, "clip_range.*got 0.0"),
        (lambda: PPOConfig(gae_lambda=-0.1), InvalidArgumentError, "gae_lambda.*got -0.1"),
        (lambda: PPOConfig(actor_learning_rate=math.nan), InvalidArgumentError, "got nan"),
        (lambda: PPOConfig(critic_learning_rate=1e308), InvalidArgumentError, r"<= 1, got 1e\+308"),
        (
            lambda: WorldConfig(student_temperature=1e-300),
            InvalidArgumentError,
            "student_temperature must be >= 1e-06.*got 1e-300",
        ),
        (lambda: PPOConfig(batch_size=1), InvalidArgumentError, "batch_size.*>= 2.*got 1"),
        (lambda: PPOConfig(n_epochs=0), InvalidArgumentError, "n_epochs.*got 0"),
        (
            lambda: WorldConfig(student_temperature=0.0),
            InvalidArgumentError,
            "student_temperature.*got 0.0",
        ),
        (
            lambda: WorldConfig(base_model=PROCESS, device="cuda"),
            InvalidArgumentError,
            "device cpu and dtype float32, got cuda and float32",
        ),
        (
            lambda: WorldConfig(base_model=PROCESS, dtype=Precision.BFLOAT16),
            InvalidArgumentError,
            "got cpu and bfloat16",
        ),
        (lambda: WorldConfig(reward_shift=math.inf), InvalidArgumentError, "reward_shift.*got inf"),
        (lambda: replace(TINY, stages=()), InvalidArgumentError, "at least 1 stage, got 0"),
        (lambda: replace(TINY, seed=-3), InvalidArgumentError, "seed must be >= 0.*got -3"),
    ],
)
def test_values_outside_their_domain_are_refused_with_the_number(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_seed_zero_is_a_seed_like_any_other():
    assert TINY.seed == 0
    assert replace(TINY, seed=1) != TINY


@pytest.mark.parametrize("config", VARIANTS)
def test_a_configuration_survives_json(config):
    assert from_jsonable(AgentConfig, to_jsonable(config)) == config


def test_json_that_does_not_fit_is_refused():
    broken = to_jsonable(TINY)
    broken["ppo"]["clip"] = 0.1
    with pytest.raises(InvalidArgumentError, match=r"cannot read a AgentConfig: .*clip"):
        from_jsonable(AgentConfig, broken)


def test_differences_name_what_differs_and_nothing_else():
    other = replace(TINY, seed=2, ppo=replace(TINY.ppo, clip_range=0.2))
    assert differences(TINY, other) == "ppo.clip_range 0.1 and 0.2, seed 0 and 2"
    assert differences(TINY, TINY) == ""


@pytest.mark.parametrize(
    ("text", "shown"), [("\n", r"'\n'"), ("", "''"), ("a ", "'a '"), ("a", "a")]
)
def test_texts_that_a_line_would_not_show_as_they_are_stand_in_quotes(text, shown):
    assert differences({"end_text": None}, {"end_text": text}) == f"end_text None and {shown}"


def test_differences_are_found_in_mappings_and_lists_of_parts():
    first = replace(TINY, stages=(Stage(agent_steps=5), Stage(agent_steps=6)))
    second = replace(TINY, stages=(Stage(agent_steps=5), Stage(agent_steps=7)))
    assert differences(first, second) == "stages.1.agent_steps 6 and 7"
    assert differences(TINY, first).startswith("stages.0.agent_steps 160000 and 5")
    found = differences(
        {"settings": first, "models": {"a": "1"}}, {"settings": first, "models": {}}
    )
    assert found == "models.a 1 and None"
    published = with_fidelity(TINY, Fidelity.PUBLISHED)
    assert "constraint.accounting exact and realized" in differences(TINY, published)


# ----------------------------------------------------------------- which models go together


def test_the_shipped_reward_model_is_for_the_words_of_the_shipped_language_model(capsys):
    """Of any other words it says nothing: all of them are one unknown word to it."""
    for fits in ({}, {"base_model": PROCESS}, {"base_model": "a", "reward_model": "b"}):
        check_vocabularies(WorldConfig(**fits))
    with pytest.raises(InvalidArgumentError, match=r"what a/b says .*with --reward"):
        check_vocabularies(WorldConfig(base_model="a/b"))


@pytest.mark.parametrize("command", ["run", "price", "sweep"])
def test_every_command_refuses_another_language_model_with_the_shipped_reward(command, capsys):
    module = importlib.import_module(f"llm_experiment.{command}")
    with pytest.raises(SystemExit) as exit_:
        module.main(["--base-model", "a/b"])
    assert exit_.value.code == BAD_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "--reward" in line


def test_the_help_of_standardising_says_what_the_flag_does(capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("llm_experiment.run").main(["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    start = shown.index("--no-standardise-features")
    assert "as they are" in shown[start : start + 120]
    assert "default: True" not in shown[start : start + 260]


@pytest.mark.parametrize("typed", [r"\n\n", "\n\n"])
def test_line_breaks_can_be_typed(typed):
    world = parse_options(
        ["--separator", typed, "--prompt", f"Student: hi{typed}Teacher:"]
    ).settings
    assert world.agent.world.separator == "\n\n"
    assert world.agent.world.prompt == "Student: hi\n\nTeacher:"


def test_the_help_shows_line_breaks_as_they_are_typed(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    shown = capsys.readouterr().out
    start = shown.index("--separator")
    assert r"(default: '\n')" in shown[start : start + 300]
    assert r"\n\n" in shown[start : start + 300]
