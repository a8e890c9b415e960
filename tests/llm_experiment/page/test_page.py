"""A page runs its own script and nothing else, whatever is in the data."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from llm_experiment.page.page import embeddable_json, page
from tests.llm_experiment.fakes.report_run import HOSTILE, page_data

ASSETS = files("llm_experiment.page") / "assets"
SCRIPTS = sorted(path.name for path in ASSETS.iterdir() if path.name.endswith(".js"))
ATTACKS = [*HOSTILE.values(), "<!--<script>", "]]>", "\ud800", "&lt;", "</SCRIPT/", "\x00\x7f\r\n"]


class Elements(HTMLParser):
    """The elements of a page: (name, attributes, text within)."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.found = []
        self.within = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])
        self.within = True

    def handle_endtag(self, tag):
        self.within = False

    def handle_data(self, data):
        if self.within:
            self.found[-1][2] += data

    def of(self, tag):
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


def elements(**data):
    return Elements(page({"title": "a title"} | data))


@pytest.mark.parametrize("text", ATTACKS)
def test_json_holds_any_text_and_no_character_that_html_reads(text):
    value = {text: [text, 1.5, None], "deep": {"er": text * 3}}
    embedded = embeddable_json(value)
    assert json.loads(embedded) == value
    assert not re.search("[<>&\u2028\u2029]|[^ -~]", embedded)


def test_json_has_no_number_that_a_browser_cannot_read():
    with pytest.raises(ValueError, match="JSON"):
        embeddable_json(float("nan"))


@pytest.mark.parametrize("text", ATTACKS[:3])
def test_hostile_text_changes_no_element_of_the_page(text):
    plain = elements(label="a label")
    hostile = elements(label=text, title=text)
    assert [name for name, _, _ in hostile.found] == [name for name, _, _ in plain.found]
    (_, data), (_, script) = hostile.of("script")
    assert json.loads(data) == {"label": text, "title": text}
    assert script == plain.of("script")[1][1]
    (_, title), *_ = hostile.of("title")
    assert title.replace("\x00", "\ufffd") == text.replace("\x00", "\ufffd")


def test_the_policy_allows_this_script_and_this_style_and_no_network():
    parsed = elements()
    (policy,) = (
        attributes["content"]
        for attributes, _ in parsed.of("meta")
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    for name, element in (("script-src", "script"), ("style-src", "style")):
        text = parsed.of(element)[-1][1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules.pop(name) == f"'sha256-{digest}'"
    assert rules == {"img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}


def test_the_page_names_no_other_file_and_handles_no_event_in_its_markup():
    for _, attributes, _ in elements().found:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert attributes.get("href", "data:,") == "data:,"
        assert "src" not in attributes


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_make_text_only_through_text_nodes(name):
    source = (ASSETS / name).read_text(encoding="utf-8")
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    assert not re.search(makers + "|DOMParser|createContextualFragment", source)
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|sendBeacon", source)
    assert "</" not in source
    assert "<!--" not in source


def test_every_script_is_on_the_page():
    text = page({"title": ""})
    for name in SCRIPTS:
        assert (ASSETS / name).read_text(encoding="utf-8") in text
    assert page_data(text) == {"title": ""}
