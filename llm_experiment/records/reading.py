"""What a run left on disk, read back: the one reader of run folders.

A folder of `llm_experiment.run` is read as a `RunFolder`, finished or not. One or several folders
make an `Experiment`, such as a default suite and one with more baselines, if their agents share
everything but what sets the agents of a suite apart: the settings of the agents, completed
(`records.folder.read_settings`), are equal field by field, and so are the models. Of an agent that
stands in two folders the first folder's is taken.

An agent is *evaluated* once it has a `result.json`; a folder is *finished* if every agent of its
suite and the base policy are evaluated. Rows of numbers are read at once, episodes when they are
asked for. Nothing here needs a learning library.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from llm_experiment.chat.turn_records import TurnCounts, Turns, count_turns
from llm_experiment.config import AgentConfig, differences
from llm_experiment.dialogue.behaviour import Behaviour
from llm_experiment.dialogue.task import load_task
from llm_experiment.measures.closed_form import ClosedForm, closed_form_of
from llm_experiment.measures.metrics import (
    AgentRow,
    BaseEvaluation,
    EvaluationRow,
    LengthRow,
    base_from_json,
    row_from_json,
)
from llm_experiment.records.folder import (
    AGENTS,
    BASE,
    RESULT_FILE,
    UPDATES_FILE,
    changed_files,
    episodes_file,
    read_manifest,
    read_settings,
)
from llm_experiment.records.job_result import UNREADABLE, Origin, check_origin, with_rows
from llm_experiment.suite import Job, SuiteConfig, suite_agents
from mightnt.results import read_json
from theory.errors import MissingDataError, ResultsError

Arrays = dict[str, NDArray[Any]]
"""Arrays by the names under which an evaluation stores them."""

RUN_COMMAND: Final = "python -m llm_experiment.run"
QUICK_COMMAND: Final = "make run"

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, kw_only=True)
class StoredEpisodes:
    """The episodes of an evaluation on disk (`measures.evaluation.Evaluation.arrays`).

    Attributes:
        path: of the file.
    """

    path: Path

    def arrays(self, *names: str, optional: Sequence[str] = ()) -> Arrays:
        """The stored arrays of these names.

        Args:
            names: of the arrays.
            optional: of more, as far as they are stored.

        Raises:
            MissingDataError: the file lacks one of them, as without a known demonstrator.
            ResultsError: the file is missing or broken.
        """
        try:
            # numpy leaves a broken file open that it opened itself
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                absent = [name for name in names if name not in stored.files]
                if not absent:
                    there = [name for name in optional if name in stored.files]
                    return {name: stored[name] for name in dict.fromkeys([*names, *there])}
        except UNREADABLE as error:
            raise _unreadable(self.path, error) from error
        raise MissingDataError(
            f"{self.path} holds no {absent[0]}; if that is about the demonstrator, make a run in "
            f"which it is known: `{RUN_COMMAND}` with the shipped models"
        )

    def turns(self) -> tuple[Turns, NDArray[np.bool_], int]:
        """All turns, which of them are empty turns of the agent, and the prompt's length."""
        names = {field.name: f"turn_{field.name}" for field in fields(Turns)}
        stored = self.arrays(*names.values(), "empty_turns", "prompt_length")
        turns = Turns(**{name: stored[stored_as] for name, stored_as in names.items()})
        return turns, stored["empty_turns"], int(stored["prompt_length"])


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A policy's evaluation at one length.

    Attributes:
        row: its numbers.
        episodes: what was played.
        label: of the folder that it was read from.
    """

    row: LengthRow
    episodes: StoredEpisodes
    label: str

    @property
    def n_tokens(self) -> int:
        """Length of each episode, the prompt included."""
        return self.row.n_tokens

    @property
    def numbers(self) -> EvaluationRow:
        """What was measured."""
        return self.row.numbers

    def turn_counts(self) -> TurnCounts:
        """The agent's turns that count, and the empty ones of them, episode by episode."""
        turns, empty, prompt_length = self.episodes.turns()
        return count_turns(
            turns,
            empty,
            prompt_length=prompt_length,
            n_episodes=self.numbers.spending.n_episodes,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluatedAgent(Evaluated):
    """A trained agent's evaluation at one length."""

    row: AgentRow

    @property
    def variant(self) -> str:
        """What the agent is apart from budget and seed."""
        return self.row.variant

    @property
    def budget_nats(self) -> float:
        """The budget of an episode; inf for none."""
        return self.row.budget_nats

    @property
    def seed(self) -> int:
        """The seed of its training."""
        return self.row.seed

    @property
    def trained_at(self) -> int:
        """Length of the episodes that it was last trained on."""
        return self.row.trained_at_n_tokens


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """What one run folder holds so far.

    Attributes:
        folder: where it is.
        label: what the run is called, and whether it is a part of one.
        manifest: as `read_manifest` gives it.
        agent: what all agents share.
        suite: what sets them apart, and how they are evaluated.
        jobs: its agents, trained or not; of those with a budget of 0, which are the base policy,
            the ones that an older version began to train.
        agents: the evaluations of each agent that has any, by the name of its folder; those of
            the suite first, in its order.
        base: what was measured of the base policy; None if it is not evaluated yet.
        bases: its evaluations, in the order in which they were made.
    """

    folder: Path
    label: str
    manifest: dict[str, Any]
    agent: AgentConfig
    suite: SuiteConfig
    jobs: tuple[Job, ...]
    agents: dict[str, tuple[EvaluatedAgent, ...]]
    base: BaseEvaluation | None
    bases: tuple[Evaluated, ...]

    @property
    def rows(self) -> tuple[AgentRow, ...]:
        """Every agent at every length."""
        return tuple(each.row for evaluations in self.agents.values() for each in evaluations)

    @property
    def behaviour(self) -> Behaviour:
        """What the demonstrator of the run's task never does."""
        return load_task(self.agent.world.task).behaviour

    @property
    def missing(self) -> tuple[str, ...]:
        """The agents that are not evaluated yet, and `base` if the base policy is not."""
        agents = _not_evaluated(self.jobs, self.agents)
        return (*agents, *([BASE] if self.base is None else []))

    @property
    def finished(self) -> bool:
        """Whether every agent, and the base policy, is evaluated."""
        return not self.missing

    def check_finished(self) -> None:
        """Raise unless the run is finished.

        Raises:
            ResultsError: it is not.
        """
        if self.missing:
            raise ResultsError(
                f"{self.folder} holds an unfinished run: {', '.join(self.missing)} "
                f"{'is' if len(self.missing) == 1 else 'are'} not evaluated yet; finish the run "
                f"with `{RUN_COMMAND}`"
            )

    def check_unchanged(self) -> None:
        """Raise if a file that the numbers come from has changed since the run was finished.

        Raises:
            ResultsError: one has, or is missing.
        """
        changed = changed_files(self.folder, self.manifest)
        if changed:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise ResultsError(
                f"{self.folder / changed[0]}{more} is missing or has changed since the run was "
                "finished (its SHA-256 is not the manifest's); finish the run again with the "
                f"command that began it, `{RUN_COMMAND}`, which makes it again"
            )

    def updates(self, name: str) -> list[dict[str, Any]]:
        """The records of an agent's training so far (`llm_experiment.agent.ppo`).

        Args:
            name: of the agent.

        Raises:
            ResultsError: they cannot be read.
        """
        return read_updates(self.folder / AGENTS / name / UPDATES_FILE)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The agents of one experiment, from one folder or several.

    Attributes:
        folders: that it was read from, the most trusted first.
        runs: every agent at every length, folder by folder.
        bases: the base policy at every length, by length.
        base: what else was measured of the base policy, or None.
    """

    folders: tuple[RunFolder, ...]
    runs: tuple[EvaluatedAgent, ...]
    bases: tuple[Evaluated, ...]
    base: BaseEvaluation | None

    @property
    def agent(self) -> AgentConfig:
        """What all agents share."""
        return self.folders[0].agent

    @property
    def main_variant(self) -> str:
        """The variant whose budgets the experiment is about."""
        return main_variant(self.agent)

    @property
    def main_runs(self) -> tuple[EvaluatedAgent, ...]:
        """The agents of that variant, at the length that they were trained on."""
        return self.select(variant=self.main_variant, as_trained=True)

    @property
    def budgets_nats(self) -> tuple[float, ...]:
        """The budgets of the main runs, increasing."""
        return tuple(sorted({run.budget_nats for run in self.main_runs}))

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths at which agents were evaluated, increasing."""
        return tuple(sorted({run.n_tokens for run in self.runs}))

    @property
    def behaviour(self) -> Behaviour:
        """What the demonstrator never does, and the experiment is about."""
        return self.folders[0].behaviour

    @property
    def closed_form(self) -> ClosedForm | None:
        """How much of it a budget buys by the closed form, if the base policy is evaluated."""
        return closed_form_of(self.base)

    def select(
        self,
        *,
        variant: str | None = None,
        budget_nats: float | None = None,
        n_tokens: int | None = None,
        as_trained: bool | None = None,
    ) -> tuple[EvaluatedAgent, ...]:
        """The runs for which all that is given holds, by length, variant, budget and seed."""
        chosen = (
            run
            for run in self.runs
            if variant in (None, run.variant)
            and budget_nats in (None, run.budget_nats)
            and n_tokens in (None, run.n_tokens)
            and as_trained in (None, run.row.as_trained)
        )
        return tuple(sorted(chosen, key=_place))

    def base_at(self, n_tokens: int) -> Evaluated | None:
        """The base policy's own episodes of that length, if they were played."""
        return next((base for base in self.bases if base.n_tokens == n_tokens), None)


def main_variant(agent: AgentConfig) -> str:
    """The variant of the agents whose budgets a run is about."""
    return f"{agent.constraint.accounting.value} budget"


def grouped(runs: Sequence[EvaluatedAgent]) -> tuple[tuple[EvaluatedAgent, ...], ...]:
    """Agents that differ by their seed alone together, groups in order of appearance."""
    found: dict[tuple[Any, ...], list[EvaluatedAgent]] = {}
    for run in runs:
        found.setdefault(run.row.group, []).append(run)
    return tuple(map(tuple, found.values()))


def difference_between(first: RunFolder, second: RunFolder) -> str:
    """Why two folders are not of the same experiment: the settings they differ in, or nothing."""
    return differences(_shared(first), _shared(second))


def _shared(run: RunFolder) -> dict[str, Any]:
    """What agents of one experiment share: all of their settings, and the models."""
    return {"agent": run.agent, "models": run.manifest.get("models", {})}


def _place(run: EvaluatedAgent) -> tuple[Any, ...]:
    return (run.n_tokens, run.variant, run.budget_nats, run.seed, run.trained_at)


# --------------------------------------------------------------------- reading


def read_run(folder: Path) -> RunFolder:
    """What is in a run folder, but for the episodes and the records of training.

    Raises:
        ResultsError: it is not a run's, is another version's, or a file of it cannot be read.
    """
    manifest = read_manifest(folder)
    settings = manifest["settings"]
    if not isinstance(settings, dict) or "agent" not in settings:
        raise ResultsError(
            f"{folder} is not the folder of a single run; name one, such as a folder in it"
        )
    agent = read_settings(AgentConfig, settings["agent"], folder)
    suite = read_settings(SuiteConfig, settings.get("agents", {}), folder)
    every = suite_agents(agent, suite)
    jobs = tuple(
        job
        for job in every
        if not job.config.constraint.is_base_policy or (folder / AGENTS / job.name).is_dir()
    )
    origins = {job.name: agent_origin(job, suite) for job in every}
    rows = {
        name: _read_rows(folder / AGENTS / name, origins.get(name))
        for name in _agent_names(folder, every)
    }
    rows = {name: own for name, own in rows.items() if own}
    base = _read_result(folder / BASE, base_origin(agent, suite), base_from_json)
    label = _label(manifest, folder, jobs, rows.keys(), base)
    return RunFolder(
        folder=folder,
        label=label,
        manifest=manifest,
        agent=agent,
        suite=suite,
        jobs=jobs,
        agents={
            name: tuple(
                EvaluatedAgent(row=row, episodes=_stored(folder / AGENTS / name, row), label=label)
                for row in own
            )
            for name, own in rows.items()
        },
        base=base,
        bases=tuple(
            Evaluated(row=row, episodes=_stored(folder / BASE, row), label=label)
            for row in (base.rows if base else ())
        ),
    )


def _agent_names(folder: Path, agents: Sequence[Job]) -> list[str]:
    """The suite's agents, then those that stand in the folder besides, by name."""
    there = sorted(path.parent.name for path in (folder / AGENTS).glob(f"*/{RESULT_FILE}"))
    return list(dict.fromkeys([*(agent.name for agent in agents), *there]))


def _label(
    manifest: dict[str, Any],
    folder: Path,
    jobs: Sequence[Job],
    evaluated: Collection[str],
    base: BaseEvaluation | None,
) -> str:
    """What a run is called, and whether it is a part of one."""
    label = str(manifest.get("label", folder.name))
    n_missing = len(_not_evaluated(jobs, evaluated))
    if base is not None and not n_missing:
        return label
    n_evaluated = sum(job.name in evaluated for job in jobs)
    return f"{label}; unfinished: {n_evaluated} of {n_evaluated + n_missing} agents evaluated"


def _not_evaluated(jobs: Sequence[Job], evaluated: Collection[str]) -> list[str]:
    """The names of the agents to be evaluated still; those with a budget of 0 need not be."""
    return [
        job.name
        for job in jobs
        if job.name not in evaluated and not job.config.constraint.is_base_policy
    ]


def read_experiment(folders: Sequence[Path]) -> Experiment:
    """The experiment that some folders hold.

    Args:
        folders: of `llm_experiment.run`, at least one, the most trusted first.

    Raises:
        ResultsError: a folder is no run, cannot be read, or belongs to another experiment.
        MissingDataError: no agent in them is evaluated yet.
    """
    return join_runs([read_run(folder) for folder in folders])


def join_runs(runs: Sequence[RunFolder]) -> Experiment:
    """The experiment that some run folders make up.

    Args:
        runs: at least one, the most trusted first.

    Raises:
        ResultsError: two belong to different experiments.
        MissingDataError: no agent in them is evaluated yet.
    """
    for run in runs:
        difference = difference_between(runs[0], run)
        if difference:
            raise ResultsError(
                f"{runs[0].folder} and {run.folder} are different experiments ({difference}); "
                "name one of them"
            )
    agents: dict[tuple[Any, ...], EvaluatedAgent] = {}
    bases: dict[int, Evaluated] = {}
    for run in runs:
        for each in (each for own in run.agents.values() for each in own):
            agents.setdefault(_place(each), each)
        for base in run.bases:
            bases.setdefault(base.n_tokens, base)
    if not agents:
        folders = ", ".join(str(run.folder) for run in runs)
        raise MissingDataError(
            f"no agent in {folders} is finished: let the run end, or make another with "
            f"`{QUICK_COMMAND}`"
        )
    return Experiment(
        folders=tuple(runs),
        runs=tuple(agents.values()),
        bases=tuple(bases[n_tokens] for n_tokens in sorted(bases)),
        base=next((run.base for run in runs if run.base is not None), None),
    )


def _stored(folder: Path, row: LengthRow) -> StoredEpisodes:
    return StoredEpisodes(path=folder / episodes_file(row.n_tokens))


def agent_origin(job: Job, suite: SuiteConfig) -> Origin:
    """What the result of an agent comes from."""
    return Origin(
        agent=job.config,
        evaluation_lengths=suite.evaluation_lengths,
        n_episodes=suite.n_evaluation_episodes,
    )


def base_origin(agent: AgentConfig, suite: SuiteConfig) -> Origin:
    """What the result of the base policy comes from."""
    return Origin(
        agent=agent,
        evaluation_lengths=suite.evaluation_lengths,
        n_episodes=suite.n_base_episodes,
    )


def _read_rows(folder: Path, origin: Origin | None) -> tuple[AgentRow, ...]:
    """The rows of an agent; none if it is not evaluated yet."""

    def parse(content: dict[str, Any]) -> tuple[AgentRow, ...]:
        return tuple(row_from_json(AgentRow, row) for row in content["rows"])

    return _read_result(folder, origin, parse) or ()


def _read_result(
    folder: Path, origin: Origin | None, parse: Callable[[dict[str, Any]], ValueT]
) -> ValueT | None:
    """What `parse` makes of a job's result; None if it has none.

    Raises:
        ResultsError: the result cannot be read, or came from something else than `origin`.
    """
    path = folder / RESULT_FILE
    found = read_json(path, lambda content: _both(with_rows(content), parse), remedy=_REMEDY)
    if found is None:
        return None
    content, parsed = found
    if origin is not None:
        check_origin(path, content, origin)
    return parsed


def _both(
    content: dict[str, Any], parse: Callable[[dict[str, Any]], ValueT]
) -> tuple[dict[str, Any], ValueT]:
    return content, parse(content)


def read_updates(path: Path) -> list[dict[str, Any]]:
    """The records of an agent's training so far; none if there is no such file.

    Raises:
        ResultsError: they cannot be read.
    """
    return read_json(path, _parse_updates, remedy=_REMEDY) or []


_NUMBERS: Final = ("agent_steps", "budget_nats", "spent_nats_mean", "return_mean", "empty_share")
"""What is shown of every update."""


def _parse_updates(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        raise TypeError("it holds no list of updates")
    for record in content:
        for name in _NUMBERS:
            float(record[name])
    return content


_REMEDY: Final = (
    f"delete it and finish the run with the command that began it, `{RUN_COMMAND}`, which makes "
    "it again"
)


def _unreadable(path: Path, error: Exception) -> ResultsError:
    return ResultsError(f"cannot read {path}: {error}; {_REMEDY}")
