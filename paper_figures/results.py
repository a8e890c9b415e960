"""What figures are drawn from: the agents of one experiment, as their runs' folders hold them.

A *run* is one trained agent, and the unit of independence: what a figure says of a group of agents
that differ by their seed alone is a mean over runs, and its band is Student's interval over runs.
Transcripts of one agent share its training and are never counted as independent.

Several folders may make up one experiment, such as a default suite and one with more baselines, if
their agents share everything but what sets the agents of a suite apart. Of an agent that stands in
two folders the first folder's is taken. A folder need not be finished: agents without a
`result.json` are left out, and the label says so.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.chat.turns import Turns
from llm_experiment.evaluation_tables import SUMMARY_FILE
from llm_experiment.measures.evaluation import agent_turns
from llm_experiment.records.folder import AGENTS, BASE, RESULT_FILE, episodes_file, read_manifest
from paper_figures.toy import ToyResults
from theory.errors import MissingDataError, ResultsError

Row = dict[str, Any]
Arrays = dict[str, NDArray[Any]]

QUICK_COMMAND: Final = "make run"
DEFAULT_COMMAND: Final = "python -m llm_experiment.run --out results/llm"
FULL_COMMAND: Final = "python -m llm_experiment.run --suite full --out results/llm-full"
N_PUBLISHED_EMPTY_TOKENS: Final = 4
N_SHOWN_BUDGETS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """What was stored of a policy's evaluation at one length.

    Attributes:
        row: the numbers of `llm_experiment.measures.evaluation.METRICS`, and whose they are.
        path: of the episodes, token by token
        (`llm_experiment.measures.evaluation.Evaluation.arrays`).
        label: of the folder.
    """

    row: Row
    path: Path
    label: str

    @property
    def n_tokens(self) -> int:
        """Length of each episode, the prompt included."""
        return int(self.row["n_tokens"])

    def arrays(self, *names: str) -> Arrays:
        """The stored arrays of these names.

        Raises:
            MissingDataError: the file lacks one of them, as without a known demonstrator.
            ResultsError: the file cannot be read.
        """
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                absent = [name for name in names if name not in stored.files]
                if absent:
                    raise MissingDataError(
                        f"{self.path} holds no {absent[0]} (only a run with a known demonstrator "
                        f"does): make one with `{DEFAULT_COMMAND}`"
                    )
                return {name: stored[name] for name in names}
        except (OSError, ValueError, EOFError) as error:
            raise ResultsError(
                f"cannot read {self.path}: {error}; make it again with `{DEFAULT_COMMAND}`"
            ) from error

    def turns(self) -> tuple[Turns, NDArray[np.bool_], NDArray[np.bool_]]:
        """All turns, which of them count as the agent's, and which of all are empty."""
        names = [f"turn_{name}" for name in ("episode", "speaker", "opened", "closed", "finished")]
        stored = self.arrays(*names, "empty_turns", "prompt_length")
        turns = Turns(**{name.removeprefix("turn_"): stored[name] for name in names})
        own = agent_turns(turns, prompt_length=int(stored["prompt_length"]))
        return turns, own, np.asarray(stored["empty_turns"])

    def empty_shares(self) -> NDArray[np.float64]:
        """Share of an episode's turns that are empty, of each episode with a turn that counts."""
        turns, own, empty = self.turns()
        finished = np.bincount(turns.episode[own])
        n_empty = np.bincount(turns.episode[own & empty], minlength=len(finished))
        return np.asarray(n_empty[finished > 0] / finished[finished > 0])


@dataclass(frozen=True, kw_only=True)
class AgentRun(Episodes):
    """One trained agent, evaluated at one length."""

    @property
    def variant(self) -> str:
        """What the agent is apart from budget and seed."""
        return str(self.row["variant"])

    @property
    def budget_nats(self) -> float:
        """The budget of an episode; inf for none."""
        return float(self.row["budget_nats"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.row["seed"])

    @property
    def trained_at(self) -> int:
        """Length of the episodes that it was last trained on."""
        return int(self.row["trained_at_n_tokens"])

    @property
    def as_trained(self) -> bool:
        """Evaluated at the length that it was trained on."""
        return self.n_tokens == self.trained_at


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The agents of one experiment.

    Attributes:
        folders: that it was read from.
        settings: of the first folder's manifest.
        runs: every agent at every length, by length, variant, budget and seed.
        bases: the base policy at every length.
        base: what else was measured of the base policy (`evaluate.BaseEvaluation`), or None.
    """

    folders: tuple[Path, ...]
    settings: dict[str, Any]
    runs: tuple[AgentRun, ...]
    bases: tuple[Episodes, ...]
    base: Row | None

    @property
    def main_variant(self) -> str:
        """The variant whose budgets the experiment is about."""
        return f"{self.settings['agent']['constraint']['accounting']} budget"

    @property
    def main_runs(self) -> tuple[AgentRun, ...]:
        """The runs of that variant, at the length that they were trained on."""
        return self.select(variant=self.main_variant, as_trained=True)

    @property
    def budgets_nats(self) -> tuple[float, ...]:
        """The budgets of the main runs, increasing."""
        return tuple(sorted({run.budget_nats for run in self.main_runs}))

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths at which agents were evaluated, increasing."""
        return tuple(sorted({run.n_tokens for run in self.runs}))

    def select(
        self,
        *,
        variant: str | None = None,
        budget_nats: float | None = None,
        n_tokens: int | None = None,
        as_trained: bool | None = None,
    ) -> tuple[AgentRun, ...]:
        """The runs for which all that is given holds."""
        return tuple(
            run
            for run in self.runs
            if variant in (None, run.variant)
            and budget_nats in (None, run.budget_nats)
            and n_tokens in (None, run.n_tokens)
            and as_trained in (None, run.as_trained)
        )

    def base_at(self, n_tokens: int) -> Episodes | None:
        """The base policy's own episodes of that length, if they were played."""
        return next((base for base in self.bases if base.n_tokens == n_tokens), None)

    def shown_budgets(self) -> tuple[float, ...]:
        """The largest positive budgets, as many as the paper shows.

        Raises:
            MissingDataError: none is positive.
        """
        positive = [budget for budget in self.budgets_nats if budget > 0]
        if not positive:
            raise MissingDataError(
                f"no agent with a positive budget in {_names(self.folders)}: train some with "
                f"`{DEFAULT_COMMAND}`"
            )
        return tuple(positive[-N_SHOWN_BUDGETS:])


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where artefacts get their data.

    Attributes:
        found: the experiment, None if there is no run.
        toy: what the toy worlds' demos found.
    """

    found: Experiment | None
    toy: ToyResults = field(default_factory=ToyResults)

    def experiment(self) -> Experiment:
        """The experiment.

        Raises:
            MissingDataError: there is none.
        """
        if self.found is None:
            raise MissingDataError(
                f"no run: make one with `{QUICK_COMMAND}` (quick) or `{DEFAULT_COMMAND}`, or name "
                "its folder with --runs"
            )
        return self.found


def label_of(episodes: Sequence[Episodes]) -> str:
    """The labels of the folders that these come from, each once."""
    return "; ".join(dict.fromkeys(each.label for each in episodes))


def empty_rule(runs: Sequence[Episodes]) -> str:
    """What counts as empty in these episodes, beside the published definition."""
    lengths = []
    for run in runs:
        turns, own, empty = run.turns()
        lengths += turns.n_tokens[own & empty].tolist()
    here = f", at most {max(lengths)} tokens with this tokenizer" if lengths else ""
    same = lengths and max(lengths) == N_PUBLISHED_EMPTY_TOKENS
    return (
        "Empty: a finished turn with no more tokens than the separator, the other speaker's name "
        f"and the colon need{here}"
        + ("." if same else f" (published: at most {N_PUBLISHED_EMPTY_TOKENS}, with Mistral's).")
    )


# --------------------------------------------------------------------------- reading


def read_experiment(folders: Sequence[Path]) -> Experiment:
    """The experiment that some folders hold.

    Args:
        folders: of `llm_experiment.run`, at least one, the most trusted first.

    Raises:
        ResultsError: a folder is no run, cannot be read, or belongs to another experiment.
        MissingDataError: no agent of theirs is finished yet.
    """
    manifests = [read_manifest(folder) for folder in folders]
    for folder in folders:
        difference = difference_between(folders[0], folder)
        if difference:
            raise ResultsError(
                f"{folders[0]} and {folder} are different experiments ({difference}); name one of "
                "them with --runs"
            )
    runs: dict[tuple[Any, ...], AgentRun] = {}
    bases: dict[int, Episodes] = {}
    base = None
    for folder, manifest in zip(folders, manifests, strict=True):
        label = str(manifest["label"])
        if not (folder / SUMMARY_FILE).exists():
            label += ", unfinished"
        for result in sorted((folder / AGENTS).glob(f"*/{RESULT_FILE}")):
            for row in _read_json(result):
                run = AgentRun(row=row, path=_episodes_path(result, row), label=label)
                runs.setdefault(_key(run), run)
        result = folder / BASE / RESULT_FILE
        if result.exists():
            own = _read_json(result)
            base = own if base is None else base
            for row in own["rows"]:
                at = Episodes(row=row, path=_episodes_path(result, row), label=label)
                bases.setdefault(at.n_tokens, at)
    if not runs:
        raise MissingDataError(
            f"no agent in {_names(folders)} is finished: let the run end, or make another with "
            f"`{QUICK_COMMAND}`"
        )
    return Experiment(
        folders=tuple(folders),
        settings=manifests[0]["settings"],
        runs=tuple(runs[key] for key in sorted(runs)),
        bases=tuple(bases[n_tokens] for n_tokens in sorted(bases)),
        base=base,
    )


def difference_between(first: Path, second: Path) -> str:
    """Why two folders are no one experiment: the first setting they differ in, or nothing.

    Raises:
        ResultsError: a folder is no run.
    """
    return _difference(_shared(read_manifest(first)), _shared(read_manifest(second)))


def _key(run: AgentRun) -> tuple[Any, ...]:
    return (run.n_tokens, run.variant, run.budget_nats, run.seed, run.trained_at)


def _episodes_path(result: Path, row: Row) -> Path:
    return result.parent / episodes_file(int(row["n_tokens"]))


def _shared(manifest: Row) -> Row:
    """What agents of one experiment share: all of their settings, and the models."""
    return {"agent": manifest["settings"]["agent"], "models": manifest.get("models", {})}


def _difference(first: Any, second: Any, name: str = "") -> str:
    """The first setting that two manifests give different values, or nothing.

    One that a manifest lacks was added, or taken away, between the two runs' versions; its
    default then was what went without saying.
    """
    if isinstance(first, dict) and isinstance(second, dict):
        both = [key for key in first if key in second]
        found = (_difference(first[key], second[key], f"{name}.{key}") for key in both)
        return next((difference for difference in found if difference), "")
    return "" if first == second else f"{name.lstrip('.')}: {first} and {second}"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"cannot read {path}: {error}; make it again with `{DEFAULT_COMMAND}`"
        ) from error


def _names(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))
