"""A finished run is judged: what is compared, by whom, and what is left on disk.

As in the published Table 1: agents of the largest budget against the base policy, those of the
second largest against it, and the one against the other; 300 pairs a comparison, who is shown in
front drawn at random (`llm_experiment.judging.pairwise`, which also says what the two intervals
are).

Two kinds of judge. The *built-in* one compares numbers of the agent's own tokens
(`llm_experiment.measures.transcript_statistics`); it needs no network and always judges. A
*language model* is asked too if an endpoint is named (`llm_experiment.judging.endpoint`); both see
the same pairs.

**Stored.** `judge.json` in the run's folder:

    schema        1
    label         of the run
    protocol      n_pairs, n_tokens (length of the episodes), seed, confidence
    episodes      SHA-256 of every file that was judged, by its path in the run's folder
    comparisons   a list:
        name          such as "10 nats against base policy"
        first         {name, budget_nats}; budget_nats is null for the base policy
        second        the same
        pairs         a list of {seed, first, second, swapped}: see `pairwise.Pair`
    judgements    a list, one for each judge, question and comparison:
        judge         "built-in" or "endpoint"
        model         the statistic, such as "bits-per-token", or the language model's name
        question      "better" or "more-complex"
        criterion     what the larger number means, or the question as it was put
        comparison    a name from `comparisons`
        outcome       `pairwise.Outcome`: {all, units, pairs_low, pairs_high, over_runs, in_front}
            all           {n_pairs, first, second, ties, unparsable, share}
            units         the same for each seed
            pairs_low, pairs_high   Wilson's interval over pairs for the share of `first`
            over_runs     {values, mean, low, high}: shares of the seeds, Student's interval
            in_front      share of the decided pairs that named the transcript in front
        verdicts      one a pair: "first", "second", "tie" or "unparsable"
        numbers       one [first, second] a pair; null for a language model
        answers       what the language model said, one a pair; null for a statistic
        asked         how it was asked: url, temperature, prompts; null for a statistic

Numbers that do not exist are the string "nan" or null. A later judge adds its judgements to those
that are there, as long as they are about the same pairs; those of the same model are replaced.
The file's hash is added to the run's manifest, so that it is part of the run.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any, Final

import numpy as np

from llm_experiment.base.shipped import model_names
from llm_experiment.chat.token_texts import TextDecoder, read_tokenizer
from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.task import speakers_of
from llm_experiment.judging.endpoint import AskingConfig, Endpoint, ask_all, endpoint_from
from llm_experiment.judging.options import JudgeKind, Options
from llm_experiment.judging.pairwise import (
    Outcome,
    Pair,
    Source,
    Unit,
    Verdict,
    compare_numbers,
    draw_pairs,
    summarise,
)
from llm_experiment.judging.prompt import QUESTIONS, SYSTEM, make_messages, read_answer
from llm_experiment.measures.metrics import BASE_POLICY
from llm_experiment.measures.transcript_statistics import (
    STORED,
    Decode,
    Episodes,
    Question,
    Statistic,
    episodes_of,
    measure,
)
from llm_experiment.records.folder import (
    AGENTS,
    BASE,
    JUDGE_FILE,
    exclusive,
    hash_file,
    record_hash,
)
from llm_experiment.records.reading import Evaluated, EvaluatedAgent, main_variant, read_run
from mightnt.progress import progress_bar, track
from mightnt.results import read_json, to_jsonable, write_json
from mightnt.statistics import CONFIDENCE
from mightnt.tables import Cell, Column, Table, Written
from theory.errors import InvalidArgumentError, ResultsError

SCHEMA: Final = 1
CACHE_FILE: Final = ".judge-answers.sqlite"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: for tables.
        budget_nats: of its agents; None for the base policy.
        folders: of its episodes within the run's folder, by seed; the base policy's is anyone's.
    """

    name: str
    budget_nats: float | None
    folders: dict[int, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Pairs of transcripts of two sides.

    Attributes:
        first: one side.
        second: the other one.
        pairs: to be judged.
    """

    first: Side
    second: Side
    pairs: tuple[Pair, ...]

    @property
    def name(self) -> str:
        """Unlike any other's in a run."""
        return f"{self.first.name} against {self.second.name}"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The answers of one judge to one question about one comparison; see `judge.json`."""

    judge: JudgeKind
    model: str
    question: Question
    criterion: str
    comparison: str
    outcome: Outcome
    verdicts: tuple[Verdict, ...]
    numbers: tuple[tuple[float, float], ...] | None
    answers: tuple[str | None, ...] | None
    asked: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class JudgedRun:
    """What of a finished run is judged.

    Attributes:
        label: of the run.
        world: its models and names.
        n_tokens: length of the episodes.
        sides: larger budgets first, the base policy last.
        episodes: by folder within the run's.
        files: of the episodes, by folder.
    """

    label: str
    world: WorldConfig
    n_tokens: int
    sides: tuple[Side, ...]
    episodes: dict[str, Episodes]
    files: dict[str, str]


# ------------------------------------------------------------------------------ what to compare


def choose_sides(options: Options) -> JudgedRun:
    """The agents to compare and their episodes.

    Raises:
        ResultsError: no finished run, or episodes that cannot be read.
        InvalidArgumentError: a length or a budget that the run does not have.
    """
    run = read_run(options.run)
    run.check_finished()
    variant = main_variant(run.agent)
    agents = [
        (f"{AGENTS}/{name}", each)
        for name, evaluations in run.agents.items()
        for each in evaluations
        if each.variant == variant
    ]
    n_tokens = _choose_length([each for _, each in agents], options.n_tokens)
    agents = [(folder, each) for folder, each in agents if each.n_tokens == n_tokens]
    there = sorted({each.budget_nats for _, each in agents}, reverse=True)
    budgets = sorted(set(options.budgets_nats), reverse=True) or there[:2]
    absent = [budget for budget in budgets if budget not in there]
    if absent:
        raise InvalidArgumentError(
            f"no agent of the run has a budget of {absent[0]:g} nats; choose of "
            f"{', '.join(f'{budget:g}' for budget in there)}"
        )
    chosen: dict[str, Evaluated] = {
        BASE: next(each for each in run.bases if each.n_tokens == n_tokens)
    }
    chosen |= {
        folder: each for budget in budgets for folder, each in agents if each.budget_nats == budget
    }
    sides = tuple(
        Side(
            name=f"{budget:g} nats",
            budget_nats=budget,
            folders={each.seed: folder for folder, each in agents if each.budget_nats == budget},
        )
        for budget in budgets
    )
    seeds = {seed for side in sides for seed in side.folders}
    base = Side(name=BASE_POLICY, budget_nats=None, folders=dict.fromkeys(seeds, BASE))
    return JudgedRun(
        label=run.label,
        world=run.agent.world,
        n_tokens=n_tokens,
        sides=(*sides, base),
        episodes={
            folder: episodes_of(each.episodes.arrays(*STORED)) for folder, each in chosen.items()
        },
        files={folder: f"{folder}/{each.episodes.path.name}" for folder, each in chosen.items()},
    )


def _choose_length(agents: Sequence[EvaluatedAgent], wanted: int | None) -> int:
    lengths = sorted({each.n_tokens for each in agents})
    if not lengths:
        raise ResultsError("the run has no agent with a budget, so there is nothing to compare")
    trained_at = max(each.trained_at for each in agents)
    if wanted is None:
        return trained_at if trained_at in lengths else lengths[0]
    if wanted not in lengths:
        raise InvalidArgumentError(
            f"no episodes of {wanted} tokens; choose --n-tokens of {', '.join(map(str, lengths))}"
        )
    return wanted


def make_comparisons(run: JudgedRun, options: Options) -> tuple[Comparison, ...]:
    """Every budget against the base policy, then against every smaller one.

    Raises:
        InvalidArgumentError: fewer pairs than seeds, or more than there are.
    """
    *agents, base = run.sides
    sides = [*((agent, base) for agent in agents), *combinations(agents, 2)]
    return tuple(
        Comparison(
            first=first,
            second=second,
            pairs=draw_pairs(
                [
                    Unit(
                        seed=seed,
                        first=_source(run, first.folders[seed]),
                        second=_source(run, second.folders[seed]),
                    )
                    for seed in sorted(first.folders.keys() & second.folders.keys())
                ],
                options.n_pairs,
                rng=np.random.default_rng([options.seed, number]),
            ),
        )
        for number, (first, second) in enumerate(sides)
    )


def _source(run: JudgedRun, folder: str) -> Source:
    return Source(folder=folder, n_episodes=len(run.episodes[folder].tokens))


# ------------------------------------------------------------------------------ judging


def judge_by_statistics(
    run: JudgedRun, comparisons: Sequence[Comparison], *, decode: Decode
) -> list[Judgement]:
    """The built-in judge's judgements: the larger number of each pair, for every statistic.

    Args:
        run: with the episodes.
        comparisons: of its sides.
        decode: the text of tokens.
    """
    found = []
    for statistic in track(Statistic, "statistics", total=len(Statistic)):
        values = {
            folder: measure(statistic, episodes, decode=decode)
            for folder, episodes in run.episodes.items()
        }
        for comparison in comparisons:
            first, second = (
                np.array(
                    [values[side.folders[pair.seed]][index(pair)] for pair in comparison.pairs]
                )
                for side, index in _sides(comparison)
            )
            verdicts = compare_numbers(first, second)
            found.append(
                Judgement(
                    judge=JudgeKind.BUILT_IN,
                    model=statistic.value,
                    question=statistic.question,
                    criterion=statistic.criterion,
                    comparison=comparison.name,
                    outcome=summarise(comparison.pairs, verdicts),
                    verdicts=tuple(verdicts),
                    numbers=tuple(zip(first.tolist(), second.tolist(), strict=True)),
                    answers=None,
                    asked=None,
                )
            )
    return found


def judge_by_endpoint(
    run: JudgedRun,
    comparisons: Sequence[Comparison],
    endpoint: Endpoint,
    *,
    decode: Decode,
    asking: AskingConfig,
    cache: Path,
) -> list[Judgement]:
    """A language model's judgements: both questions about every pair.

    Args:
        run: with the episodes.
        comparisons: of its sides.
        endpoint: the language model.
        decode: the text of tokens.
        asking: how it is asked.
        cache: where its answers are kept.

    Raises:
        ModelError: the server refuses or keeps failing; see `ask_all`.
        ResultsError: the cache cannot be used.
    """
    texts = {
        folder: [decode(tokens.tolist()) for tokens in episodes.tokens]
        for folder, episodes in run.episodes.items()
    }
    asked = list(product(Question, comparisons))
    questions = [
        make_messages(
            question, *_shown(texts, comparison, pair), agent=f"the {speakers_of(run.world)[0]}"
        )
        for question, comparison in asked
        for pair in comparison.pairs
    ]
    with progress_bar() as bar:
        task = bar.add_task(f"answers of {endpoint.model}", total=len(questions))
        answers = ask_all(
            endpoint, questions, config=asking, cache=cache, advance=partial(bar.advance, task)
        )
    how = {"url": endpoint.url, "temperature": asking.temperature, "system": SYSTEM}
    found = []
    start = 0
    for question, comparison in asked:
        own = tuple(answers[start : start + len(comparison.pairs)])
        start += len(own)
        verdicts = tuple(map(_verdict, comparison.pairs, own))
        found.append(
            Judgement(
                judge=JudgeKind.ENDPOINT,
                model=endpoint.model,
                question=question,
                criterion=QUESTIONS[question].format(agent=f"the {speakers_of(run.world)[0]}"),
                comparison=comparison.name,
                outcome=summarise(comparison.pairs, verdicts),
                verdicts=verdicts,
                numbers=None,
                answers=own,
                asked=how,
            )
        )
    return found


def _shown(texts: dict[str, list[str]], comparison: Comparison, pair: Pair) -> tuple[str, str]:
    """The transcripts of a pair, the one in front first."""
    first, second = (
        texts[side.folders[pair.seed]][index(pair)] for side, index in _sides(comparison)
    )
    return (second, first) if pair.swapped else (first, second)


def _verdict(pair: Pair, answer: str | None) -> Verdict:
    letter = read_answer(answer)
    if letter is None:
        return Verdict.UNPARSABLE
    return Verdict.FIRST if (letter == "A") != pair.swapped else Verdict.SECOND


def _sides(comparison: Comparison) -> tuple[tuple[Side, Callable[[Pair], int]], ...]:
    """Each side with where its episode stands in a pair."""
    return (
        (comparison.first, lambda pair: pair.first),
        (comparison.second, lambda pair: pair.second),
    )


# ------------------------------------------------------------------------------ on disk


def write_judgements(
    run: JudgedRun,
    options: Options,
    comparisons: Sequence[Comparison],
    judgements: Sequence[Judgement],
) -> dict[str, Any]:
    """Write `judge.json`, with what is there of other judges about the same pairs.

    Returns:
        The file's content.

    Raises:
        ResultsError: it cannot be written, or the old one cannot be read.
    """
    path = options.run / JUDGE_FILE
    head = {
        "schema": SCHEMA,
        "label": run.label,
        "protocol": {
            "n_pairs": options.n_pairs,
            "n_tokens": run.n_tokens,
            "seed": options.seed,
            "confidence": CONFIDENCE,
        },
        "episodes": {file: hash_file(options.run / file) for file in run.files.values()},
        "comparisons": [
            {
                "name": comparison.name,
                "first": _side(comparison.first),
                "second": _side(comparison.second),
                "pairs": comparison.pairs,
            }
            for comparison in comparisons
        ],
    }
    content: dict[str, Any] = to_jsonable(head | {"judgements": judgements})
    new = {(judgement.judge.value, judgement.model) for judgement in judgements}
    content["judgements"] += [
        old for old in _others(path, content) if (old["judge"], old["model"]) not in new
    ]
    write_json(path, content)
    record_hash(options.run, path)
    return content


def _side(side: Side) -> dict[str, Any]:
    return {"name": side.name, "budget_nats": side.budget_nats}


def _others(path: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    """The judgements on disk, if they are about the pairs of `content`."""

    def parse(old: Any) -> list[dict[str, Any]]:
        if any(old[key] != content[key] for key in content if key != "judgements"):
            return []
        for judgement in old["judgements"]:
            judgement["judge"], judgement["model"]
        return list(old["judgements"])

    return read_json(path, parse, remedy="delete it and judge again") or []


# ------------------------------------------------------------------------------ the tables


_QUESTIONS: Final = {
    Question.BETTER: "better",
    Question.MORE_COMPLEX: "more complex or unpredictable",
}


def to_tables(content: dict[str, Any]) -> tuple[Table, ...]:
    """A table for each question.

    Args:
        content: of `judge.json`.
    """
    return tuple(_table(content, question) for question in Question)


def _table(content: dict[str, Any], question: Question) -> Table:
    protocol = content["protocol"]
    level = f"{protocol['confidence']:.0%}"
    names = {comparison["name"]: _names(comparison) for comparison in content["comparisons"]}
    order = list(names)
    chosen = [j for j in content["judgements"] if j["question"] == question.value]
    return Table.of_records(
        name=question.value,
        records=[
            _record(judgement, names[judgement["comparison"]])
            for judgement in sorted(chosen, key=lambda j: order.index(j["comparison"]))
        ],
        title=(
            f"Whose behaviour is {_QUESTIONS[question]}?\n{protocol['n_pairs']} pairs of "
            f"{protocol['n_tokens']} tokens; Wilson's intervals over pairs, Student's over runs"
        ),
        columns=(
            Column(key="sides", header="first / second"),
            Column(key="judge", header="judge"),
            Column(key="share", header="first, %", format=".1f"),
            Column(key="pairs", header=f"{level} pairs", format=""),
            Column(key="runs", header=f"{level} runs", format=""),
            Column(key="none", header="none", format=".0f"),
        ),
    )


def _names(comparison: dict[str, Any]) -> str:
    return " / ".join(
        comparison[side]["name"].removesuffix(" policy").removesuffix(" nats")
        for side in ("first", "second")
    )


def _record(judgement: dict[str, Any], sides: str) -> dict[str, Cell]:
    outcome = judgement["outcome"]
    every, over_runs = outcome["all"], outcome["over_runs"]
    return {
        "sides": sides,
        "judge": judgement["model"],
        "share": _percent(float(every["share"])),
        "pairs": _interval(outcome["pairs_low"], outcome["pairs_high"]),
        "runs": _interval(over_runs["low"], over_runs["high"]),
        "none": every["ties"] + every["unparsable"],
    }


def _interval(low: float | None, high: float | None) -> Written | None:
    if low is None or high is None:
        return None
    return Written(f"{100 * low:.0f} to {100 * high:.0f}", {"low": low, "high": high})


def _percent(share: float) -> Written | None:
    return None if math.isnan(share) else Written(f"{100 * share:.1f}", {"": share})


# ------------------------------------------------------------------------------ all of it


def judge(options: Options, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Judge a finished run.

    Args:
        options: which, by whom and how.
        environment: names the language model, if one is asked.

    Returns:
        The content of its `judge.json`.

    Raises:
        ResultsError: no finished run, or another process is writing to it.
        InvalidArgumentError: options or an environment that do not fit.
        ModelError: the tokenizer cannot be loaded, or the language model does not answer.
    """
    there = read_run(options.run)  # before the folder is made
    there.check_finished()
    there.check_unchanged()
    endpoint = endpoint_from(environment) if options.judge is JudgeKind.ENDPOINT else None
    with exclusive(options.run):
        run = choose_sides(options)
        comparisons = make_comparisons(run, options)
        decode = load_decoder(run.world)
        judgements = judge_by_statistics(run, comparisons, decode=decode)
        if endpoint is not None:
            judgements += judge_by_endpoint(
                run,
                comparisons,
                endpoint,
                decode=decode,
                asking=options.asking,
                cache=options.cache or options.run / CACHE_FILE,
            )
        return write_judgements(run, options, comparisons, judgements)


def load_decoder(world: WorldConfig) -> Decode:
    """The text of tokens of a world's language model.

    Raises:
        ModelError: its tokenizer cannot be loaded.
    """
    language_model, _ = model_names(world)
    return TextDecoder(read_tokenizer(language_model))
