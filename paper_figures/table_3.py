"""Table 3: the language-model agents under every constraint that was trained.

Each row is the agents that differ by their seed alone, at the length they were trained on; the
base policy stands first.
"""

from typing import Final

from llm_experiment.measures.metrics import BASE_POLICY, METRICS
from llm_experiment.measures.tables import (
    AGENT,
    BASE_ROW,
    BUDGET,
    LENGTH,
    RUNS,
    metric_column,
    metric_notes,
    over_episodes,
    said,
    table_markdown,
)
from llm_experiment.records.reading import Evaluated, Experiment, grouped
from mightnt.statistics import MeanOverRuns, mean_over_runs
from mightnt.tables import Table
from paper_figures.artefact import Data, Product
from paper_figures.results import FULL_COMMAND, Sources, base_is_budget_0, label_of
from theory.errors import MissingDataError

_METRICS: Final = {
    "spent_nats_mean": ("total KL (nats)", ".2f"),
    "silent_share": ("", ""),
    "empty_share_per_episode": ("", ""),
    "return_mean": ("", ""),
    "reply_reward_mean": ("", ""),
}
"""Headers and formats where they are not the metrics' own."""
_DEPARTURE: Final = {
    "agent_left_share": ("leaves the demonstrator's support", ""),
    "outside_mass": ("", ""),
}

Rows = dict[tuple[str, float, int], tuple[Evaluated, ...]]
"""What a row shows, by variant, budget and length."""


def build(sources: Sources) -> Product:
    """The table."""
    experiment = sources.experiment()
    groups: Rows = {
        (runs[0].variant, runs[0].budget_nats, runs[0].n_tokens): runs
        for runs in grouped(experiment.select(as_trained=True))
    }
    if len({variant for variant, _, _ in groups}) == 1:
        raise MissingDataError(
            f"only one kind of constraint was trained; `{FULL_COMMAND}` trains the usual penalty "
            "and agents without a constraint too"
        )
    lengths = {n_tokens for _, _, n_tokens in groups}
    bases: Rows = {
        (BASE_POLICY, 0.0, each.n_tokens): (each,)
        for each in experiment.bases
        if each.n_tokens in lengths
    }
    rows = bases | groups
    shown = [each for runs in rows.values() for each in runs]
    known = all(each.numbers.departure is not None for each in shown)
    metrics = _METRICS | (_DEPARTURE if known else {})
    values = {
        key: {name: _value(experiment, key in bases, runs, name) for name in metrics}
        for key, runs in rows.items()
    }
    table = Table.of_records(
        [
            {
                "agent": BASE_ROW if key in bases else key[0],
                "budget_nats": key[1],
                "length": str(key[2]),
                "runs": str(len(runs)),
                **values[key],
            }
            for key, runs in rows.items()
        ],
        name="constraints",
        title="Table 3. Language-model agents under every constraint",
        notes=metric_notes(*metrics),
        columns=(
            *(AGENT, BUDGET, LENGTH, RUNS),
            *(
                metric_column(name, header=header, format=form)
                for name, (header, form) in metrics.items()
            ),
        ),
    )
    return Product(
        picture=table_markdown(said(table, experiment.behaviour)),
        caption=(
            "Table 3. Agents by constraint, at the length they were trained on; mean over runs, "
            "with Student's 95% interval over runs where there are two or more. A budget of none: "
            f"the agent is penalised, or free.{_say_base(experiment)} Runs: {label_of(shown)}."
        ),
        data=Data(
            columns=(
                "agent",
                "budget (nats)",
                "tokens",
                "runs",
                *(f"{name}, {part}" for name in metrics for part in ("mean", "low", "high")),
            ),
            rows=tuple(
                (*key, len(runs), *(end for over in values[key].values() for end in _ends(over)))
                for key, runs in rows.items()
            ),
        ),
    )


def _value(
    experiment: Experiment, is_base: bool, runs: tuple[Evaluated, ...], name: str
) -> MeanOverRuns:
    """A number over runs; of the base policy, where it alone stands at budget 0, over episodes."""
    if is_base and base_is_budget_0(experiment):
        return over_episodes(runs[0].row, name)
    values = (run.numbers.value(name) for run in runs)
    return mean_over_runs(values, within=METRICS[name].within)


def _say_base(experiment: Experiment) -> str:
    if not base_is_budget_0(experiment):
        return ""
    return (
        " Shares of the base policy's episodes have the 95% Clopper-Pearson interval over "
        "episodes, which are independent."
    )


def _ends(over: MeanOverRuns) -> tuple[float | None, ...]:
    return over.mean, over.low, over.high
