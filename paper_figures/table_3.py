"""Table 3: the language-model agents under every constraint that was trained.

Each row is the agents that differ by their seed alone, at the length they were trained on; the
base policy stands first.
"""

from typing import Final

from llm_experiment.evaluation_tables import (
    BASE_VARIANT,
    OverRuns,
    Table,
    over_runs,
    table_markdown,
)
from llm_experiment.measures.evaluation import METRICS
from paper_figures.artefact import Data, Product
from paper_figures.results import FULL_COMMAND, Episodes, Sources, label_of
from theory.errors import MissingDataError

_METRICS: Final = {
    "spent_nats_mean": ("total KL (nats)", ".2f"),
    "silent_share": ("silent episodes", ".1%"),
    "empty_share_per_episode": ("empty turns, per episode", ".1%"),
    "return_mean": ("return", ".2f"),
    "reply_reward_mean": ("reward of a reply", ".3f"),
}
_DEPARTURE: Final = {
    "agent_left_share": ("leaves the demonstrator's support", ".1%"),
    "outside_mass": ("outside mass a step", ".2g"),
}


def build(sources: Sources) -> Product:
    """The table."""
    experiment = sources.experiment()
    groups: dict[tuple[str, float, int], list[Episodes]] = {}
    for run in experiment.select(as_trained=True):
        groups.setdefault((run.variant, run.budget_nats, run.n_tokens), []).append(run)
    if len({variant for variant, _, _ in groups}) == 1:
        raise MissingDataError(
            f"only one kind of constraint was trained; `{FULL_COMMAND}` trains the usual penalty "
            "and agents without a constraint too"
        )
    lengths = {n_tokens for _, _, n_tokens in groups}
    bases = {
        (BASE_VARIANT, 0.0, each.n_tokens): [each]
        for each in experiment.bases
        if each.n_tokens in lengths
    }
    rows = bases | groups
    shown = [each for runs in rows.values() for each in runs]
    metrics = _METRICS | (_DEPARTURE if all("agent_left_share" in e.row for e in shown) else {})
    values = {
        key: {name: over_runs(float(each.row[name]) for each in runs) for name in metrics}
        for key, runs in rows.items()
    }
    table = Table(
        name="constraints",
        title="Table 3. Language-model agents under every constraint",
        notes=tuple(f"`{name}`: {METRICS[name]}" for name in metrics),
        columns={"agent": "agent", "budget": "budget (nats)", "length": "tokens", "runs": "runs"}
        | {name: header for name, (header, _) in metrics.items()},
        formats={name: form for name, (_, form) in metrics.items()},
        rows=tuple(
            {
                "agent": key[0],
                "budget": key[1],
                "length": str(key[2]),
                "runs": str(len(runs)),
                **values[key],
            }
            for key, runs in rows.items()
        ),
    )
    return Product(
        picture=table_markdown(table),
        caption=(
            "Table 3. Agents by constraint, at the length they were trained on; mean over runs, "
            "with Student's 95% interval over runs where there are two or more. A budget of none: "
            f"the agent is penalised, or free. Runs: {label_of(shown)}."
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


def _ends(over: OverRuns) -> tuple[float | None, ...]:
    return over.mean, over.low, over.high
