"""An audit's page runs its own script and nothing else, and shows the audit's numbers."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest

from llm_experiment.auditing.page import audit_page, page_data
from llm_experiment.auditing.prompts import PlainPrompt
from llm_experiment.auditing.settings import AuditSettings
from llm_experiment.auditing.summary import summarise
from tests.llm_experiment.auditing.found import BUDGETS, SCRIPTS, found_arrays
from tests.llm_experiment.fakes.report_run import HOSTILE

SCRIPT = (files("llm_experiment.auditing") / "assets" / "audit.js").read_text(encoding="utf-8")
PROMPTS = tuple(PlainPrompt(line=i, text="", follow_up="") for i in (1, 2, 4))


@pytest.fixture(scope="module")
def arrays():
    return found_arrays()


def spelt(tokens):
    return [f"<{token}>" for token in tokens]


def summary_of(arrays, *, spelt=spelt):
    return summarise(
        arrays, PROMPTS, scripts=SCRIPTS, patterns=("blank",), budgets_nats=BUDGETS, likely=0.5,
        spelt=spelt,
    )  # fmt: skip


def settings(**options):
    return AuditSettings(base_model="base", prompts="prompts.jsonl", **options)


class Data(HTMLParser):
    """The JSON of a page, and the names of its elements."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.data, self.inside = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.inside = dict(attrs).get("id") == "run-data"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        self.data += data if self.inside else ""


def test_the_page_holds_the_audits_numbers(arrays):
    summary = summary_of(arrays)
    page = Data(audit_page(summary, arrays, PROMPTS, settings(policy="tuned"), spelt=spelt))
    data = json.loads(page.data)
    assert data["label"] == "tuned against base, 3 prompts"
    assert data["policy"]["by_prompt_nats"] == list(summary.divergence.by_prompt_nats)
    nats = [answer["nats"] for answer in data["policy"]["answers"]]
    assert nats == sorted(np.nansum(arrays["kl_nats"], axis=1), reverse=True)
    costliest = data["policy"]["answers"][0]
    assert sum(costliest["kl_nats"]) == pytest.approx(costliest["nats"])
    assert len(costliest["texts"]) == len(costliest["kl_nats"])
    names = [curve["name"] for curve in data["bought"]["curves"]]
    assert set(names) == {"cheap", "dear", "blank"}
    assert all(0 <= s <= 1 for curve in data["bought"]["curves"] for s in curve["shares"])


def test_without_a_policy_the_page_says_so(arrays):
    alone = {name: array for name, array in arrays.items() if name.endswith(("base", "base_nats"))}
    data = page_data(summary_of(alone), alone, PROMPTS, settings(), spelt=spelt)
    assert data["policy"] is None
    assert data["label"] == "base, 3 prompts"


@pytest.mark.parametrize("text", HOSTILE.values())
def test_hostile_text_changes_no_element_of_the_page(arrays, text):
    plain = Data(audit_page(summary_of(arrays), arrays, PROMPTS, settings(), spelt=spelt))
    hostile = audit_page(
        summary_of(arrays, spelt=lambda tokens: [text] * len(tokens)),
        arrays,
        PROMPTS,
        settings(policy=text),
        spelt=lambda tokens: [text] * len(tokens),
    )
    assert Data(hostile).elements == plain.elements
    assert text in json.loads(Data(hostile).data)["policy"]["answers"][0]["texts"]


def test_the_script_makes_text_only_through_text_nodes():
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    assert not re.search(makers + r"|fetch\(|XMLHttpRequest|import\(|</|<!--", SCRIPT)
