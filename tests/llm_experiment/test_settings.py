"""A preset is where the options of a command line start from."""

from llm_experiment.config import Fidelity, Preset, preset_config
from llm_experiment.run import parse_options
from llm_experiment.suite import Suite, suite_jobs


def test_every_preset_is_where_its_options_start_from():
    options = parse_options(["--preset", "paper", "--fidelity", "published", "--n-seeds", "1"])
    assert options.settings.agent == preset_config(Preset.PAPER, Fidelity.PUBLISHED)
    assert options.settings.agents.budgets_nats == (10.0, 20.0)
    assert options.settings.agents.n_seeds == 1
    default = parse_options([])
    assert default.settings.agent == preset_config(Preset.TINY)
    assert default.settings.suite is Suite.DEFAULT


def test_options_change_what_the_preset_gave():
    options = parse_options(
        [
            "--base-model",
            "some/model",
            "--reward-model",
            "some/judge",
            "--ppo.clip-range",
            "0.3",
            "--stages.0.n-tokens",
            "99",
        ]
    )
    agent = options.settings.agent
    assert (agent.world.base_model, agent.ppo.clip_range) == ("some/model", 0.3)
    assert agent.stages[0].n_tokens == 99
    assert agent.stages[0].agent_steps == preset_config(Preset.TINY).stages[0].agent_steps


def test_quick_is_two_agents_and_says_so():
    settings = parse_options(["--quick"]).settings
    assert settings.quick
    jobs = suite_jobs(settings.agent, settings.agents)
    assert [job.config.constraint.budget_nats for job in jobs] == [3.0, 10.0]
    assert "quick" in settings.label
    assert "quick" not in parse_options([]).settings.label
    whole = parse_options([]).settings.agent
    assert settings.agent.total_agent_steps < whole.total_agent_steps
    paper = [parse_options(["--preset", "paper", *q]).settings.agent for q in ([], ["--quick"])]
    assert paper[0] == paper[1]


def test_quick_on_a_packaged_model_is_shorter_and_says_what_it_cannot_show():
    whole, quick = (parse_options(["--preset", "smollm2", *q]).settings for q in ([], ["--quick"]))
    steps = [settings.agent.total_agent_steps for settings in (whole, quick)]
    assert steps[1] < steps[0] / 10
    assert "too few to show" in quick.label
    assert quick.label.startswith("smollm2")
    assert quick.agent.world == whole.agent.world
