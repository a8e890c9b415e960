"""What an agent is trained with: one frozen, validated value, and the presets.

An `AgentConfig` says everything that the numbers of one agent depend on; equal configurations
give equal agents. Two presets exist. `paper` is the published protocol, stage by stage; `tiny`
is the same protocol scaled to the models that are shipped with this project. `Fidelity` chooses
between the authors' constraint and ours in either.

The constraint on one episode, with base policy `b` and proposed policy `a` of a step, is set by
three choices. The *accounting* says what a step costs the budget (`theory.budget`). The *target
rule* says which KL the step's policy `x` aims at, given the budget left and the output `h` of
the actor's budget neuron. The *regulariser* says whether there is a budget at all.

On command lines, what sets the agents of one suite apart (`llm_experiment.suite`) is hidden here.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from itertools import accumulate
from typing import Annotated, Any, Final

import tyro

from mightnt.results import to_jsonable
from theory.budget import Accounting
from theory.errors import InvalidArgumentError, InvalidBudgetError
from theory.missing_mass import Help

TINY: Final = "tiny"
"""The name, in place of a path or hub id, of the models shipped with this project."""
PROCESS: Final = "process"
"""The name, in place of a path or hub id, of the task's own process, exact, as base policy."""
MIXTURE: Final = "mixture"
"""The name, likewise, of the exact Bayesian mixture over the family of a task's processes
(`llm_experiment.base.mixture`)."""
COMPUTED: Final = (PROCESS, MIXTURE)
"""Base policies that are computed, and have no weights."""
KNOWN: Final = (TINY, *COMPUTED)
"""Base policies whose demonstrator is known."""
VADER: Final = "vader"
"""The name, in place of a path or hub id, of the rules of vaderSentiment as reward."""
EVERY_MEMBER: Final = 1e-300
"""A threshold of likely that leaves out no member whose weight a computer can tell from 0."""
LEAST_TEMPERATURE: Final = 1e-6
"""Below it logits over the temperature overflow in single precision; the largest then always wins
already."""
ALL_GPUS: Final = "auto"
"""The name, in place of a device, of all GPUs together."""

PUBLISHED_PROMPT: Final = """\
These are private conversations, collected as training data.

Student: For our science reports...

Teacher: Yeah?

Student: I don't understand what is supposed to go in the discussion section.

Teacher: Do you"""
"""The published starting transcript, the note before it in words of our own."""


class Regulariser(Enum):
    """What keeps the agent near the base policy."""

    EPISODE_BUDGET = "episode-budget"
    """A budget of KL for each episode: the paper's constraint."""
    NONE = "none"
    """Nothing."""
    TOKEN_PENALTY = "token-penalty"
    """The usual penalty of RLHF: each token's reward less a coefficient times its log-ratio."""


class TargetRule(Enum):
    """Which KL, in nats, a step aims at; B is the budget left, s = sigmoid(h - log 16)."""

    ATTAINABLE = "attainable"
    """`s min(B, KL(a||b))`: every target can be met, so h always has a gradient."""
    PUBLISHED = "published"
    """`s B + 1e-6`, which may lie beyond KL(a||b); an auxiliary loss keeps h in reach."""


class ActorForm(Enum):
    """How the actor gives every token a number (`llm_experiment.agent.actor`)."""

    LINEAR = "linear"
    """One layer from what it sees to the vocabulary: as published."""
    LOW_RANK = "low-rank"
    """The same of a low rank, for large vocabularies."""
    THROUGH_HEAD = "through-head"
    """A shift of the hidden state before the language model's frozen last layer."""


class Fidelity(Enum):
    """Whose constraint."""

    OURS = "ours"
    """Exact accounting and attainable targets: the budget bounds the KL of every episode."""
    PUBLISHED = "published"
    """Realised accounting, published targets and their auxiliary loss, which do not."""


class Preset(Enum):
    """Whose scale."""

    TINY = "tiny"
    """A two-core machine, minutes, models shipped with this project."""
    PAPER = "paper"
    """The published protocol: 9 million steps a run on a large model."""
    SMOLLM2 = "smollm2"
    """The published prompt on a real model of 135 million weights: an hour an agent on a core."""
    GEMMA3_270M = "gemma3-270m"
    """The same on one of 268 million, with a vocabulary of 262,144: several hours."""

    @property
    def is_packaged(self) -> bool:
        """Whether it is for a model of the package index (`base.packaged`), which it names."""
        return self in (Preset.SMOLLM2, Preset.GEMMA3_270M)


class Precision(Enum):
    """How the base model's weights are stored."""

    FLOAT32 = "float32"
    """Single precision."""
    BFLOAT16 = "bfloat16"
    """Brain floating point."""
    FLOAT16 = "float16"
    """Half precision."""
    NF4 = "nf4"
    """4-bit NormalFloat with double quantisation, computing in bfloat16; as published."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of training with one episode length."""

    agent_steps: int
    """Tokens that the agent writes in this stage, over all episodes; the last update of the
    stage is the first to reach them."""
    n_tokens: int = 256
    """Length of an episode in tokens, the starting transcript included."""
    ramp_fraction: float = 0.0
    """Share of the stage over which the budget rises linearly from 0 to its full size."""

    def __post_init__(self) -> None:
        at_least("agent_steps of a stage", self.agent_steps, 1)
        at_least("n_tokens of a stage", self.n_tokens, 2)
        _within("ramp_fraction of a stage", self.ramp_fraction, 0.0, 1.0)

    def budget_nats(self, full_nats: float, *, steps_done: int) -> float:
        """The budget of episodes that start after `steps_done` of this stage."""
        ramp_steps = self.ramp_fraction * self.agent_steps
        if math.isinf(full_nats) or steps_done >= ramp_steps:
            return full_nats
        return full_nats * steps_done / ramp_steps


@dataclass(frozen=True, kw_only=True)
class ScheduleEntry:
    """What a rollout is played with.

    Attributes:
        number: of the stage, counted from 1.
        stage: the stage.
        budget_nats: the budget of each episode; inf for none.
    """

    number: int
    stage: Stage
    budget_nats: float


def _typed(words: list[str]) -> str:
    return words[0].replace(r"\n", "\n")


Lines = Annotated[
    str,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="STR",
        instance_from_str=_typed,
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda text: [text.replace("\n", r"\n")],
    ),
]
r"""Text with line breaks, which a command line spells `\n`."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """The models, the dialogue and the reward."""

    base_model: str = TINY
    """Base policy and partner: `tiny`, a local folder, a Hugging Face hub id, a GGUF file, a model
    of the package index (`smollm2`, `gemma3-270m`), `process`, the very process that `tiny`
    learnt from, so that nothing is due to errors of imitation, or `mixture`, the exact Bayesian
    mixture over processes like it."""
    reward_model: Annotated[str, tyro.conf.arg(name="reward", aliases=("--reward-model",))] = TINY
    """How good a reply is, in [0, 1]: `tiny`, a folder or Hugging Face hub id of a sentiment
    classifier or scalar reward model, `vader` (rules), or `module:function`, a function of your
    own from the texts of replies to numbers."""
    positive_label: str | None = None
    """The classifier's label of what is positive, such as LABEL_1; known if its labels are POSITIVE
    and NEGATIVE. A scalar reward model, of one label, needs none."""
    device: str = "cpu"
    """Torch device of the base model, such as `cpu` or `cuda:0`; several GPUs as `cuda:0,cuda:1`,
    or `auto` for all that there are (with the extra `multi-gpu`)."""
    agent_device: str = "cpu"
    """Torch device of the agent and its updates."""
    dtype: Precision = Precision.FLOAT32
    """How the base model's weights are stored; `nf4` with the extra `quantised`."""
    vetoes: str | None = None
    """File of vetoes (`python -m llm_experiment.vetoes`): what the demonstrator never does, taken
    from the agent's base policy before any agent acts."""
    members: tuple[str, ...] = ()
    """Further language models, each a folder, hub id or GGUF file, which with the base model form a
    pessimistic imitator: the least that a likely one of them predicts."""
    members_alpha: float = 0.05
    """Threshold of likely: the least weight of a member relative to that of the likelier ones."""
    missing_mass: Help | None = None
    """What becomes of what vetoes or pessimism leave out: `demonstrator` fills it; `ask` charges
    for acting, and the demonstrator writes what the budget does not pay for; `stop` charges and
    ends the episode; `renormalise` divides by what is left, up to 5%. Left out: `demonstrator`
    where the demonstrator is known, else `renormalise`."""
    task: str = "classroom"
    """Dialogue task: which of the `tiny` models, and the default prompt."""
    prompt: Lines | None = None
    """The starting transcript, its line breaks as they are or spelt \\n; the task's own if left
    out."""
    agent_name: str = "Teacher"
    """The name before the agent's turns in the prompt; in a task without a Teacher, its agent's."""
    partner_name: str = "Student"
    """The name before the base model's own turns in the prompt; likewise."""
    separator: Lines = "\n"
    """Line breaks between turns in the prompt, such as \\n\\n."""
    student_temperature: float = 1.0
    """Temperature at which the partner's tokens (the Student's) are sampled."""
    max_reply_tokens: int = 512
    """A partner's reply of more tokens than this is cut off."""
    eos_ends_reply: bool = False
    """End a partner's reply where it writes the tokenizer's end-of-text token, too."""
    score_blank_replies: bool = False
    """Let the classifier score replies without words too, as published; else they earn 1/2."""
    reward_shift: tyro.conf.Suppress[float] = 0.0
    """Added to the score, in [0, 1], of every reply; -0.5 makes a neutral reply worth 0."""

    def __post_init__(self) -> None:
        exact = self.device == "cpu" and self.dtype is Precision.FLOAT32
        if self.base_model in COMPUTED and not exact:
            raise InvalidArgumentError(
                f"base_model {self.base_model} is computed on the CPU and has no weights; use "
                f"it with device cpu and dtype float32, got {self.device} and {self.dtype.value}"
            )
        if not 0 < self.members_alpha <= 1:
            raise InvalidArgumentError(
                f"members_alpha must lie in (0, 1], got {self.members_alpha}"
            )
        if self.missing_mass is not None and not self.is_pessimistic:
            raise InvalidArgumentError(
                f"missing_mass {self.missing_mass.value} says what becomes of what is left out, "
                "and nothing is; name --vetoes or --members"
            )
        at_least("student_temperature", self.student_temperature, LEAST_TEMPERATURE)
        at_least("max_reply_tokens", self.max_reply_tokens, 1)
        _finite("reward_shift", self.reward_shift)

    @property
    def is_pessimistic(self) -> bool:
        """Whether the agent's base policy leaves something out."""
        return self.vetoes is not None or bool(self.members)


def check_vocabularies(world: WorldConfig) -> None:
    """Raise if the shipped reward model is to score the words of another language model.

    It knows some hundred words. All others are one unknown word to it, so that its scores would
    mean nothing. Runs that were made so can still be read.

    Raises:
        InvalidArgumentError: it is.
    """
    if world.reward_model == TINY and world.base_model not in KNOWN:
        raise InvalidArgumentError(
            f"the shipped reward model knows only the words of the shipped language model, so that "
            f"its scores of what {world.base_model} says mean nothing; name another reward with "
            "--reward, such as distilbert/distilbert-base-uncased-finetuned-sst-2-english or vader"
        )


@dataclass(frozen=True, kw_only=True)
class ConstraintConfig:
    """What keeps the agent near the base policy, and how it is counted."""

    regulariser: tyro.conf.Suppress[Regulariser] = Regulariser.EPISODE_BUDGET
    """A budget for each episode, no constraint, or a penalty on every token."""
    budget_nats: tyro.conf.Suppress[float] = 10.0
    """KL budget of an episode in nats (with `episode-budget`)."""
    accounting: Accounting = Accounting.EXACT
    """What a step costs the budget: `exact` its KL, `realized` its log-ratio, clamped."""
    target_rule: TargetRule = TargetRule.ATTAINABLE
    """Which KL a step aims at, given the budget left and the budget neuron."""
    auxiliary_coefficient: float = 0.0
    """Weight of the loss (KL(x||b) - target)^2; published targets need it."""
    penalty_per_nat: tyro.conf.Suppress[float] = 0.0
    """Reward taken for each nat of a token's log-ratio (with `token-penalty`)."""

    def __post_init__(self) -> None:
        if not self.budget_nats >= 0:
            raise InvalidBudgetError(
                f"budget_nats must be >= 0, got {self.budget_nats}; 0 is the base policy itself"
            )
        if math.isinf(self.budget_nats):
            raise InvalidBudgetError(
                "budget_nats must be finite, got inf; for no constraint choose regulariser none"
            )
        at_least("auxiliary_coefficient", self.auxiliary_coefficient, 0.0)
        at_least("penalty_per_nat", self.penalty_per_nat, 0.0)
        published = self.target_rule is TargetRule.PUBLISHED
        if published and self.accounting is Accounting.EXACT:
            raise InvalidArgumentError(
                "target_rule published aims at 1e-6 nats or more even where the budget is spent, "
                "so an exact budget cannot hold; use accounting realized with it"
            )
        penalised = self.regulariser is Regulariser.TOKEN_PENALTY
        if penalised != (self.penalty_per_nat > 0):
            raise InvalidArgumentError(
                f"penalty_per_nat must be > 0 with regulariser token-penalty and 0 otherwise, got "
                f"{self.penalty_per_nat} with {self.regulariser.value}"
            )

    @property
    def budgeted(self) -> bool:
        """Whether episodes have a budget."""
        return self.regulariser is Regulariser.EPISODE_BUDGET

    @property
    def is_base_policy(self) -> bool:
        """Whether an agent under this constraint is the base policy, whatever it learns.

        With a budget of 0 every attainable target is `s min(0, KL(a||b)) = 0`, and the only policy
        at a KL of 0 from b is b. A published target is 1e-6 nats even then, step after step, so
        that such an agent can leave the base policy and is trained like any other.
        """
        attainable = self.target_rule is TargetRule.ATTAINABLE
        return self.budgeted and self.budget_nats == 0 and attainable

    @property
    def episode_budget_nats(self) -> float:
        """The budget that binds: infinite where the regulariser is no budget."""
        return self.budget_nats if self.budgeted else math.inf


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Proximal policy optimisation; names as in stable-baselines3 where it has them."""

    actor_learning_rate: float = 1e-3
    """Adam's rate for the actor."""
    critic_learning_rate: float = 1e-3
    """Adam's rate for the critic."""
    adam_epsilon: float = 1e-5
    """Adam's epsilon."""
    clip_range: float = 0.1
    """Clip of the probability ratio."""
    n_epochs: int = 4
    """Passes over a rollout in one update."""
    batch_size: int = 1024
    """Steps in a minibatch; a smaller rollout is one minibatch."""
    micro_batch_size: int = 1024
    """Steps of one forward and backward pass; fewer need less memory and change nothing else."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation; 1 is Monte-Carlo return minus value."""
    gamma: float = 1.0
    """Discount."""
    entropy_coefficient: float = 1e-4
    """Weight of the entropy bonus, per nat."""
    value_coefficient: float = 0.5
    """Weight of the critic's squared error."""
    max_gradient_norm: float = 0.5
    """Bound on the norm of the gradient in one optimiser step."""
    clip_actor_only: bool = False
    """Bound the norm of the actor's gradient alone and leave the critic's as it is."""

    def __post_init__(self) -> None:
        for name in ("actor_learning_rate", "critic_learning_rate"):
            positive(name, getattr(self, name))
            at_most(name, getattr(self, name), 1.0)
        positive("adam_epsilon", self.adam_epsilon)
        for name in ("clip_range", "max_gradient_norm"):
            positive(name, getattr(self, name))
        for name in ("gae_lambda", "gamma"):
            _within(name, getattr(self, name), 0.0, 1.0)
        for name in ("entropy_coefficient", "value_coefficient"):
            at_least(name, getattr(self, name), 0.0)
        at_least("n_epochs", self.n_epochs, 1)
        at_least("batch_size", self.batch_size, 2)
        at_least("micro_batch_size", self.micro_batch_size, 1)


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Everything that one trained agent depends on."""

    world: Annotated[WorldConfig, tyro.conf.arg(name="")]
    """The models, the dialogue and the reward."""
    constraint: ConstraintConfig
    """What keeps the agent near the base policy."""
    ppo: PPOConfig
    """How it learns."""
    stages: tuple[Stage, ...]
    """What it is trained on, in order."""
    actor: ActorForm = ActorForm.LINEAR
    """How the actor gives every token a number: `low-rank` where a vocabulary is large."""
    actor_rank: int = 64
    """Rank of a `low-rank` actor."""
    actor_tokens: int | None = None
    """How many tokens the actor gives numbers to, the likeliest on base rollouts; the others keep
    the base model's proportions. None for all; a few thousand where a vocabulary is large."""
    n_episodes: int = 64
    """Episodes of a rollout, played in lockstep."""
    standardise_features: Annotated[
        bool,
        tyro.conf.arg(
            help_behavior_hint="(default: standardise)",
            help="Give the actor the base model's activations as they are. Left out, they are "
            "shifted and scaled to mean 0 and variance 1 on base rollouts.",
        ),
    ] = True
    """Shift and scale the base model's activations to mean 0 and variance 1 on base rollouts."""
    checkpoint_every: int = 1
    """Updates between two checkpoints: what a killed run can lose."""
    seed: tyro.conf.Suppress[int] = 0
    """Seed of the agent: its rollouts, its critic and its minibatches."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise InvalidArgumentError("stages must name at least 1 stage, got 0")
        at_least("n_episodes", self.n_episodes, 1)
        at_least("actor_rank", self.actor_rank, 1)
        if self.actor_tokens is not None:
            at_least("actor_tokens", self.actor_tokens, 1)
            if self.actor is ActorForm.THROUGH_HEAD:
                raise InvalidArgumentError(
                    "actor through-head moves every token; leave out --actor-tokens, or choose "
                    "actor low-rank"
                )
        at_least("checkpoint_every", self.checkpoint_every, 1)
        at_least("seed", self.seed, 0)

    def n_acted(self, n_tokens: int) -> int:
        """How many tokens of a vocabulary the actor gives numbers to."""
        return n_tokens if self.actor_tokens is None else min(self.actor_tokens, n_tokens)

    @property
    def total_agent_steps(self) -> int:
        """Steps of all stages, apart from how far the last update of each overshoots."""
        return sum(stage.agent_steps for stage in self.stages)

    def schedule_at(self, agent_steps: int) -> ScheduleEntry:
        """What the rollout after `agent_steps` of training is played with."""
        ends = list(accumulate(stage.agent_steps for stage in self.stages))
        index = min(bisect_right(ends, agent_steps), len(ends) - 1)
        stage = self.stages[index]
        budget_nats = stage.budget_nats(
            self.constraint.episode_budget_nats,
            steps_done=agent_steps - (ends[index] - stage.agent_steps),
        )
        return ScheduleEntry(number=index + 1, stage=stage, budget_nats=budget_nats)


def preset_config(preset: Preset, fidelity: Fidelity = Fidelity.OURS) -> AgentConfig:
    """The configuration of a preset, with the authors' constraint or ours."""
    match preset:
        case Preset.TINY:
            config = AgentConfig(
                world=WorldConfig(),
                constraint=ConstraintConfig(),
                ppo=PPOConfig(),
                stages=(Stage(agent_steps=160_000, ramp_fraction=0.4),),
            )
        case Preset.PAPER:
            config = AgentConfig(
                world=WorldConfig(
                    base_model="mistralai/Mixtral-8x7B-v0.1",
                    reward_model="distilbert/distilbert-base-uncased-finetuned-sst-2-english",
                    device="cuda",
                    agent_device="cuda",
                    dtype=Precision.BFLOAT16,
                    prompt=PUBLISHED_PROMPT,
                    separator="\n\n",
                    student_temperature=0.05,
                ),
                constraint=ConstraintConfig(),
                ppo=PPOConfig(
                    actor_learning_rate=2e-5,
                    critic_learning_rate=1e-4,
                    n_epochs=8,
                    batch_size=8192,
                    micro_batch_size=512,
                    gae_lambda=1.0,
                    max_gradient_norm=0.1,
                    clip_actor_only=True,
                ),
                stages=(
                    Stage(agent_steps=3_000_000, ramp_fraction=1.0),
                    Stage(agent_steps=3_000_000),
                    Stage(agent_steps=3_000_000, n_tokens=512),
                ),
                standardise_features=False,
                checkpoint_every=10,
            )
        case Preset.SMOLLM2:
            config = _packaged_config(preset, n_episodes=64)
        case Preset.GEMMA3_270M:
            config = _packaged_config(preset, n_episodes=32)
    return with_fidelity(config, fidelity)


def _packaged_config(preset: Preset, *, n_episodes: int) -> AgentConfig:
    """The published prompt and student on a model of the package index, as much as cores can do."""
    return AgentConfig(
        world=WorldConfig(
            base_model=preset.value,
            reward_model=VADER,
            prompt=PUBLISHED_PROMPT,
            separator="\n\n",
            student_temperature=0.05,
            max_reply_tokens=64,
        ),
        constraint=ConstraintConfig(),
        ppo=PPOConfig(micro_batch_size=128),
        stages=(Stage(agent_steps=120_000, ramp_fraction=0.4),),
        actor=ActorForm.LOW_RANK,
        actor_tokens=4096,
        n_episodes=n_episodes,
    )


def quick_config(config: AgentConfig, preset: Preset) -> AgentConfig:
    """What `--quick` trains: less; of a packaged model a few updates of a few episodes."""
    if preset is Preset.PAPER:
        return config
    (stage,) = config.stages
    if not preset.is_packaged:
        return replace(config, stages=(replace(stage, agent_steps=110_000),))
    return replace(config, n_episodes=16, stages=(replace(stage, agent_steps=6_000),))


def with_fidelity(config: AgentConfig, fidelity: Fidelity) -> AgentConfig:
    """`config` with the authors' constraint or ours; theirs comes with their actor."""
    published = fidelity is Fidelity.PUBLISHED
    constraint = replace(
        config.constraint,
        accounting=Accounting.REALIZED if published else Accounting.EXACT,
        target_rule=TargetRule.PUBLISHED if published else TargetRule.ATTAINABLE,
        auxiliary_coefficient=1.0 if published else 0.0,
    )
    if published:
        config = replace(config, actor=ActorForm.LINEAR, actor_tokens=None)
    return replace(config, constraint=constraint)


def differences(first: Any, second: Any, prefix: str = "") -> str:
    """Where two values of one kind differ, such as `ppo.clip_range 0.1 and 0.2`; or nothing.

    Args:
        first: a configuration, or a mapping, or a tuple of them.
        second: another.
        prefix: what the names begin with.
    """
    a, b = _named(first), _named(second)
    if a is None or b is None:
        return "" if first == second else f"{prefix} {_shown(first)} and {_shown(second)}"
    dot = f"{prefix}." if prefix else ""
    names = dict.fromkeys([*a, *b])
    found = (differences(a.get(name), b.get(name), f"{dot}{name}") for name in names)
    return ", ".join(difference for difference in found if difference)


def _shown(value: Any) -> Any:
    """A value as JSON has it; a text that a line would not show as it is, in quotes."""
    plain = to_jsonable(value)
    if isinstance(plain, str) and (plain.strip() != plain or not plain or not plain.isprintable()):
        return repr(plain)
    return plain


def _named(value: Any) -> dict[str, Any] | None:
    """The parts of a value that has any, by name."""
    if isinstance(value, dict):
        return value
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return {str(index): part for index, part in enumerate(value)}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise InvalidArgumentError(f"{name} must be finite, got {value}")


def positive(name: str, value: float) -> None:
    """Raise unless a number is above 0 and finite.

    Raises:
        InvalidArgumentError: with its name and value.
    """
    if not (value > 0 and math.isfinite(value)):
        raise InvalidArgumentError(f"{name} must be > 0 and finite, got {value}")


def at_least(name: str, value: float, least: float) -> None:
    """Raise unless a number is at least `least` and finite.

    Raises:
        InvalidArgumentError: with its name and value.
    """
    if not (value >= least and math.isfinite(value)):
        raise InvalidArgumentError(f"{name} must be >= {least:g} and finite, got {value}")


def at_most(name: str, value: float, most: float) -> None:
    """Raise unless a number is at most `most`.

    Raises:
        InvalidArgumentError: with its name and value.
    """
    if not value <= most:
        raise InvalidArgumentError(f"{name} must be <= {most:g}, got {value}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidArgumentError(f"{name} must lie in [{low:g}, {high:g}], got {value}")
