"""Everything that a run's numbers depend on, and what its command line starts from.

`llm_experiment.run` and `llm_experiment.sweep` share it. It needs no learning library, so that
`--help` and a bad option answer at once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Final

import tyro

from llm_experiment.config import AgentConfig, Fidelity, Preset, preset_config, quick_config
from llm_experiment.suite import Suite, SuiteConfig, default_suite, suite_agents

QUICK_LABEL: Final = "quick (two budgets, one seed)"
QUICK_REAL: Final = "quick (prices, and a few updates: too few to show what a budget buys)"
"""The same of a model on which an agent takes an hour."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a run's numbers depend on."""

    preset: Preset = Preset.TINY
    """Where every option below starts from: a small machine, or the published protocol."""
    fidelity: Fidelity = Fidelity.OURS
    """Whose constraint the options below start from: ours, or the authors'."""
    suite: Suite = Suite.DEFAULT
    """How many agents the options below start from."""
    quick: bool = False
    """Only budgets 3 and 10 with one seed (of a real model, 10): a look at the whole path."""
    agents: Annotated[SuiteConfig, tyro.conf.arg(name="")] = field(default_factory=SuiteConfig)
    """The agents to train, and how to evaluate them."""
    agent: Annotated[AgentConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: preset_config(Preset.TINY)
    )
    """What all agents share."""

    @classmethod
    def start(cls, preset: Preset, fidelity: Fidelity, suite: Suite, *, quick: bool) -> "Settings":
        """The settings that a preset stands for."""
        agent = preset_config(preset, fidelity)
        return cls(
            preset=preset,
            fidelity=fidelity,
            suite=suite,
            quick=quick,
            agents=default_suite(preset, fidelity, suite, quick=quick),
            agent=quick_config(agent, preset) if quick else agent,
        )

    def only_adds_agents(self, more: "Settings") -> bool:
        """Whether `more` asks for every agent of these settings, evaluated alike."""
        names = ("evaluation_lengths", "n_evaluation_episodes", "n_base_episodes")
        evaluated_alike = all(
            getattr(self.agents, name) == getattr(more.agents, name) for name in names
        )
        like = replace(more, suite=self.suite, quick=self.quick, agents=self.agents)
        return (
            evaluated_alike
            and like == self
            and set(suite_agents(self.agent, self.agents))
            <= set(suite_agents(more.agent, more.agents))
        )

    @property
    def label(self) -> str:
        """What to call the run wherever its numbers are shown."""
        if self.quick:
            return f"{self.preset.value}, {QUICK_REAL}" if self.preset.is_packaged else QUICK_LABEL
        return f"{self.preset.value}, {self.suite.value} suite"

    @property
    def episode_lengths(self) -> tuple[int, ...]:
        """Every length, in tokens, at which episodes are played in training or evaluation."""
        trained = {stage.n_tokens for stage in self.agent.stages}
        return tuple(sorted(trained | {*self.agents.long_lengths, *self.agents.evaluation_lengths}))


def starting_preset(argv: Sequence[str] | None = None) -> Preset:
    """The preset that a command line names; the default if it names none that there is."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=Preset.TINY.value)
    given, _ = first.parse_known_args(argv)
    known = {preset.value: preset for preset in Preset}
    return known.get(given.preset, Preset.TINY)  # the real parser will refuse others


def starting_settings(argv: Sequence[str] | None = None) -> Settings:
    """The settings from which the options of a command line start."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=Preset.TINY.value)
    first.add_argument("--fidelity", default=Fidelity.OURS.value)
    first.add_argument("--suite", default=Suite.DEFAULT.value)
    first.add_argument("--quick", action="store_true")
    given, _ = first.parse_known_args(argv)
    try:
        start = Settings.start(
            Preset(given.preset), Fidelity(given.fidelity), Suite(given.suite), quick=given.quick
        )
    except ValueError:
        start = Settings()  # the real parser will say which word it does not know
    # A flag whose default is True would be spelt --no-quick.
    return replace(start, quick=False)
