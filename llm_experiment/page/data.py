"""What a report shows of a run, as one JSON value: figures, curves, and a number for every token.

The page in `assets/` is its only reader. Its keys:

    label, title, finished, facts, caveats, about, settings
                   the summary: texts to show, as (name, text) pairs or sentences
    tables         `llm_experiment.evaluation_tables.Table`, its cells as texts
    closed_form    `budgets_nats` and `shares` of the curve beside the measured silence, or null
    speakers       names of the agent and its partner
    token_texts    the text of every token that occurs
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
one in the run's arrays, rounded to float32.
"""

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from llm_experiment.chat.turns import Speaker, Turns
from llm_experiment.config import AgentConfig, WorldConfig
from llm_experiment.evaluation_tables import BASE_VARIANT, Table, make_tables
from llm_experiment.measures.evaluation import SILENT_ABOVE, agent_turns
from llm_experiment.records.folder import (
    AGENTS,
    BASE,
    RESULT_FILE,
    UPDATES_FILE,
    episodes_file,
    read_manifest,
)
from llm_experiment.suite import Job, SuiteConfig, suite_jobs
from mightnt.results import from_jsonable, to_jsonable
from theory.bounds import largest_share
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
_QUARTILES: Final = (25.0, 50.0, 75.0)


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


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What a run folder holds so far.

    Attributes:
        folder: of the run.
        manifest: as `run_folder.read_manifest` gives it.
        agent: what all agents share.
        suite: what sets them apart, and how they are evaluated.
        jobs: all agents of the suite.
        base: `evaluate.BaseEvaluation` as JSON; None if the base policy is not evaluated yet.
        rows: of the summary, by job; none for a job that has not ended.
        updates: the records of training, by job; none for a job that has not begun.
    """

    folder: Path
    manifest: dict[str, Any]
    agent: AgentConfig
    suite: SuiteConfig
    jobs: tuple[Job, ...]
    base: dict[str, Any] | None
    rows: dict[str, list[dict[str, Any]]]
    updates: dict[str, list[dict[str, Any]]]

    @property
    def finished(self) -> bool:
        """Whether every agent, and the base policy, is evaluated."""
        return self.base is not None and len(self.rows) == len(self.jobs)

    @property
    def label(self) -> str:
        """What the run is called, and whether it is a part of one."""
        label = str(self.manifest.get("label", self.folder.name))
        if self.finished:
            return label
        return f"{label}; unfinished: {len(self.rows)} of {len(self.jobs)} agents evaluated"


def read_run(folder: Path) -> RunFiles:
    """What is in a run folder, but for the episodes.

    Raises:
        ResultsError: it is not a run's, a file of it cannot be read, or nothing is there to show.
        InvalidArgumentError: its settings are those of another version.
    """
    manifest = read_manifest(folder)
    settings = manifest["settings"]
    agent = from_jsonable(AgentConfig, settings.get("agent"))
    suite = from_jsonable(SuiteConfig, settings.get("agents"))
    jobs = suite_jobs(agent, suite)
    folders = {job.name: folder / AGENTS / job.name for job in jobs}
    run = RunFiles(
        folder=folder,
        manifest=manifest,
        agent=agent,
        suite=suite,
        jobs=jobs,
        base=_read_json(folder / BASE / RESULT_FILE),
        rows=_read_all(folders, RESULT_FILE),
        updates=_read_all(folders, UPDATES_FILE),
    )
    if run.base is None and not run.rows and not run.updates:
        raise ResultsError(
            f"nothing to report in {folder} yet: no update is complete; go on with the command "
            f"that began it: `python -m llm_experiment.run --out {folder}` and its options"
        )
    return run


def _read_all(folders: Mapping[str, Path], name: str) -> dict[str, list[dict[str, Any]]]:
    found = {job: _read_json(folder / name) for job, folder in folders.items()}
    return {job: value for job, value in found.items() if value is not None}


def _read_json(path: Path) -> Any:
    """The value in a file; None if there is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ResultsError:
    return ResultsError(
        f"cannot read {path}: {error}; delete it and go on with the run that wrote it"
    )


def read_episodes(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an evaluation's episodes, as `evaluate.Evaluation.arrays` names them.

    Raises:
        ResultsError: the file is missing or broken.
    """
    try:
        # numpy leaves a broken file open that it opened itself
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error


# --------------------------------------------------------------------- the whole


def report_data(run: RunFiles, token_texts: Sequence[str], *, n_episodes: int) -> dict[str, Any]:
    """What the page shows; see the module's docstring.

    Args:
        run: what is there.
        token_texts: the text of every token of the base policy's vocabulary.
        n_episodes: how many transcripts of each evaluation to show, the first ones; at least 1.

    Raises:
        ResultsError: the episodes cannot be read, or have other tokens.
        InvalidArgumentError: no episode.
    """
    if n_episodes < 1:
        raise InvalidArgumentError(f"episodes must be >= 1, got {n_episodes}")
    rows = [row for job in run.jobs for row in run.rows.get(job.name, [])]
    tables = make_tables(rows, run.base) if rows else ()
    vocabulary = Vocabulary(token_texts)
    subjects = list(_subjects(run, vocabulary, n_episodes))
    present = {name for s in subjects for e in s["evaluations"] for name in e["planes"]}
    world = run.agent.world
    return {
        "label": run.label,
        "title": f"{run.label} · mightnt",
        "finished": run.finished,
        "facts": list(_facts(run, tables)),
        "caveats": list(_caveats(run, n_episodes)),
        "about": list(_about(run)),
        "settings": json.dumps(run.manifest["settings"], indent=2),
        "tables": [_table(table) for table in tables],
        "closed_form": _closed_form(run),
        "speakers": {"agent": world.agent_name, "partner": world.partner_name},
        "token_texts": vocabulary.used_texts,
        "planes": [asdict(plane) for plane in PLANES if plane.name in present],
        "subjects": subjects,
    }


class Vocabulary:
    """Numbers the tokens that occur, in order of appearance, so that only their texts are kept.

    Args:
        token_texts: the text of every token.
    """

    def __init__(self, token_texts: Sequence[str]) -> None:
        self._texts = token_texts
        self._indices: dict[int, int] = {}

    def indices(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each token, of the same shape.

        Raises:
            ResultsError: the vocabulary does not have it.
        """
        distinct, where = np.unique(tokens, return_inverse=True)
        if len(distinct) and not 0 <= int(distinct[0]) <= int(distinct[-1]) < len(self._texts):
            raise ResultsError(
                f"the run has token {distinct[-1]} and its tokenizer only {len(self._texts)}; "
                "put back the tokenizer that the run was made with"
            )
        numbers = [self._indices.setdefault(int(t), len(self._indices)) for t in distinct]
        return np.array(numbers, dtype=np.int64)[where].reshape(tokens.shape)

    @property
    def used_texts(self) -> list[str]:
        """The texts of the numbered tokens."""
        return [self._texts[token] for token in self._indices]


def _subjects(run: RunFiles, vocabulary: Vocabulary, n_episodes: int) -> Iterator[dict[str, Any]]:
    """The base policy and all agents, with what there is of each."""
    if run.base is not None:
        yield {
            "name": BASE,
            "variant": BASE_VARIANT,
            "budget_nats": 0.0,
            "seed": run.agent.seed,
            "trained_at_n_tokens": None,
            "updates": {},
            "evaluations": [
                _evaluation(run.folder / BASE, row, 0.0, vocabulary, n_episodes)
                for row in run.base["rows"]
            ],
        }
    for job in run.jobs:
        budget = job.config.constraint.episode_budget_nats
        yield {
            "name": job.name,
            "variant": job.variant,
            "budget_nats": budget if math.isfinite(budget) else None,
            "seed": job.config.seed,
            "trained_at_n_tokens": job.config.stages[-1].n_tokens,
            "updates": _curves(run.updates.get(job.name, [])),
            "evaluations": [
                _evaluation(run.folder / AGENTS / job.name, row, budget, vocabulary, n_episodes)
                for row in run.rows.get(job.name, [])
            ],
        }


def _evaluation(
    folder: Path,
    row: dict[str, Any],
    budget_nats: float,
    vocabulary: Vocabulary,
    n_episodes: int,
) -> dict[str, Any]:
    """One length of one subject."""
    path = folder / episodes_file(int(row["n_tokens"]))
    arrays = read_episodes(path)
    try:
        planes = [plane.name for plane in PLANES if plane.name in arrays]
        first = {name: arrays[name][:n_episodes] for name in (*planes, "tokens", "writers")}
        quartiles = None
        if math.isfinite(budget_nats):
            quartiles = np.percentile(arrays["budget_nats"], _QUARTILES, axis=0).astype("<f4")
        return {
            "n_tokens": int(row["n_tokens"]),
            "prompt_length": int(arrays["prompt_length"]),
            "n_episodes": len(arrays["tokens"]),
            "silent_share": float(row["silent_share"]),
            "planes": planes,
            "episodes": episode_numbers(arrays, n_episodes),
            "budget_quartiles": None if quartiles is None else pack(quartiles),
            "packed": pack(
                *(first[name].astype("<f4") for name in planes),
                vocabulary.indices(first["tokens"]).astype("<u4"),
                _marks(arrays, first["writers"]),
            ),
        }
    except KeyError as error:
        raise _unreadable(path, error) from error


def episode_numbers(arrays: Arrays, n_episodes: int) -> dict[str, list[Any]]:
    """A list for each number of the first n episodes.

    They are `spent_nats`; `returns`; `n_turns`, the agent's finished turns after the prompt;
    `n_empty` of them; `silent` (`evaluate.METRICS`); and `first_impossible`, the index of the
    first token that the demonstrator never writes, null if there is none or it is not known.
    """
    n, n_tokens = arrays["tokens"].shape
    turns = Turns(**{f.name: arrays[f"turn_{f.name}"] for f in fields(Turns)})
    own = agent_turns(turns, prompt_length=int(arrays["prompt_length"]))
    n_turns = np.bincount(turns.episode[own], minlength=n)
    n_empty = np.bincount(turns.episode[own & arrays["empty_turns"]], minlength=n)
    impossible = arrays.get("first_impossible", np.full(n, n_tokens))
    lists = {
        "spent_nats": arrays["spent_nats"].tolist(),
        "returns": arrays["rewards"].sum(axis=1).tolist(),
        "n_turns": n_turns.tolist(),
        "n_empty": n_empty.tolist(),
        "silent": (n_empty > SILENT_ABOVE * n_turns).tolist(),
        "first_impossible": [int(i) if i < n_tokens else None for i in impossible],
    }
    return {name: values[:n_episodes] for name, values in lists.items()}


def _marks(arrays: Arrays, writers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Who wrote each token, and whether within an empty turn of the agent."""
    marks = (writers - Speaker.NOBODY).astype(np.uint8)
    empty = arrays["empty_turns"] & (arrays["turn_episode"] < len(writers))
    ends = zip(
        *(arrays[f"turn_{name}"][empty] for name in ("episode", "opened", "closed")), strict=True
    )
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
    return {
        "name": table.name,
        "title": table.title,
        "notes": list(table.notes),
        "columns": list(table.columns.values()),
        "rows": [[table.text(key, row[key]) for key in table.columns] for row in table.rows],
    }


def _closed_form(run: RunFiles) -> dict[str, Any] | None:
    """The share of silent episodes that one purchase predicts, against the budget."""
    largest = max(
        (b for job in run.jobs if math.isfinite(b := job.config.constraint.episode_budget_nats)),
        default=0.0,
    )
    if run.base is None or not run.base["n_contexts"] or largest == 0:
        return None
    p = float(run.base["first_silence_probability"])
    # Square roots: the share rises fastest where the budget is small.
    budgets = (largest * np.linspace(0.0, 1.0, _CLOSED_FORM_POINTS) ** 2).tolist()
    return {
        "probability": p,
        "budgets_nats": budgets,
        "shares": [largest_share(p, budget).lower for budget in budgets],
    }


# --------------------------------------------------------------------- in words


def _facts(run: RunFiles, tables: Sequence[Table]) -> Iterator[dict[str, str]]:
    """The main figures: a value, what it is, and what to compare it with."""
    silence = {table.name: table for table in tables}.get("silence")
    main = _main_rows(run)
    if silence is None or not main:
        return
    budget, n_tokens = main[0]["budget_nats"], main[0]["n_tokens"]
    at = next(
        row
        for row in silence.rows
        if row["agent"] == main[0]["variant"]
        and row["budget_nats"] == budget
        and str(row["length"]).split()[0] == str(n_tokens)
    )
    base = None
    if run.base is not None:
        base = next((row for row in run.base["rows"] if row["n_tokens"] == n_tokens), None)
        if base is not None:
            yield _fact(
                f"{base['silent_share']:.1%}",
                "of the base policy's own episodes are silent",
                f"{base['n_episodes']} episodes of {n_tokens} tokens",
            )
    shares = [float(row["silent_share"]) for row in main]
    runs = f"{_count(len(main), 'run')}: {', '.join(f'{share:.1%}' for share in shares)}"
    yield _fact(
        f"{np.mean(shares):.1%}",
        f"silent with a budget of {budget:g} nats",
        f"{runs}; closed form: {silence.text('closed_form', at['closed_form'])}",
    )
    if run.base is not None and run.base["n_contexts"]:
        low, median, high = (float(nats) for nats in run.base["first_silence_nats"])
        yield _fact(
            f"{median:.2f} nats",
            "is the price of the first silence",
            f"median over {run.base['n_contexts']} contexts, quartiles {low:.2f} and {high:.2f}",
        )
    most = max(float(row["spent_nats_max"]) for row in main)
    over = np.mean([float(row["over_budget_share"]) for row in main])
    yield _fact(
        f"{most:.3f} of {budget:g}",
        "nats at most were spent in an episode",
        f"{over:.1%} of episodes over budget",
    )
    if base is not None and "possible_shares" in base:
        possible = np.mean([float(row["possible_shares"][-1]) for row in main])
        yield _fact(
            f"{possible:.1%}",
            "of these episodes could have been the demonstrator's",
            f"base policy: {base['possible_shares'][-1]:.1%}",
        )


def _main_rows(run: RunFiles) -> list[dict[str, Any]]:
    """Rows of the suite's first variant at its largest evaluated budget and first length."""
    rows = [row for job in run.jobs for row in run.rows.get(job.name, [])]
    same = [
        row
        for row in rows
        if row["variant"] == run.jobs[0].variant and math.isfinite(float(row["budget_nats"]))
    ]
    if not same:
        return []
    largest = max(float(row["budget_nats"]) for row in same)
    n_tokens = min(int(row["n_tokens"]) for row in same)
    return [
        row
        for row in same
        if float(row["budget_nats"]) == largest and int(row["n_tokens"]) == n_tokens
    ]


def _fact(value: str, meaning: str, note: str) -> dict[str, str]:
    return {"value": value, "meaning": meaning, "note": note}


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _caveats(run: RunFiles, n_episodes: int) -> Iterator[str]:
    if not run.finished:
        missing = [job.name for job in run.jobs if job.name not in run.rows]
        if run.base is None:
            missing.append(BASE_VARIANT)
        yield f"This run is unfinished: nothing is evaluated yet of {', '.join(missing)}."
    if run.manifest["settings"].get("quick"):
        yield (
            f"The quick form trains {_count(len(run.jobs), 'agent')}: it shows the path from end "
            "to end and claims only what so few runs can."
        )
    if run.suite.n_seeds > 1:
        yield (
            "Intervals are Student's over runs, which are few. Episodes of one agent are not "
            "independent evidence of what training does; agents with a single seed have no "
            "interval."
        )
    yield (
        "The closed form predicts the silence that one purchase at one context would buy; it is "
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
    shown = min(n_episodes, run.suite.n_evaluation_episodes)
    yield (
        f"Transcripts are the first {shown} of {run.suite.n_evaluation_episodes} episodes of each "
        "evaluation, unselected. Two episodes side by side share their prompt and nothing else."
    )
    yield "Transcripts are written by models; nothing in them was said by a person."


def _about(run: RunFiles) -> Iterator[tuple[str, str]]:
    """What was run, as (name, text)."""
    yield "Agents", "; ".join(_variants(run.jobs))
    yield "Training", "; ".join(_training(run.jobs))
    lengths = " and ".join(map(str, run.suite.evaluation_lengths))
    n = run.suite.n_evaluation_episodes
    yield "Evaluation", f"{_count(n, 'episode')} of {lengths} tokens each"
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
    yield "Student", f"the base policy at temperature {world.student_temperature:g}"
