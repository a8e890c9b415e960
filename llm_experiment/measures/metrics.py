"""The numbers of an evaluation: what each is, how it is estimated, and where it can lie.

An evaluation of one policy at one episode length gives a row of numbers, an `EvaluationRow`: what
was earned and spent, what the agent did with its turns, and, where the demonstrator is known, how
the episodes leave it. Every field carries its `Metric`, from which tables take headers, formats,
ranges and definitions; where these speak of the task's behaviour they are templates, which
`llm_experiment.dialogue.behaviour.Behaviour.say` fills in (names of fields speak of silence, the
behaviour of the first task). A run stores rows as flat JSON objects (`row_to_json`); this module
reads them back without a learning library. What an older version did not measure reads as nan, or
as an empty list; what a later one measured besides is left out.
"""

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Final, TypeAlias, TypeVar

from llm_experiment.chat.turn_records import SILENT_ABOVE
from mightnt.results import from_jsonable, to_jsonable
from theory.errors import InvalidArgumentError

ANYWHERE: Final = (-math.inf, math.inf)
"""The range of a number of which nothing is known beforehand."""
SHARE: Final = (0.0, 1.0)
AMOUNT: Final = (0.0, math.inf)

SMOOTHINGS: Final = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
"""The d of `KL(pi || (1-d) tau + d uniform)`."""
N_EMPTY_TURNS: Final = 20
"""Empty turns of an episode whose prices are reported, the first ones."""
N_GRAMS: Final = (1, 2, 3)
"""The n of the repetition of n-grams."""
CURVE_SHARES: Final = (0.25, 0.5, 0.75, 1.0)
"""Where, as shares of the tokens played, the support's survival is reported."""
QUARTILES: Final = (25.0, 50.0, 75.0)
"""In per cent."""
BUDGET_TOLERANCE: Final = 1e-12
"""Relative excess over the budget that is rounding (see `theory.budget`)."""
BASE_POLICY: Final = "base policy"
"""What the base policy is called where an agent would be named by its variant."""

TurnCost: TypeAlias = tuple[float, float, float, int]
"""Quartiles over the episodes that have such a turn, and how many these are."""

RowT = TypeVar("RowT", bound="LengthRow")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a number is.

    Attributes:
        about: what it is and how it is estimated, in sentences.
        header: of its column in a table.
        format: how it is written, as for `format`.
        within: the least and the largest that it can be by its definition.
        share_of_episodes: whether it counts episodes of a kind among all. Episodes of one policy
            are independent, so that such a share has an exact interval over episodes.
    """

    about: str
    header: str
    format: str
    within: tuple[float, float] = ANYWHERE
    share_of_episodes: bool = False


def _number(about: str, header: str, format_: str, **more: Any) -> Any:
    """A field that holds one number."""
    metric = Metric(about=about, header=header, format=format_, **more)
    return field(default=math.nan, metadata={"metric": metric})


def _numbers(about: str, header: str, format_: str, **more: Any) -> Any:
    """A field that holds several."""
    metric = Metric(about=about, header=header, format=format_, **more)
    return field(default=(), metadata={"metric": metric})


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What was earned and what was spent of the budget; see each field's `Metric`."""

    n_episodes: int = field(
        metadata={
            "metric": Metric(
                about="Episodes played with this agent, its training over.",
                header="episodes",
                format=".0f",
                within=AMOUNT,
            )
        }
    )
    return_mean: float = _number(
        "Reward of an episode, summed over its finished replies; mean over episodes.",
        "return",
        ".2f",
    )
    reply_reward_mean: float = _number(
        "Reward of a finished reply, pooled over episodes.", "reward of a reply", ".3f"
    )
    spent_nats_mean: float = _number(
        "Sum over the agent's steps of the KL of its step policy to the base policy, computed "
        "from the distributions; mean over episodes. Estimates the KL of the whole episode.",
        "total KL",
        ".3f",
        within=AMOUNT,
    )
    log_ratio_nats_mean: float = _number(
        "Sum of log(pi/b) of the tokens drawn; mean over episodes. The same expectation as "
        "`spent_nats_mean`, with more variance: a check on it.",
        "realised log-ratio",
        ".3f",
    )
    spent_nats_max: float = _number(
        "The largest sum of KLs of any episode.", "largest total KL", ".3f", within=AMOUNT
    )
    over_budget_share: float = _number(
        f"Share of episodes whose KLs sum to more than the budget times 1 + {BUDGET_TOLERANCE:g}. "
        "0 under exact accounting, whatever the agent does; nan without a budget.",
        "episodes over budget",
        ".1%",
        within=SHARE,
    )
    leak_nats_mean: float = _number(
        "KL spent beyond the budget (at least 0 an episode); mean over episodes.",
        "leak",
        ".2g",
        within=AMOUNT,
    )
    leak_nats_max: float = _number(
        "The same, of the worst episode.", "largest leak", ".2g", within=AMOUNT
    )


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What the agent did with its turns and said in them; see each field's `Metric`."""

    turns_mean: float = _number(
        "Turns that the agent opened after the prompt and finished; mean over episodes.",
        "turns",
        ".1f",
        within=AMOUNT,
    )
    empty_share: float = _number(
        "Share of those turns that are {turn} ({rule}), pooled over episodes. {pooling}",
        "pooled",
        ".1%",
        within=SHARE,
    )
    empty_share_per_episode: float = _number(
        "The same share within an episode; mean over episodes with a turn.",
        "{turn} turns, per episode",
        ".1%",
        within=SHARE,
    )
    empty_any_share: float = _number(
        "Share of episodes with at least one {turn} turn.",
        "any {turn} turn",
        ".1%",
        within=SHARE,
        share_of_episodes=True,
    )
    silent_share: float = _number(
        f"Share of episodes in which more than {SILENT_ABOVE:.0%} of the agent's finished turns "
        "are {turn}.",
        "{episode} episodes",
        ".1%",
        within=SHARE,
        share_of_episodes=True,
    )
    help_share: float = _number(
        "Share of the tokens in the agent's turns that are the demonstrator's: those that it was "
        "asked for, and the share of the others' law that it filled; pooled over episodes.",
        "help a step",
        ".2%",
        within=SHARE,
    )
    stopped_share: float = _number(
        "Share of episodes that stopped because nobody could be asked.",
        "stopped",
        ".1%",
        within=SHARE,
        share_of_episodes=True,
    )
    empty_turn_kl_nats: tuple[TurnCost, ...] = _numbers(
        "For i = 1, 2, ...: quartiles (25, 50, 75%) of the sum of KLs over the tokens of an "
        "episode's i-th {turn} turn, and the number of episodes that have one.",
        "KL",
        ".3f",
        within=AMOUNT,
    )
    empty_turn_surprise_nats: tuple[TurnCost, ...] = _numbers(
        "The same for -log b summed over the turn's tokens: how improbable the base policy "
        "thought the turn, whatever the agent paid.",
        "surprise",
        ".3f",
        within=AMOUNT,
    )
    distinct_n_grams: tuple[float, ...] = _numbers(
        f"For n = {', '.join(map(str, N_GRAMS))}: distinct n-grams over all n-grams within the "
        "agent's turns of an episode; mean over episodes with one.",
        "distinct n-grams",
        ".3f",
        within=SHARE,
    )


@dataclass(frozen=True, kw_only=True)
class DepartureNumbers:
    """How the episodes leave a known demonstrator tau; see each field's `Metric`."""

    possible_shares: tuple[float, ...] = _numbers(
        "Share of episodes whose tokens so far, whoever wrote them, all have tau > 0, after "
        f"{', '.join(f'{share:.0%}' for share in CURVE_SHARES)} of the tokens played.",
        "possible",
        ".1%",
        within=SHARE,
        share_of_episodes=True,
    )
    agent_left_share: float = _number(
        "Share of episodes whose first impossible token the agent wrote.",
        "agent left first",
        ".1%",
        within=SHARE,
        share_of_episodes=True,
    )
    student_left_share: float = _number(
        "The same for its partner (the base policy makes mistakes, too).",
        "partner left first",
        ".1%",
        within=SHARE,
        share_of_episodes=True,
    )
    exit_probability: float = _number(
        "Outside mass summed over the agent's steps up to the first impossible token; mean over "
        "episodes. The expectation of `agent_left_share`, with less variance.",
        "exit probability",
        ".1%",
        within=SHARE,
    )
    outside_mass: float = _number(
        "Outside mass of a step, mean over the agent's steps up to that token.",
        "outside mass a step",
        ".2g",
        within=SHARE,
    )
    base_outside_mass: float = _number(
        "The base policy's outside mass at the same steps.",
        "base's, same steps",
        ".2g",
        within=SHARE,
    )
    smoothed_kl_nats: tuple[float, ...] = _numbers(
        "KL(pi || (1-d) tau + d uniform) summed over the agent's steps up to the first "
        "impossible token; mean over episodes, for d = "
        f"{', '.join(f'{d:g}' for d in SMOOTHINGS)}.",
        "KL",
        ".3f",
        within=AMOUNT,
    )
    smoothed_kl_nats_per_step: tuple[float, ...] = _numbers(
        "The same, mean over those steps.", "KL a step", ".3f", within=AMOUNT
    )
    base_smoothed_kl_nats_per_step: tuple[float, ...] = _numbers(
        "The same with the base policy in place of pi.", "base's KL a step", ".3f", within=AMOUNT
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """The numbers of one policy at one episode length.

    Attributes:
        spending: what was earned and spent.
        behaviour: what the agent did with its turns.
        departure: how the episodes leave the demonstrator; None if that is not known.
    """

    spending: Spending
    behaviour: Behaviour
    departure: DepartureNumbers | None = None

    def value(self, name: str, *place: int) -> float:
        """A number by the name of its metric; nan if it was not measured.

        Args:
            name: in `METRICS`.
            place: where it stands, for metrics of several numbers.
        """
        part = next((p for p in self._parts if name in (f.name for f in fields(p))), None)
        found: Any = math.nan if part is None else getattr(part, name)
        try:
            for index in place:
                found = found[index]
        except (IndexError, TypeError):  # fewer of them, or none
            return math.nan
        return float(found)

    @property
    def _parts(self) -> tuple[Any, ...]:
        own = (self.spending, self.behaviour)
        return own if self.departure is None else (*own, self.departure)

    def to_json(self) -> dict[str, Any]:
        """Its numbers as one flat object in JSON's types."""
        flat: dict[str, Any] = {}
        for part in self._parts:
            flat |= to_jsonable(part)
        return flat


def _metrics() -> dict[str, Metric]:
    found: tuple[Field[Any], ...] = (
        *fields(Spending),
        *fields(Behaviour),
        *fields(DepartureNumbers),
    )
    return {each.name: each.metadata["metric"] for each in found}


METRICS: Final[dict[str, Metric]] = _metrics()
"""What each number of an `EvaluationRow` is."""


@dataclass(frozen=True, kw_only=True)
class LengthRow:
    """What is stored of a policy's evaluation at one length; the base policy's has no more.

    Attributes:
        n_tokens: length of the episodes, the prompt included.
        numbers: of the evaluation.
    """

    n_tokens: int
    numbers: EvaluationRow


@dataclass(frozen=True, kw_only=True)
class AgentRow(LengthRow):
    """What is stored of a trained agent's evaluation at one length.

    Attributes:
        agent: its name, also its folder's.
        variant: what it is apart from budget and seed.
        budget_nats: of an episode; inf for none.
        seed: of its training.
        trained_at_n_tokens: length of the episodes that it was last trained on.
    """

    agent: str
    variant: str
    budget_nats: float
    seed: int
    trained_at_n_tokens: int

    @property
    def group(self) -> tuple[str, float, int, int]:
        """What it has in common with the agents that differ from it by their seed alone."""
        return self.variant, self.budget_nats, self.n_tokens, self.trained_at_n_tokens

    @property
    def as_trained(self) -> bool:
        """Whether it was evaluated at the length that it was trained on."""
        return self.n_tokens == self.trained_at_n_tokens


@dataclass(frozen=True, kw_only=True)
class BaseEvaluation:
    """The base policy, for comparison with every agent of a run.

    Attributes:
        rows: one a length.
        n_contexts: in how many dialogues the first silence was priced; those that were long
            enough. The next two are None if there was none.
        first_silence_nats: quartiles over them of the price of the first silence.
        first_silence_probability: p of the closed form (`llm_experiment.measures.closed_form`).
        silence_nats: medians of the price of the first, second, ... empty turn in a row, as far as
            half of those dialogues have so many; None in runs that did not price them.
        silence_return: what an episode earns, in the mean over contexts, whose every turn after the
            prompt's is empty; at the shortest of the lengths. None in runs without it.
        silence_gain: by how much that is more than the base policy earns there: the ends of the
            95% interval; None for a single episode too.
    """

    rows: tuple[LengthRow, ...]
    n_contexts: int
    first_silence_nats: tuple[float, ...] | None = None
    first_silence_probability: float | None = None
    silence_nats: tuple[float, ...] | None = None
    silence_return: float | None = None
    silence_gain: tuple[float, float] | None = None


IDENTITY: Final = ("agent", "variant", "budget_nats", "seed", "n_tokens", "trained_at_n_tokens")
"""What stands before the numbers in the JSON of a row, in this order."""


def row_to_json(row: LengthRow) -> dict[str, Any]:
    """A row as a flat object in JSON's types: whose it is, then its numbers."""
    own = {name: getattr(row, name) for name in IDENTITY if hasattr(row, name)}
    return {**to_jsonable(own), **row.numbers.to_json()}


def row_from_json(kind: type[RowT], value: Any) -> RowT:
    """The row of type `kind`, a `LengthRow` or `AgentRow`, that `row_to_json` made `value` from.

    Raises:
        InvalidArgumentError: `value` is no such row.
    """
    return from_jsonable(kind, _nested(kind, value))


def base_to_json(base: BaseEvaluation) -> dict[str, Any]:
    """A `BaseEvaluation` in JSON's types, its rows flat."""
    rest = {f.name: getattr(base, f.name) for f in fields(base) if f.name != "rows"}
    return {"rows": [row_to_json(row) for row in base.rows], **to_jsonable(rest)}


def base_from_json(value: Any) -> BaseEvaluation:
    """The `BaseEvaluation` that `base_to_json` made `value` from.

    Raises:
        InvalidArgumentError: `value` is no such evaluation.
    """
    known = _known(BaseEvaluation, value)
    rows = known.get("rows")
    if not isinstance(rows, list):
        raise InvalidArgumentError(f"cannot read a BaseEvaluation: rows must be a list, got {rows}")
    return from_jsonable(
        BaseEvaluation, known | {"rows": [_nested(LengthRow, row) for row in rows]}
    )


def _nested(kind: type, value: Any) -> dict[str, Any]:
    """A flat row as the object of a dataclass that holds its numbers in parts."""
    parts = {
        "spending": _known(Spending, value),
        "behaviour": _known(Behaviour, value),
        "departure": _known(DepartureNumbers, value) or None,
    }
    return _known(kind, value) | {"numbers": parts}


def _known(kind: Any, value: Any) -> dict[str, Any]:
    """What a JSON object holds of the fields of a dataclass.

    Raises:
        InvalidArgumentError: it is no object.
    """
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"cannot read a {kind.__name__} from {value!r:.40}")
    return {each.name: value[each.name] for each in fields(kind) if each.name in value}
