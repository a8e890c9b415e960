"""What documents say that can be checked: their code, their commands, and the names they mention.

A document's fenced blocks say by their language what they are:

- `python`: code, in one namespace a document. One that begins with the name of a file, `# it.py`,
  is that file, too: it is saved there. `pycon`: an interactive session, run as a doctest.
- `console`: commands. They are parsed, so that their options and values exist; those of a block
  after a line `<!-- run -->` are started too.
- `text`: output. Where it comes right after one of the others that is run, it is what that prints;
  `...` stands for whatever is left out.
"""

import importlib
import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import tyro

from llm_experiment.plug_in import Kind
from mightnt.command_line import TYRO_CONFIG
from mightnt.commands import COMMANDS, DEMO, Command, demos

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("mightnt", "theory", "toy_world", "llm_experiment", "proofs_check", "paper_figures")
LANGUAGES = {"python", "pycon", "console", "text", "json", "bibtex"}
RUN = "<!-- run -->"
"""Stands before a block of commands that the tests start; of others they check the options."""
_FILE = re.compile(r"# (?P<name>\w+\.py)\n")
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.S | re.M
)
_OPTION = re.compile(r"(?<![\w-])--(?P<name>[a-z][\w.-]*\w)")
_CODE = re.compile(r"`(?P<code>[^`\n]+)`")
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_ELSEWHERE = re.compile(r"\w+:|api/")
_DOTTED = re.compile(rf"\b(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+\b")
_PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)}|tests|docs)/(?>[\w./*-]*)(?!<)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a document.

    Attributes:
        path: of the document.
        line: of the block's fence, counted from 1.
        language: after the fence; may be empty.
        code: what is in it.
        runs: whether it is started or executed.
        output: what it prints, if that stands right after it.
    """

    path: Path
    line: int
    language: str
    code: str
    runs: bool
    output: str | None

    @property
    def file(self):
        """The name of the file that it is, if it is one."""
        named = _FILE.match(self.code) if self.language == "python" else None
        return None if named is None else named["name"]

    def __str__(self):
        return f"{self.path.relative_to(REPOSITORY)}:{self.line}"


def documents():
    """Every document that a user reads."""
    return [
        REPOSITORY / "README.md",
        *sorted((REPOSITORY / "docs").rglob("*.md")),
    ]


def blocks(path) -> Iterator[Block]:
    """The fenced blocks of a document."""
    text = path.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        language = found["language"]
        following = _FENCE.search(text, found.end())
        output = None
        if following is not None and following["language"] == "text":
            between = text[found.end() : following.start()]
            output = _code(following) if not between.strip() else None
        yield Block(
            path=path,
            line=text.count("\n", 0, found.start()) + 1,
            language=language,
            code=_code(found),
            runs=language in {"python", "pycon"} or text[: found.start()].rstrip().endswith(RUN),
            output=output,
        )


def _code(fence):
    """The content of a fenced block, without the indentation of its fence."""
    lines = fence["code"].splitlines(keepends=True)
    return "".join(line.removeprefix(fence["indent"]) for line in lines)


def command_lines(code) -> Iterator[list[str]]:
    """The commands in a block of shell lines, as words without comments."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"\w+=\S*", words[0]):
            del words[0]
        if words:
            yield words


def command_of(words) -> tuple[Command, list[str]] | None:
    """The command of this project that a line of words starts, and its options."""
    match words:
        case [("python" | ".venv/bin/python"), "-m", module, *rest]:
            every = [*COMMANDS.values(), *demos().values()]
            known = next((command for command in every if command.module == module), None)
            return None if known is None else (known, rest)
        case ["mightnt", name, *rest] if name == DEMO and rest:
            return demos()[rest[0]], rest[1:]
        case ["mightnt", name, *rest] if name in COMMANDS:
            return COMMANDS[name], rest
    return None


def parse(command, argv):
    """The options of a command from its words, by its own parser where it has one.

    Raises:
        SystemExit: an option or a value that does not exist.
    """
    own = getattr(importlib.import_module(command.module), "parse_options", None)
    if own is not None:
        return own(argv)
    return tyro.cli(command.options_type(), args=argv, prog="x", config=TYRO_CONFIG)


def options_of(command) -> set[str]:
    """Every option of a command, as it is typed: what completes it in a shell lists them."""
    with redirect_stdout(io.StringIO()) as script, suppress(SystemExit):
        tyro.cli(
            command.options_type(), args=["--tyro-print-completion", "bash"], config=TYRO_CONFIG
        )
    return set(re.findall(r"'(--[a-z][\w.-]*)'", script.getvalue()))


def named_options(text) -> set[str]:
    """The options that a text names."""
    return {f"--{found['name']}" for found in _OPTION.finditer(text)}


def links(path) -> list[str]:
    """The files that a document links to, as it writes them; the API's are made with the site."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    targets = [found["target"].partition("#")[0] for found in _LINK.finditer(text)]
    return [target for target in targets if target and not _ELSEWHERE.match(target)]


def spans(path) -> str:
    """What a document writes as code within its sentences, a line each."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    return "\n".join(found["code"] for found in _CODE.finditer(text))


def absent_names(text) -> set[str]:
    """The modules, names and files of this project that a text mentions and that do not exist.

    `toy_world.demo_` and `toy_world/demo_*.py` stand for any such name or file, and nothing is said
    of what holds a placeholder in angle brackets. Groups of entry points are no names of Python.
    """
    names = {found[0] for found in _DOTTED.finditer(text)} - {kind.value for kind in Kind}
    paths = {found[0].rstrip(".") for found in _PATH.finditer(text)}
    return {name for name in names if not name.endswith("_") and not _defined(name)} | {
        path for path in paths if not any(REPOSITORY.glob(path))
    }


def _defined(name) -> bool:
    """Whether a dotted name is a module, or stands in the module that it begins with."""
    folder, rest = REPOSITORY, name.split(".")
    while rest and (folder / rest[0]).is_dir():
        folder = folder / rest.pop(0)
    module = folder / "__init__.py"
    if rest and (folder / f"{rest[0]}.py").is_file():
        module = folder / f"{rest.pop(0)}.py"
    source = module.read_text(encoding="utf-8")
    return all(re.search(rf"\b{part}\b", source) for part in rest)
