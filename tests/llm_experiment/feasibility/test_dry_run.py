"""A dry run does what a run does, says that it is none, and projects by arithmetic."""

import json
import math
import shutil
from dataclasses import replace

import psutil
import pytest
import torch
from rich.console import Console

from llm_experiment.base.shipped import language_model_folder, reward_model_folder
from llm_experiment.config import AgentConfig, Preset, Stage, preset_config
from llm_experiment.feasibility import dry_run as module
from llm_experiment.feasibility.dry_run import (
    AGENT_SHARES,
    LABEL,
    RESULT_FILE,
    TOKENS_PER_REPLY,
    Range,
    Timings,
    dry_run,
    project,
    to_table,
)
from llm_experiment.feasibility.memory import GB, PlannedRun
from llm_experiment.feasibility.sizes import RandomSize
from llm_experiment.run import main, parse_options
from mightnt.command_line import BAD_USAGE
from tests.llm_experiment.fakes.devices import NO_GPU
from theory.errors import InvalidArgumentError, ModelError


def published(**changes) -> AgentConfig:
    """The published protocol on the processor."""
    agent = preset_config(Preset.PAPER)
    world = replace(agent.world, device="cpu", agent_device="cpu")
    return replace(agent, world=world, **changes)


def planned(agent: AgentConfig) -> PlannedRun:
    return PlannedRun(
        agent=agent,
        n_agents=6,
        n_evaluation_episodes=4,
        evaluation_lengths=(256, 512),
        n_base_episodes=8,
    )


def exactly(seconds: float) -> Range:
    return Range(least=seconds, most=seconds)


def timings(*, position: float, rollout=0.0, learnt_step=0.0, reply=0.0, checkpoint=0.0) -> Timings:
    return Timings(
        position={256: exactly(position), 512: exactly(position)},
        rollout=exactly(rollout),
        learnt_step=exactly(learnt_step),
        reply=exactly(reply),
        checkpoint=exactly(checkpoint),
    )


@pytest.fixture
def agent() -> AgentConfig:
    """One stage of 64 x 200 x 0.65 x 10 steps: ten rollouts at the likely share."""
    steps = round(64 * 200 * AGENT_SHARES[1] * 10)
    return published(stages=(Stage(agent_steps=steps, n_tokens=256),), checkpoint_every=5)


def test_the_likely_hours_are_those_of_the_parts(agent):
    def hours(**seconds):
        return project(agent, timings(**seconds), n_prompt_tokens=56).likely * 3600

    assert hours(position=0.5) == pytest.approx(10 * 200 * 0.5)
    assert hours(position=0, rollout=7) == pytest.approx(10 * 7)
    assert hours(position=0, learnt_step=1e-3) == pytest.approx(agent.total_agent_steps * 1e-3)
    assert hours(position=0, reply=0.1) == pytest.approx(10 * 64 * 200 / TOKENS_PER_REPLY * 0.1)
    assert hours(position=0, checkpoint=3) == pytest.approx(2 * 3)
    assert project(agent, timings(position=0, learnt_step=1), n_prompt_tokens=56).updates * (
        3600
    ) == pytest.approx(agent.total_agent_steps)


def test_the_published_protocol_takes_about_216_000_positions():
    projection = project(published(), timings(position=1.0), n_prompt_tokens=50)
    assert projection.likely * 3600 == pytest.approx(216_000, rel=0.02)
    assert len(projection.stages) == 3
    assert sum(projection.stages) == pytest.approx(projection.likely)
    # At twice the length a rollout has twice the steps, so a stage as many positions.
    assert projection.stages[2] == pytest.approx(projection.stages[0], rel=0.02)


def test_the_interval_holds_the_shares_and_the_timings(agent):
    measured = replace(
        timings(position=1.0), position={256: Range(least=0.5, most=2.0)}, reply=exactly(0.0)
    )
    projection = project(agent, measured, n_prompt_tokens=56)
    least, likely, most = AGENT_SHARES
    rollouts = [math.ceil(10 * likely / share) for share in (most, least)]
    assert projection.low * 3600 == pytest.approx(rollouts[0] * 200 * 0.5)
    assert projection.high * 3600 == pytest.approx(rollouts[1] * 200 * 2.0)
    assert projection.likely * 3600 == pytest.approx(10 * 200 * 1.25)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A dry run of tiny models in short: its result and its folder."""
    out = tmp_path_factory.mktemp("dry") / "run"
    agent = published(n_episodes=4)
    agent = replace(agent, ppo=replace(agent.ppo, n_epochs=1))
    console = Console(record=True, quiet=True)
    result = dry_run(planned(agent), size=RandomSize.TINY, out=out, console=console)
    return result, out


def test_a_dry_run_measures_every_part_and_says_what_it_is(finished):
    result, out = finished
    assert result.label.startswith(LABEL)
    assert "tiny random models" in result.label
    for timing in (*result.timings.position.values(), result.timings.learnt_step):
        assert 0 <= timing.least <= timing.most < 60
        assert timing.most > 0
    assert sorted(result.timings.position) == [256, 512]
    projection = result.projection
    assert 0 < projection.low < projection.likely < projection.high < math.inf
    assert result.fits
    saved = json.loads((out / RESULT_FILE).read_text())
    assert saved["label"] == result.label
    assert saved["projection"]["high"] == projection.high
    assert len(saved["assumptions"]) >= 4
    assert to_table(result).title == result.label


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
def test_no_time_is_rounded_to_nothing(finished, scale):
    """The shipped models take seconds an agent, which one decimal of an hour would show as 0."""
    result, _ = finished
    found = result.projection
    scaled = replace(
        found,
        **{name: getattr(found, name) * scale for name in ("low", "likely", "high", "updates")},
        stages=tuple(hours * scale for hours in found.stages),
    )
    table = to_table(replace(result, projection=scaled))
    hours = [row for row in table.texts if row[1] == "h"]
    assert len(hours) == 4 + len(found.stages)
    for _, _, least, most in hours:
        for text in (least, most):
            assert float(text.replace(",", "")) > 0
    n = result.n_agents
    assert float(hours[-1][2].replace(",", "")) == pytest.approx(n * scaled.low, rel=6e-3)


def test_weights_that_another_library_quantised_are_refused_before_anything_is_weighed(
    tmp_path, capsys
):
    model = shutil.copytree(language_model_folder("classroom"), tmp_path / "model")
    settings = json.loads((model / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (model / "config.json").write_text(json.dumps(settings))
    reward = str(reward_model_folder("classroom"))
    options = ["--base-model", str(model), "--reward-model", reward, "--out", str(tmp_path / "out")]
    for form in (["--dry-run"], []):
        with pytest.raises(SystemExit) as exit_:
            main(["--quick", *options, *form])
        assert exit_.value.code == BAD_USAGE
        shown = capsys.readouterr()
        error = shown.err.splitlines()[-1]
        assert error.startswith(
            f"error: cannot load the language model {model}: it needs a library"
        )
        assert "Memory" not in shown.out
        assert not (tmp_path / "out" / RESULT_FILE).exists()


def test_the_two_things_that_are_called_tiny_are_told_apart(finished, capsys):
    """The shipped models, and random ones of a size with that name."""
    result, _ = finished
    assert "tiny random models" in result.label
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "its tiny is not the shipped models" in shown.replace("`", "")


def test_a_dry_run_leaves_no_agent_and_no_manifest_of_a_run(finished):
    _, out = finished
    files = {path.name for path in out.rglob("*") if path.is_file()}
    assert RESULT_FILE in files
    assert not files & {"manifest.json", "summary.json", "agent.safetensors"}
    assert not [name for name in files if name.startswith("dry_run_agent")]


def test_mixtral_8x7b_is_refused_where_it_does_not_fit_and_nothing_is_allocated(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(module, "free_bytes", lambda devices: dict.fromkeys(devices, 24 * GB))
    console, before = Console(width=200), psutil.Process().memory_info().rss
    with pytest.raises(ModelError, match=r"up to 1\d\d\.\d GB on cpu, where 24\.0 GB are free"):
        dry_run(
            planned(published()), size=RandomSize.MIXTRAL_8X7B, out=tmp_path / "x", console=console
        )
    shown = capsys.readouterr().out
    assert "language model" in shown
    assert "93.4" in shown
    assert not (tmp_path / "x").exists()
    assert psutil.Process().memory_info().rss < before + GB


def test_a_prompt_beyond_the_middle_of_an_episode_is_refused(tmp_path):
    agent = published(n_episodes=2, stages=(Stage(agent_steps=9, n_tokens=64),))
    with pytest.raises(InvalidArgumentError, match="must have fewer than 32 tokens, got"):
        dry_run(planned(agent), size=RandomSize.TINY, out=tmp_path, console=Console(quiet=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_a_dry_run_takes_the_processor_and_a_run_refuses(tmp_path, capsys):
    agent = preset_config(Preset.PAPER)
    world = module.on_this_machine(agent.world, Console())
    assert (world.device, world.agent_device) == ("cpu", "cpu")
    assert "no GPU here: device cpu in place of cuda" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["--preset", "paper", "--base-model", "tiny", "--reward-model", "tiny",
              "--out", str(tmp_path)])  # fmt: skip
    assert stopped.value.code == BAD_USAGE
    assert "device cuda cannot be used on this machine" in capsys.readouterr().err


def test_the_command_line_takes_a_size_with_dry_run_only(capsys):
    options = parse_options(["--preset", "paper", "--dry-run", "--random-weights", "mixtral-8x7b"])
    assert options.dry_run
    assert options.random_weights is RandomSize.MIXTRAL_8X7B
    assert options.processes == 1
    with pytest.raises(SystemExit):
        parse_options(["--random-weights", "small"])
    assert "use them with --dry-run" in capsys.readouterr().err


@pytest.mark.slow
def test_small_models_are_run_dry_by_one_command(tmp_path, capsys):
    main(["--preset", "paper", "--dry-run", "--random-weights", "small", "--out", str(tmp_path)])
    assert "DRY RUN, small random models" in capsys.readouterr().out
    assert json.loads((tmp_path / RESULT_FILE).read_text())["label"].startswith(LABEL)


@pytest.mark.gpu
@NO_GPU
@pytest.mark.filterwarnings("ignore:positions are not replayed")
def test_a_dry_run_on_a_gpu_uses_no_more_memory_than_was_estimated(tmp_path):
    agent = preset_config(Preset.PAPER)
    torch.cuda.reset_peak_memory_stats()
    result = dry_run(
        planned(agent), size=RandomSize.SMALL, out=tmp_path, console=Console(quiet=True)
    )
    assert torch.cuda.max_memory_allocated() <= result.needed_bytes["cuda:0"]
