"""What a comparison of pessimistic base policies does: which, at which budgets, how often.

Light: a command line is read into it before anything is loaded.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from llm_experiment.config import EVERY_MEMBER, Preset, Stage, WorldConfig, at_least, preset_config
from llm_experiment.dialogue.task import load_task
from llm_experiment.settings import Settings
from llm_experiment.suite import SuiteConfig
from theory.arguments import check_alpha
from theory.errors import InvalidArgumentError
from theory.missing_mass import Help


class Base(Enum):
    """A base policy that agents are held to."""

    BAYESIAN = "bayesian"
    """The language model as it is."""
    ENSEMBLE = "ensemble"
    """The least that any of several independently trained models predicts (Definition 4); acting
    is charged for what that misses, and steps that the budget does not pay for are asked for."""
    AUDIT = "audit"
    """Vetoes of the events that the model is badly wrong about; the demonstrator helps."""
    HARD = "hard"
    """Vetoes of all events that never occurred; the demonstrator helps."""
    RENORMALISED = "renormalised"
    """The same, divided by what is left where that is nearly all."""
    ASKING = "asking"
    """The audit's vetoes; acting is charged for what they take, and the rest asked for."""
    ATTACKED = "attacked"
    """The least of the model and of one that learnt not to do what the agents held to the model
    did; the demonstrator helps."""
    CONFIDENCE = "confidence"
    """No vetoes: events as rare as upper 95% confidence bounds on their rates allow; the
    demonstrator helps."""

    def __str__(self) -> str:
        """As it is called in tables."""
        return _CALLED[self]


_CALLED = {
    Base.BAYESIAN: "language model",
    Base.ENSEMBLE: "ensemble, least of all",
    Base.AUDIT: "vetoes, audit",
    Base.HARD: "vetoes, hard",
    Base.RENORMALISED: "vetoes, hard, renormalised",
    Base.ASKING: "vetoes, audit, charged",
    Base.ATTACKED: "member trained on attacks",
    Base.CONFIDENCE: "confidence bounds",
}
VETOES_OF: Final = {
    Base.AUDIT: Base.AUDIT,
    Base.HARD: Base.HARD,
    Base.RENORMALISED: Base.HARD,
    Base.ASKING: Base.AUDIT,
    Base.CONFIDENCE: Base.CONFIDENCE,
}
"""Which vetoes a base policy has, by the first that has them."""


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """Train agents against pessimistic base policies side by side: one table, one figure."""

    out: Path = Path("results/pessimists")
    """Folder: a run for each base policy, the vetoes, and `pessimists.json`."""
    bases: tuple[Base, ...] = (Base.BAYESIAN, Base.AUDIT, Base.HARD, Base.RENORMALISED, Base.ASKING)
    """Base policies; `ensemble` needs --members."""
    members: tuple[str, ...] = ()
    """Folders of independently trained language models, for `ensemble`; `python -m
    llm_experiment.tiny_models --language-model.seed 1` trains one."""
    budgets_nats: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0)
    """Budgets, in nats an episode."""
    n_seeds: int = 5
    """Agents for each base policy and budget."""
    task: str = "classroom"
    """Dialogue task, with shipped models."""
    alpha: float = 0.05
    """Threshold of the audit's vetoes."""
    n_dialogues: int = 1439
    """Demonstrations that the task's process makes up."""
    n_dialogue_tokens: int = 384
    """Tokens of each."""
    agent_steps: int = 160_000
    """Tokens that each agent writes in training."""
    n_base_episodes: int = 2048
    """Episodes of each base policy's own evaluation."""
    seed: int = 0
    """Seed of the demonstrations."""
    processes: int = 2
    """Agents trained side by side, each in a process of one thread."""

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        load_task(self.task)
        counts = (
            "n_seeds", "n_dialogues", "agent_steps", "n_base_episodes", "processes",
        )  # fmt: skip
        for name in counts:
            at_least(name, getattr(self, name), 1)
        at_least("n_dialogue_tokens", self.n_dialogue_tokens, 2)
        at_least("seed", self.seed, 0)
        if not self.bases or not self.budgets_nats:
            raise InvalidArgumentError("bases and budgets_nats must name at least 1 each")
        if Base.ATTACKED in self.bases and Base.BAYESIAN not in self.bases:
            raise InvalidArgumentError(
                "the base attacked learns from the agents held to the base bayesian; name both"
            )
        if Base.ENSEMBLE in self.bases and not self.members:
            raise InvalidArgumentError(
                "the base ensemble needs further models; name their folders with --members"
            )
        for budget in self.budgets_nats:
            if not 0 < budget < math.inf:
                raise InvalidArgumentError(f"budgets must be > 0 and finite, got {budget}")

    @property
    def ordered_bases(self) -> tuple[Base, ...]:
        """The base policies in an order in which each finds what it needs."""
        return tuple(sorted(self.bases, key=lambda base: base is not Base.BAYESIAN))

    @property
    def needs_demonstrations(self) -> bool:
        """Whether demonstrations are to be read."""
        return bool({*self.bases} - {Base.BAYESIAN, Base.ENSEMBLE})

    @property
    def member_folder(self) -> Path:
        """Where the member lies that is trained on attacks."""
        return self.out / "member"

    @property
    def veto_files(self) -> Mapping[Base, Path]:
        """Where the vetoes of each form are."""
        return {form: self.out / f"vetoes-{form.value}.json" for form in set(VETOES_OF.values())}

    def world(self, base: Base) -> WorldConfig:
        """The world of the agents that are held to a base policy."""
        world = WorldConfig(task=self.task)
        if base is Base.BAYESIAN:
            return world
        if base is Base.ENSEMBLE:
            return replace(world, members=self.members, missing_mass=Help.ASK)
        if base is Base.ATTACKED:
            return replace(
                world,
                members=(str(self.member_folder),),
                members_alpha=EVERY_MEMBER,
                missing_mass=Help.DEMONSTRATOR,
            )
        way = {Base.RENORMALISED: Help.RENORMALISE, Base.ASKING: Help.ASK}.get(
            base, Help.DEMONSTRATOR
        )
        return replace(world, vetoes=str(self.veto_files[VETOES_OF[base]]), missing_mass=way)

    def settings(self, base: Base) -> Settings:
        """The run of a base policy."""
        agent = preset_config(Preset.TINY)
        stage = Stage(agent_steps=self.agent_steps, ramp_fraction=agent.stages[0].ramp_fraction)
        return replace(
            Settings(),
            agent=replace(agent, world=self.world(base), stages=(stage,)),
            agents=SuiteConfig(
                budgets_nats=self.budgets_nats,
                n_seeds=self.n_seeds,
                realized_budgets_nats=(),
                control_shifts=(),
                without_vetoes=False,
                evaluation_lengths=(stage.n_tokens,),
                n_base_episodes=self.n_base_episodes,
            ),
        )
