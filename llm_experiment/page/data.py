"""What a report shows of a run, as one JSON value: figures, curves, and a number for every token.

The page in `assets/` is its only reader. Its keys:

    label, title, finished, facts, caveats, about, settings
                   the summary: texts to show, as (name, text) pairs or sentences
    tables         `llm_experiment.measures.tables`, their cells as texts
    closed_form    `budgets_nats` and `shares` of the curve beside the measured silence, or null
    behaviour      the task's: `name`, `turn`, `episode` and `phrases`, as `dialogue.behaviour` says
    speakers       names of the agent and its partner
    token_texts    every text of a token that occurs
    planes         what each number of a token is (`Plane`), in the order in which they are packed
    subjects       the base policy, then every agent of the suite, each with
        name, variant, budget_nats (null for none), seed, trained_at_n_tokens
        updates        a list for each of `CURVES`, one entry an update
        evaluations    one a length: `n_tokens` t, `prompt_length`, `n_episodes`, `silent_share`,
                       `episodes` (`episode_numbers` of the first n), `budget_quartiles` (packed
                       float32, shape (3, t), over all episodes; null without a budget), `planes`
                       (the names of those that are stored) and `packed`

`packed` is, in base 64, a zlib stream of little-endian arrays of shape (n, t): a float32 for each
of its planes, then uint32 indices into `token_texts`, then uint8 marks: 1 plus the `Speaker` who
wrote the token, plus `MARK_EMPTY` within an empty turn of the agent. So a number on the page is the
one in the run's arrays, rounded to float32. On the page everything packed stands in blocks of its
own, whose numbers take its place (`llm_experiment.page.page`).
"""

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.chat.token_texts import spelt_texts
from llm_experiment.chat.turn_records import (
    SILENT_ABOVE,
    Speaker,
    TurnCounts,
    Turns,
    count_turns,
)
from llm_experiment.config import KNOWN, WorldConfig
from llm_experiment.dialogue.behaviour import Behaviour
from llm_experiment.dialogue.task import load_task, speakers_of
from llm_experiment.measures.closed_form import closed_form_of, episodes_interval
from llm_experiment.measures.metrics import BASE_POLICY, QUARTILES, AgentRow
from llm_experiment.measures.tables import make_tables, shown
from llm_experiment.records.folder import BASE
from llm_experiment.records.reading import Evaluated, RunFolder, main_variant
from llm_experiment.suite import Job
from mightnt.results import to_jsonable
from mightnt.statistics import CONFIDENCE
from mightnt.tables import NOTHING, Table
from theory.errors import InvalidArgumentError, ResultsError

Arrays = Mapping[str, NDArray[Any]]

MARK_EMPTY: Final = 4
"""Added to the mark of every token of an empty turn."""
CURVES: Final = (
    "agent_steps",
    "budget_nats",
    "return_mean",
    "spent_nats_mean",
    "empty_share",
    "entropy_nats",
)
"""The numbers of an update that the page draws; see `llm_experiment.agent.ppo`."""
_CURVE_DIGITS: Final = 6
_CLOSED_FORM_POINTS: Final = 81


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One number of every token.

    Attributes:
        name: of the array of shape (episodes, t) in the episodes' file.
        title: what to call it.
        about: what it is, in a sentence.
        agent_only: whether it exists only where the agent wrote the token.
    """

    name: str
    title: str
    about: str
    agent_only: bool = True


PLANES: Final = (
    Plane(
        name="kl_nats",
        title="KL(π‖b)",
        about="KL of the agent's distribution to the base policy's at this step: what was charged.",
    ),
    Plane(
        name="log_ratio_nats",
        title="log π/b",
        about="Realised log-ratio of the token drawn; its expectation is the KL.",
    ),
    Plane(name="log_probs", title="log π", about="Log-probability of the token under the agent."),
    Plane(
        name="budget_nats",
        title="budget left",
        about="What was left of the episode's budget before this token.",
        agent_only=False,
    ),
    Plane(name="target_nats", title="KL aimed at", about="The KL that the step was projected to."),
    Plane(
        name="rewards",
        title="reward",
        about="What the reply to this turn earned, at the token that handed the turn over.",
    ),
    Plane(
        name="demonstrator_log_probs",
        title="log τ",
        about="Log-probability under the demonstrator; -∞ where it would never write this.",
        agent_only=False,
    ),
    Plane(
        name="outside_mass",
        title="π outside τ",
        about="Probability that the agent gave to tokens that the demonstrator never writes here; "
        "0 after the first impossible token.",
    ),
    Plane(
        name="base_outside_mass",
        title="b outside τ",
        about="The base policy's probability of such tokens at the same step.",
    ),
)
"""All that may be stored; those about the demonstrator only where it is known."""
_NEEDED: Final = ("tokens", "writers", "spent_nats", "rewards", "budget_nats")
_OPTIONAL: Final = (*(plane.name for plane in PLANES), "first_impossible")


# --------------------------------------------------------------------- the whole


def report_data(run: RunFolder, pieces: Sequence[bytes], *, n_episodes: int) -> dict[str, Any]:
    """What the page shows; see the module's docstring.

    Args:
        run: what is there.
        pieces: the bytes of every token of the base policy's vocabulary
            (`llm_experiment.chat.token_texts.token_bytes`).
        n_episodes: how many transcripts of each evaluation to show, the first ones; at least 1.

    Raises:
        ResultsError: nothing is there to show yet, or the episodes cannot be read, or have other
            tokens.
        InvalidArgumentError: no episode.
    """
    if n_episodes < 1:
        raise InvalidArgumentError(f"episodes must be >= 1, got {n_episodes}")
    updates = {job.name: run.updates(job.name) for job in run.jobs}
    if run.base is None and not run.agents and not any(updates.values()):
        raise ResultsError(
            f"nothing to report in {run.folder} yet: no update is complete; go on with the command "
            f"that began it: `python -m llm_experiment.run --out {run.folder}` and its options"
        )
    tables = make_tables(run.rows, run.base, run.behaviour) if run.rows or run.finished else ()
    vocabulary = Vocabulary(pieces)
    subjects = list(_subjects(run, updates, vocabulary, n_episodes))
    present = {name for s in subjects for e in s["evaluations"] for name in e["planes"]}
    agent, partner = speakers_of(run.agent.world)
    return {
        "label": run.label,
        "title": f"{run.label} · mightnt",
        "finished": run.finished,
        "facts": list(_facts(run)),
        "caveats": list(_caveats(run, n_episodes)),
        "about": list(_about(run)),
        "settings": json.dumps(run.manifest["settings"], indent=2),
        "tables": [_table(table) for table in tables],
        "closed_form": _closed_form(run),
        "behaviour": asdict(run.behaviour),
        "speakers": {"agent": agent, "partner": partner},
        "token_texts": vocabulary.used_texts,
        "planes": [asdict(plane) for plane in PLANES if plane.name in present],
        "subjects": subjects,
    }


class Vocabulary:
    """Numbers the texts of tokens that occur, in order of appearance, so that only they are kept.

    Args:
        pieces: the bytes of every token.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._indices: dict[str, int] = {}

    def indices(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each token's text (`spelt_texts`) in transcripts, both (n, t).

        Raises:
            ResultsError: the vocabulary does not have it.
        """
        n_tokens = len(self._pieces)
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < n_tokens:
            raise ResultsError(
                f"the run has token {tokens.max()} and its tokenizer only {n_tokens}; put back the "
                "tokenizer that the run was made with"
            )
        numbers = [
            [self._indices.setdefault(text, len(self._indices)) for text in texts]
            for texts in (spelt_texts(self._pieces, row) for row in tokens.tolist())
        ]
        return np.array(numbers, dtype=np.int64).reshape(tokens.shape)

    @property
    def used_texts(self) -> list[str]:
        """The numbered texts."""
        return list(self._indices)


def _subjects(
    run: RunFolder,
    updates: Mapping[str, Sequence[dict[str, Any]]],
    vocabulary: Vocabulary,
    n_episodes: int,
) -> Iterator[dict[str, Any]]:
    """The base policy and all agents, with what there is of each."""
    if run.base is not None:
        yield {
            "name": BASE,
            "variant": BASE_POLICY,
            "budget_nats": 0.0,
            "seed": run.agent.seed,
            "trained_at_n_tokens": None,
            "updates": {},
            "evaluations": [_evaluation(base, 0.0, vocabulary, n_episodes) for base in run.bases],
        }
    for job in run.jobs:
        budget = job.config.constraint.episode_budget_nats
        yield {
            "name": job.name,
            "variant": job.variant,
            "budget_nats": budget if math.isfinite(budget) else None,
            "seed": job.config.seed,
            "trained_at_n_tokens": job.config.stages[-1].n_tokens,
            "updates": _curves(updates[job.name]),
            "evaluations": [
                _evaluation(evaluated, budget, vocabulary, n_episodes)
                for evaluated in run.agents.get(job.name, ())
            ],
        }


def _evaluation(
    evaluated: Evaluated, budget_nats: float, vocabulary: Vocabulary, n_episodes: int
) -> dict[str, Any]:
    """One length of one subject."""
    arrays = evaluated.episodes.arrays(*_NEEDED, optional=_OPTIONAL)
    turns, empty, prompt_length = evaluated.episodes.turns()
    counts = count_turns(
        turns, empty, prompt_length=prompt_length, n_episodes=len(arrays["tokens"])
    )
    planes = [plane.name for plane in PLANES if plane.name in arrays]
    first = {name: arrays[name][:n_episodes] for name in (*planes, "tokens", "writers")}
    quartiles = None
    if math.isfinite(budget_nats):
        quartiles = np.percentile(arrays["budget_nats"], QUARTILES, axis=0).astype("<f4")
    return {
        "n_tokens": evaluated.n_tokens,
        "prompt_length": prompt_length,
        "n_episodes": len(arrays["tokens"]),
        "silent_share": evaluated.numbers.behaviour.silent_share,
        "planes": planes,
        "episodes": episode_numbers(arrays, counts, n_episodes),
        "budget_quartiles": None if quartiles is None else pack(quartiles),
        "packed": pack(
            *(first[name].astype("<f4") for name in planes),
            vocabulary.indices(first["tokens"]).astype("<u4"),
            _marks(first["writers"], turns, empty),
        ),
    }


def episode_numbers(arrays: Arrays, counts: TurnCounts, n_episodes: int) -> dict[str, list[Any]]:
    """A list for each number of the first n episodes.

    They are `spent_nats`; `returns`; `n_turns`, the agent's turns that count; `n_empty` of them;
    `silent` (`llm_experiment.chat.turn_records`); and `first_impossible`, the index of the first
    token that the demonstrator never writes, null if there is none or it is not known.
    """
    n, n_tokens = arrays["tokens"].shape
    impossible = arrays.get("first_impossible", np.full(n, n_tokens))
    lists = {
        "spent_nats": arrays["spent_nats"].tolist(),
        "returns": arrays["rewards"].sum(axis=1).tolist(),
        "n_turns": counts.turns.tolist(),
        "n_empty": counts.empty.tolist(),
        "silent": counts.silent.tolist(),
        "first_impossible": [int(i) if i < n_tokens else None for i in impossible],
    }
    return {name: values[:n_episodes] for name, values in lists.items()}


def _marks(writers: NDArray[np.int64], turns: Turns, empty: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Who wrote each token, and whether within an empty turn of the agent."""
    marks = (writers - Speaker.NOBODY).astype(np.uint8)
    chosen = empty & (turns.episode < len(writers))
    ends = zip(turns.episode[chosen], turns.opened[chosen], turns.closed[chosen], strict=True)
    for episode, opened, closed in ends:
        marks[episode, opened + 1 : closed + 1] += MARK_EMPTY
    return marks


def pack(*arrays: NDArray[Any]) -> str:
    """Arrays one after the other, compressed, in base 64."""
    stream = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return base64.b64encode(zlib.compress(stream, 9)).decode("ascii")


def _curves(records: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    return {name: [_short(record.get(name)) for record in records] for name in CURVES}


def _short(number: Any) -> float | None:
    """To six digits, enough to draw; None for what cannot be drawn."""
    value = math.nan if number is None else float(number)
    return float(f"{value:.{_CURVE_DIGITS}g}") if math.isfinite(value) else None


def _table(table: Table) -> dict[str, Any]:
    table = shown(table)
    return {
        "name": table.name,
        "title": table.title,
        "notes": list(table.notes),
        "columns": [column.header for column in table.columns],
        "rows": [list(row) for row in table.texts],
    }


def _closed_form(run: RunFolder) -> dict[str, Any] | None:
    """The share of silent episodes that one purchase predicts, against the budget."""
    largest = max(
        (b for job in run.jobs if math.isfinite(b := job.config.constraint.episode_budget_nats)),
        default=0.0,
    )
    form = closed_form_of(run.base)
    if form is None or largest == 0:
        return None
    # Square roots: the share rises fastest where the budget is small.
    budgets = (largest * np.linspace(0.0, 1.0, _CLOSED_FORM_POINTS) ** 2).tolist()
    return {
        "probability": form.probability,
        "budgets_nats": budgets,
        "shares": [form.share(budget) for budget in budgets],
    }


# --------------------------------------------------------------------- in words


def _facts(run: RunFolder) -> Iterator[dict[str, str]]:
    """The main figures: a value, what it is, and what to compare it with."""
    main = _main_rows(run)
    if not main:
        return
    budget, n_tokens = main[0].budget_nats, main[0].n_tokens
    form = closed_form_of(run.base)
    base = next((each.row for each in run.bases if each.n_tokens == n_tokens), None)
    if base is not None:
        interval = episodes_interval(base, "silent_share")
        yield _fact(
            f"{base.numbers.behaviour.silent_share:.1%}",
            run.behaviour.say("of the base policy's own episodes are {episode}"),
            f"{base.numbers.spending.n_episodes} episodes of {n_tokens} tokens; "
            f"{CONFIDENCE:.0%} interval {interval.low:.1%} to {interval.high:.1%}",
        )
    shares = [row.numbers.behaviour.silent_share for row in main]
    runs = f"{_count(len(main), 'run')}: {', '.join(f'{share:.1%}' for share in shares)}"
    predicted = NOTHING if form is None else f"{form.share(budget):.1%}"
    yield _fact(
        f"{np.mean(shares):.1%}",
        run.behaviour.say(f"{{episode}} with a budget of {budget:g} nats"),
        f"{runs}; closed form: {predicted}",
    )
    if form is not None:
        low, median, high = form.quartiles_nats
        yield _fact(
            f"{median:.2f} nats",
            run.behaviour.say("is the price of the first {priced}"),
            f"median over {form.n_contexts} contexts, quartiles {low:.2f} and {high:.2f}",
        )
    most = max(row.numbers.spending.spent_nats_max for row in main)
    over = np.mean([row.numbers.spending.over_budget_share for row in main])
    yield _fact(
        f"{most:.3f} of {budget:g}",
        "nats at most were spent in an episode",
        f"{over:.1%} of episodes over budget",
    )
    if base is not None and base.numbers.departure is not None:
        possible = np.mean([row.numbers.value("possible_shares", -1) for row in main])
        yield _fact(
            f"{possible:.1%}",
            "of these episodes could have been the demonstrator's",
            f"base policy: {base.numbers.value('possible_shares', -1):.1%}",
        )


def _main_rows(run: RunFolder) -> list[AgentRow]:
    """Rows of the main variant at its largest evaluated budget and first length."""
    same = [
        row
        for row in run.rows
        if row.variant == main_variant(run.agent) and math.isfinite(row.budget_nats)
    ]
    if not same:
        return []
    largest = max(row.budget_nats for row in same)
    n_tokens = min(row.n_tokens for row in same)
    return [row for row in same if (row.budget_nats, row.n_tokens) == (largest, n_tokens)]


def _fact(value: str, meaning: str, note: str) -> dict[str, str]:
    return {"value": value, "meaning": meaning, "note": note}


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _caveats(run: RunFolder, n_episodes: int) -> Iterator[str]:
    if not run.finished:
        missing = (BASE_POLICY if name == BASE else name for name in run.missing)
        yield f"This run is unfinished: nothing is evaluated yet of {', '.join(missing)}."
    if run.manifest["settings"].get("quick"):
        yield (
            f"The quick form trains {_count(len(run.jobs), 'agent')}: it shows the path from end "
            "to end and claims only what so few runs can."
        )
    yield run.behaviour.say(
        f"An episode is {{episode}} if more than {SILENT_ABOVE:.0%} of the agent's finished turns "
        f"in it are {{turn}}: {_shown_by(run.behaviour)}.{_of_training(run.agent.world)}"
    )
    if run.suite.n_seeds > 1:
        yield (
            "Intervals are Student's over runs, which are few. Episodes of one agent are not "
            "independent evidence of what training does; agents with a single seed have no "
            "interval."
        )
    yield run.behaviour.say(
        "The closed form predicts the {name} that one purchase at one context would buy; it is "
        "neither a bound nor a fit."
    )
    yield (
        "The base policy makes mistakes too: what an agent does is to be read beside what the "
        "base policy does."
    )
    stages = {stage.n_tokens for job in run.jobs for stage in job.config.stages}
    if other := sorted(set(run.suite.evaluation_lengths) - stages):
        lengths = " and ".join(map(str, other))
        yield f"No agent was trained on episodes of {lengths} tokens: those are a change of length."
    first = min(n_episodes, run.suite.n_evaluation_episodes)
    yield (
        f"Transcripts are the first {first} of {run.suite.n_evaluation_episodes} episodes of each "
        f"agent's evaluation{_of_base(run)}, unselected. Two episodes side by side share their "
        "prompt and nothing else."
    )
    yield "Transcripts are written by models; nothing in them was said by a person."


def _shown_by(behaviour: Behaviour) -> str:
    """Which turns show a behaviour, in words."""
    if behaviour.is_silence:
        return "no words between its name and the handing over of the turn"
    return behaviour.rule


def _of_training(world: WorldConfig) -> str:
    """That the agent's role never shows the behaviour in the dialogues of the base model."""
    if world.base_model not in KNOWN:
        return ""
    task, (agent, _) = load_task(world.task), speakers_of(world)
    if not task.never(agent):
        return ""
    if task.behaviour.is_silence:
        return f" The {agent} of the training dialogues never leaves a turn empty."
    return f" The {agent} of the training dialogues never says that."


def _of_base(run: RunFolder) -> str:
    """How many episodes of the base policy there are, if it has more or fewer than an agent."""
    counts = sorted({each.numbers.spending.n_episodes for each in run.bases})
    if counts in ([], [run.suite.n_evaluation_episodes]):
        return ""
    return f", of {' or '.join(map(str, counts))} of the base policy's"


def _about(run: RunFolder) -> Iterator[tuple[str, str]]:
    """What was run, as (name, text)."""
    yield "Agents", "; ".join(_variants(run.jobs))
    yield "Training", "; ".join(_training(run.jobs))
    lengths = " and ".join(map(str, run.suite.evaluation_lengths))
    n = run.suite.n_evaluation_episodes
    yield "Evaluation", f"{_count(n, 'episode')} of {lengths} tokens each{_of_base(run)}"
    yield from _world(run.agent.world)
    starts = run.manifest.get("starts", [])
    if starts:
        last = starts[-1]
        times = "once" if len(starts) == 1 else f"{len(starts)} times, last"
        commit = str(last.get("commit"))
        yield "Started", f"{times} at {last.get('time')}, commit {commit[:12]}{commit[40:]}"
        versions = last.get("versions", {})
        yield "Machine", f"{last.get('machine')}, Python {last.get('python')}"
        yield "Versions", ", ".join(f"{name} {number}" for name, number in versions.items())
    if "seconds" in run.manifest:
        yield "Time", f"{run.manifest['seconds']} s for the last start"
    for name, digest in run.manifest.get("models", {}).items():
        yield "Weights", f"{name}, SHA-256 {str(digest)[:16]}…"


def _variants(jobs: Sequence[Job]) -> Iterator[str]:
    for variant in dict.fromkeys(job.variant for job in jobs):
        same = [job.config for job in jobs if job.variant == variant]
        budgets = dict.fromkeys(config.constraint.episode_budget_nats for config in same)
        finite = [f"{budget:g}" for budget in budgets if math.isfinite(budget)]
        at = f" of {', '.join(finite)} nats" if finite else ""
        seeds = len({config.seed for config in same})
        yield f"{variant}{at} ({_count(seeds, 'seed')})"


def _training(jobs: Sequence[Job]) -> Iterator[str]:
    for stages in dict.fromkeys(job.config.stages for job in jobs):
        for stage in stages:
            ramp = ""
            if stage.ramp_fraction:
                ramp = f", the budget rising over the first {stage.ramp_fraction:.0%}"
            yield (
                f"{stage.agent_steps:,} tokens of the agent in episodes of {stage.n_tokens}{ramp}"
            )


def _world(world: WorldConfig) -> Iterator[tuple[str, str]]:
    yield "Base policy", f"{world.base_model} (task {world.task}), {to_jsonable(world.dtype)}"
    yield "Reward model", world.reward_model
    yield "Partner", f"the base policy at temperature {world.student_temperature:g}"
