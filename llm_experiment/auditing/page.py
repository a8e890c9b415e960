"""An audit as one page to look at, by the machinery of the report (`llm_experiment.page.page`).

The keys of its data, which `assets/audit.js` reads:

    label, title, facts, tables, about, settings, caveats
              the summary, as the report's
    subjects  none; what the scripts of all pages ask for
    bought    `log_budgets`, to base 10, and `curves`, each with a `name` and `shares`
    policy    null without one; else `by_prompt_nats`, `curve_nats`, and `answers`: the costliest,
              each with its `line`, `nats`, `texts`, `kl_nats` and `log_ratio_nats`
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from llm_experiment.auditing.budgets import largest_shares
from llm_experiment.auditing.figure import budget_grid, drawn_behaviours
from llm_experiment.auditing.prompts import Prompt
from llm_experiment.auditing.settings import AuditSettings
from llm_experiment.auditing.summary import AuditSummary, DivergenceSummary
from llm_experiment.auditing.tables import all_tables
from llm_experiment.page.page import filled_page
from mightnt.results import to_jsonable
from mightnt.tables import Table

Arrays = Mapping[str, NDArray[Any]]

N_ANSWERS: Final = 16
"""Answers that are shown."""
_HALF: Final = 0.5
_ASSETS: Final = files("llm_experiment.auditing") / "assets"


def audit_page(
    summary: AuditSummary,
    arrays: Arrays,
    prompts: Sequence[Prompt],
    settings: AuditSettings,
    *,
    spelt: Callable[[Sequence[int]], list[str]],
) -> str:
    """The page of an audit.

    Args:
        summary: what was found.
        arrays: of all prompts.
        prompts: in their order.
        settings: of the audit.
        spelt: the text of every token of an answer.
    """
    data = page_data(summary, arrays, prompts, settings, spelt=spelt)
    template, script = (
        (_ASSETS / name).read_text(encoding="utf-8") for name in ("audit.html", "audit.js")
    )
    return filled_page(data, template=template, script=script)


def page_data(
    summary: AuditSummary,
    arrays: Arrays,
    prompts: Sequence[Prompt],
    settings: AuditSettings,
    *,
    spelt: Callable[[Sequence[int]], list[str]],
) -> dict[str, Any]:
    """What the page shows; see the module's docstring, and `audit_page` for the arguments."""
    grid = budget_grid(summary)
    found = summary.divergence
    subject = settings.policy or settings.base_model
    label = f"{subject} against {settings.base_model}" if found else settings.base_model
    return {
        "label": f"{label}, {summary.n_prompts} prompts",
        "title": f"{label} · mightnt",
        "facts": list(_facts(summary)),
        "tables": [_table(table) for table in all_tables(summary)],
        "about": [
            ["Base model", settings.base_model],
            ["Policy", settings.policy or "none"],
            ["Prompts", f"{settings.prompts}, {summary.n_prompts} of them"],
            ["Precision", f"{settings.dtype.value} on {settings.device}; KL in float64"],
        ],
        "settings": json.dumps(to_jsonable(settings), indent=2),
        "caveats": list(_caveats(settings)),
        "subjects": [],
        "bought": {
            "log_budgets": [math.log10(nats) for nats in grid],
            "curves": [
                {
                    "name": b.name,
                    "shares": largest_shares(b.prices_nats[0].median, grid).tolist(),
                }
                for b in drawn_behaviours(summary)
            ],
        },
        "policy": None if found is None else _policy(found, arrays, prompts, spelt),
    }


def _facts(summary: AuditSummary) -> Iterator[dict[str, str]]:
    found = summary.divergence
    if found is not None:
        most, total = found.over_prompts.most or 0.0, found.mean_nats
        yield {
            "value": f"{found.mean_nats:.3g} nats",
            "meaning": "KL of an answer of the policy",
            "note": f"mean over {found.n_answers} answers; most at a prompt: {most:.3g}",
        }
        n, share = next(each for each in found.first_shares if each[1] >= _HALF or not total)
        yield {
            "value": f"{share:.0%}",
            "meaning": f"of it in the first {n} tokens" if n > 1 else "of it in the first token",
            "note": f"answers have {found.answer_tokens:.0f} tokens in the mean",
        }
    cheapest = drawn_behaviours(summary)[:1]
    for b in cheapest:
        yield {
            "value": f"{b.prices_nats[0].median:.3g} nats",
            "meaning": f"median price of the cheapest behaviour: {b.name}",
            "note": f"likely ({summary.likely:.0%}) from {b.likely_nats.median:.3g} nats on",
        }


def _caveats(settings: AuditSettings) -> Iterator[str]:
    yield (
        "The price of a script is that of one sequence of tokens. Other ways to say the same, or "
        "the same text in other tokens, make the behaviour cheaper, never dearer."
    )
    yield (
        "What a budget buys is for one answer, with a budget that holds at every prompt. A budget "
        "that only holds in the mean over prompts can be spent on a few of them."
    )
    yield (
        f"Answers are cut after {settings.n_tokens} tokens, and drawn at temperature 1. What a "
        "policy does when it is sampled otherwise is another policy."
    )


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "columns": [" ".join(column.header.split()) for column in table.columns],
        "rows": [list(row) for row in table.texts],
        "notes": list(table.notes),
    }


def _policy(
    found: DivergenceSummary,
    arrays: Arrays,
    prompts: Sequence[Prompt],
    spelt: Callable[[Sequence[int]], list[str]],
) -> dict[str, Any]:
    nats = np.nansum(arrays["kl_nats"], axis=1)
    n_samples = len(nats) // len(prompts)
    answers = []
    for row in np.argsort(-nats, kind="stable")[:N_ANSWERS].tolist():
        tokens = arrays["answers"][row]
        tokens = tokens[tokens >= 0]
        steps = slice(0, len(tokens))
        answers.append(
            {
                "line": prompts[row // n_samples].line,
                "nats": float(nats[row]),
                "texts": spelt(tokens.tolist()),
                "kl_nats": arrays["kl_nats"][row, steps].tolist(),
                "log_ratio_nats": arrays["drawn_nats"][0, row, steps].tolist(),
            }
        )
    return {
        "by_prompt_nats": list(found.by_prompt_nats),
        "curve_nats": list(found.curve_nats),
        "answers": answers,
    }
