"""A report's page: one file that runs its own script, and nothing else, without a network.

Text in a run (transcripts above all) is written by models and is not trusted. Three fences stand
between it and the reader's browser. It enters the page only as JSON within a data block, written so
that no character of it can end the block. The script puts it on the page only as text nodes. And a
Content-Security-Policy lets nothing run but the script with the given hash, and nothing load.
"""

import base64
import hashlib
import html
import json
from importlib.resources import files
from string import Template
from typing import Any, Final

_ASSETS: Final = files("llm_experiment.page") / "assets"
_SHARED: Final = ("data.js", "charts.js", "summary.js", "transcripts.js")
_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def page(data: dict[str, Any]) -> str:
    """The page that shows `llm_experiment.page.data.report_data`."""
    return filled_page(data, template=_read("page.html"), script=_read("main.js"))


def filled_page(data: dict[str, Any], *, template: str, script: str) -> str:
    """A page of one file.

    Args:
        data: what it shows, as its script takes it; `title` among it.
        template: its HTML, with a place for each of policy, title, style, data and script.
        script: its own, after those that all pages share.
    """
    scripts = "\n".join([*map(_read, _SHARED), script])
    style = _read("page.css")
    return Template(template).substitute(
        policy=html.escape(_policy(script=scripts, style=style)),
        title=html.escape(str(data["title"])),
        style=style,
        data=embeddable_json(data),
        script=scripts,
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
