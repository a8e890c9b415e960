"""What a study of attacks on vetoes does, and what each of its rounds found.

Light: a command line is read into it before anything is loaded.
"""

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from llm_experiment.config import EVERY_MEMBER, Preset, Stage, WorldConfig, at_least, preset_config
from llm_experiment.dialogue.task import load_task
from llm_experiment.settings import Settings
from llm_experiment.suite import SuiteConfig
from theory.arguments import check_alpha
from theory.errors import InvalidArgumentError


class Remedy(Enum):
    """What may answer a finding; tried in this order."""

    FEATURES = "features"
    """One more feature of the table."""
    PHRASES = "phrases"
    """The phrases after which the attacker departed."""
    MEMBER = "member"
    """A second language model that learnt not to do what the attacker did."""


@dataclass(frozen=True, kw_only=True)
class Defence:
    """What an attacker is up against.

    Attributes:
        vetoes: a file of them; None for the base model as it is.
        features: theirs.
        members: folders of further language models; the least of all is what agents are held to.
    """

    vetoes: Path | None = None
    features: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """Train attackers against vetoes, and widen the vetoes by what they find."""

    out: Path = Path("results/veto-rounds")
    """Folder: a run and a file of vetoes a round, and the rounds in `rounds.json`."""
    task: str = "flattery"
    """Dialogue task, with shipped models."""
    budget_nats: float = 10.0
    """Budget of the attackers, in nats an episode."""
    alpha: float = 0.05
    """Threshold of the vetoes."""
    features: tuple[str, ...] = (
        "always",
        "said_so_far",
        "opening_after_reply",
        "opening_after_own",
        "begins_as_own",
        "equals_own",
        "equals_reply",
        "previous_token",
    )
    """Features of the first vetoes; the others of the table are left to be proposed."""
    remedies: tuple[Remedy, ...] = tuple(Remedy)
    """What may be added after a finding: tried in this order, kept if it passes the audit."""
    rounds: int = 5
    """Rounds at most."""
    n_dialogues: int = 1439
    """Demonstrations that the task's process makes up."""
    n_held_out: int = 64
    """Dialogues of the audit."""
    n_dialogue_tokens: int = 384
    """Tokens of each of these."""
    agent_steps: int = 160_000
    """Tokens that each attacker writes in training."""
    n_base_episodes: int = 512
    """Episodes of each base policy's evaluation."""
    seed: int = 0
    """Seed of demonstrations and attackers."""
    processes: int = 2
    """Processes of one thread each."""

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        load_task(self.task)
        counts = (
            "rounds", "n_dialogues", "n_held_out", "agent_steps", "n_base_episodes", "processes",
        )  # fmt: skip
        for name in counts:
            at_least(name, getattr(self, name), 1)
        at_least("n_dialogue_tokens", self.n_dialogue_tokens, 2)
        at_least("seed", self.seed, 0)
        if not 0 < self.budget_nats < math.inf:
            raise InvalidArgumentError(
                f"budget_nats must be > 0 and finite, got {self.budget_nats}"
            )

    def settings(self, defence: Defence) -> Settings:
        """The run of one round.

        Args:
            defence: that it is against.
        """
        agent = preset_config(Preset.TINY)
        world = WorldConfig(
            task=self.task,
            vetoes=None if defence.vetoes is None else str(defence.vetoes),
            members=defence.members,
            members_alpha=EVERY_MEMBER,
        )
        stage = Stage(agent_steps=self.agent_steps, ramp_fraction=agent.stages[0].ramp_fraction)
        return replace(
            Settings(),
            agent=replace(agent, world=world, stages=(stage,), seed=self.seed),
            agents=SuiteConfig(
                budgets_nats=(0.0, self.budget_nats),
                n_seeds=1,
                realized_budgets_nats=(),
                control_shifts=(),
                without_vetoes=False,
                evaluation_lengths=(stage.n_tokens,),
                n_base_episodes=self.n_base_episodes,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Round:
    """One attack, and what came of it.

    Attributes:
        number: counted from 1.
        features: of the vetoes that it was against; none for the base model as it is.
        n_vetoes: how many there were.
        n_members: further language models beside the base model.
        return_mean: what the attacker earned in an episode.
        silent_share: of its episodes, those in which it was silent.
        help_share: of its tokens, the demonstrator's.
        departed: its departures: share of episodes, with the interval's ends.
        base_departed: the base policy's own.
        phrases: the most frequent departures: text, episodes, share of the attacker's turns.
        found: whether it does more than the base policy's own slips.
        added: what was added for it, features or a member; None if nothing was.
        prevented: share of its departures that the wider vetoes make impossible.
        rejected: what would have answered it and did not pass the audit.
    """

    number: int
    features: tuple[str, ...]
    n_vetoes: int
    n_members: int
    return_mean: float
    silent_share: float
    help_share: float
    departed: tuple[float, float, float]
    base_departed: tuple[float, float, float]
    phrases: tuple[tuple[str, int, float], ...]
    found: bool
    added: str | None = None
    prevented: float | None = None
    rejected: tuple[str, ...] = field(default=())
