"""What documents say that can be checked: their code, the commands and the options they name."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from mightnt.commands import COMMANDS, DEMO, Command, demos

REPOSITORY = Path(__file__).parents[1]
RUN = "<!-- run -->"
"""Stands before a block of commands that the tests start; of others they check the options."""
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.S | re.M
)
_OPTION = re.compile(r"(?<![\w-])--(?P<name>[a-z][\w.-]*\w)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a document.

    Attributes:
        path: of the document.
        line: of the block's fence, counted from 1.
        language: after the fence; may be empty.
        code: what is in it.
        runs: whether it is marked to be started.
    """

    path: Path
    line: int
    language: str
    code: str
    runs: bool

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
        indent = found["indent"]
        code = "".join(
            line.removeprefix(indent) for line in found["code"].splitlines(keepends=True)
        )
        before = text[: found.start()].rstrip()
        yield Block(
            path=path,
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            code=code,
            runs=before.endswith(RUN),
        )


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


def options_of(command) -> set[str]:
    """Every option of a command, as it is typed."""
    parser = tyro.extras.get_parser(
        command.options_type(),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.EnumChoicesFromValues),
    )
    return {option for option in parser._option_string_actions if option.startswith("--")}


def named_options(text) -> set[str]:
    """The options that a text names."""
    return {f"--{found['name']}" for found in _OPTION.finditer(text)}
