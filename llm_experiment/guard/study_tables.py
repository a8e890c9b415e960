"""A hard budget beside a penalty: the table and the figure."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_experiment.guard.study import Outcome
from mightnt.figure_style import COLUMN_INCHES, figure_style, new_figure, save_figure
from mightnt.statistics import normal_interval
from mightnt.tables import Column, Evidence, Table


def every_number(outcomes: Sequence[Outcome]) -> Table:
    """All numbers of every training, for programs."""
    records = [_record(outcome) for outcome in outcomes]
    return Table.of_records(
        records,
        title="Trainings",
        columns=tuple(Column(header=name) for name in records[0]),
        name="trainings",
    )


def _record(outcome: Outcome) -> dict[str, Any]:
    """The numbers of one training, by name."""
    interval = normal_interval(outcome.returns)
    ordered = sorted(outcome.kl_nats)
    return {
        "constraint": outcome.constraint.name,
        "budget_nats": outcome.constraint.budget_nats,
        "beta": outcome.constraint.beta if outcome.constraint.budget_nats is None else None,
        "return": outcome.mean_return,
        "return_low": interval.low,
        "return_high": interval.high,
        "kl_nats": outcome.mean_kl_nats,
        "kl_nats_95": ordered[math.ceil(0.95 * len(ordered)) - 1],
        "kl_nats_most": ordered[-1],
        "kl_nats_most_in_training": outcome.most_in_training_nats,
        "n_in_training": outcome.n_in_training,
    }


def to_table(outcomes: tuple[Outcome, ...]) -> Table:
    """Return against KL, a row a training."""
    columns = (
        Column(header="constraint"),
        _number("return", "return"),
        _number("95% from", "return_low"),
        _number("95% to", "return_high"),
        _number("KL\n(nats)", "kl_nats"),
        _number("95th\npercentile", "kl_nats_95"),
        _number("most", "kl_nats_most"),
        _number("most in\ntraining", "kl_nats_most_in_training"),
    )
    records = [_record(outcome) for outcome in outcomes]
    shown = [{column.name: record[column.name] for column in columns} for record in records]
    n = len(outcomes[0].returns) if outcomes else 0
    return Table.of_records(
        shown,
        title="A hard budget and trl's penalty on one reward",
        columns=columns,
        notes=(
            f"Return: words of praise in a turn, over {n} held-out turns. KL: of a turn's law to "
            "the reference's, summed over its steps.",
            "budget-B: at most B nats a turn, on every path. beta-b: trl's penalty.",
        ),
        name="guard_trl",
    )


def plot(outcomes: tuple[Outcome, ...], stem: Path) -> tuple[Path, Path]:
    """Draw return against KL, with the dearest sequence of each training.

    Returns:
        The PNG and the PDF.
    """
    kinds = {
        "hard budget": [o for o in outcomes if o.constraint.budget_nats is not None],
        "trl's penalty": [o for o in outcomes if o.constraint.budget_nats is None],
    }
    with figure_style():
        figure = new_figure(width_inches=1.6 * COLUMN_INCHES, height_inches=3.2)
        axes: Any = figure.subplots()
        # Names stand above the points of one kind and below those of the other: points may be near.
        looks = (("o", (3, 4), "bottom"), ("s", (3, -4), "top"))
        for (name, group), (marker, place, side) in zip(kinds.items(), looks, strict=True):
            means = [o.mean_kl_nats for o in group]
            returns = [o.mean_return for o in group]
            up = [o.most_nats - o.mean_kl_nats for o in group]
            none = [0.0] * len(group)
            axes.errorbar(means, returns, xerr=[none, up], fmt=marker, capsize=3, label=name)
            for outcome, x, y in zip(group, means, returns, strict=True):
                axes.annotate(
                    outcome.constraint.name,
                    (x, y),
                    xytext=place,
                    textcoords="offset points",
                    va=side,
                )
        axes.set_xscale("log")
        axes.margins(y=0.15)  # for the names
        axes.set_xlabel("KL of a turn (nats): mean, and the dearest turn")
        axes.set_ylabel("return")
        axes.legend(loc="upper left")
        return save_figure(figure, stem)


def _number(header: str, key: str) -> Column:
    return Column(header=header, key=key, evidence=Evidence.MONTE_CARLO, format=".2f")
