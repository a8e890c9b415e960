"""A report's page: one file that runs its own script, and nothing else, without a network.

Text in a run (transcripts above all) is written by models and is not trusted. Three fences stand
between it and the reader's browser. It enters the page only as JSON within a data block, written so
that no character of it can end the block. The script puts it on the page only as text nodes. And a
Content-Security-Policy lets nothing run but the script with the given hash, and nothing load.

What only some transcript needs, its packed arrays, is not in the JSON, which would have to be read
whole before anything is drawn, but in data blocks of their own behind the script, in base 64: the
browser draws the rest before it has even seen them, and decodes only those that are looked at.
"""

import base64
import copy
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any, Final

_ASSETS: Final = files("llm_experiment.page") / "assets"
_SHARED: Final = ("data.js", "charts.js", "summary.js", "transcripts.js")
_PACKED: Final = ("packed", "budget_quartiles")
_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def page(data: dict[str, Any]) -> str:
    """The page that shows `llm_experiment.page.data.report_data`."""
    shown, blocks = _set_apart(data)
    template, script = _read("page.html"), _read("main.js")
    return filled_page(shown, template=template, script=script, blocks=blocks)


def _set_apart(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The data with the number of a block in place of everything packed, and the blocks."""
    shown = copy.deepcopy(data)
    blocks: list[str] = []
    for subject in shown.get("subjects", ()):
        for evaluation in subject["evaluations"]:
            for name in _PACKED:
                if evaluation[name] is not None:
                    blocks.append(evaluation[name])
                    evaluation[name] = len(blocks) - 1
    return shown, blocks


def filled_page(
    data: dict[str, Any], *, template: str, script: str, blocks: Sequence[str] = ()
) -> str:
    """A page of one file.

    Args:
        data: what it shows, as its script takes it; `title` among it.
        template: its HTML, with a place for each of policy, title, style, data and script, and one
            for blocks if there are any.
        script: its own, after those that all pages share.
        blocks: further data, in base 64, that the script takes by their numbers.
    """
    scripts = "\n".join([*map(_read, _SHARED), script])
    style = _read("page.css")
    return Template(template).substitute(
        policy=html.escape(_policy(script=scripts, style=style)),
        title=html.escape(str(data["title"])),
        style=style,
        data=embeddable_json(data),
        script=scripts,
        blocks="\n".join(f'<script type="text/plain" class="packed">{b}</script>' for b in blocks),
    )


def embeddable_json(value: Any) -> str:
    r"""JSON that may stand inside `<script>`: `<`, `>`, `&` and all but ASCII as `\uXXXX`."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _policy(*, script: str, style: str) -> str:
    """A Content-Security-Policy: this script, this style, an icon within the page; else nothing."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_source_hash(script)}'",
            f"style-src '{_source_hash(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
