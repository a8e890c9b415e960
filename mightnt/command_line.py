"""Command lines from frozen dataclasses: field docs are the help, errors are one line.

A command is `main(argv)` wrapped by `run_command`: a bad option or an error of this project
prints one line that says what to do and exits with 2, Ctrl-C exits with 130.
"""

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeVar

import tyro

from theory.errors import MightntError

BAD_USAGE: Final = 2
INTERRUPTED: Final = 130

ConfigT = TypeVar("ConfigT")


def parse_command_line(
    config_type: type[ConfigT],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    default: ConfigT | None = None,
) -> ConfigT:
    """A validated `config_type` from the command line.

    Args:
        config_type: a dataclass; its docstring and field docs become `--help`, and what its
            `__post_init__` raises becomes the one-line error.
        argv: the options, `sys.argv[1:]` by default.
        prog: the command as a person types it, e.g. `python -m toy_world.demo_theorem1`.
        default: what options that are left out come from; the fields' own defaults if None.

    Enums are given by their values.

    Raises:
        SystemExit: with code 2 after one line on stderr, or 0 after `--help`.
    """
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            return tyro.cli(
                config_type,
                args=argv,
                prog=prog,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.EnumChoicesFromValues),
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        fail(f"{_first_paragraph(captured.getvalue())} (options: {prog} --help)")


def run_command(main: Callable[[], None]) -> None:
    """Run `main`, turning this project's errors into one line and exit code 2."""
    try:
        main()
    except MightntError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def fail(message: str) -> NoReturn:
    """Print `message` as one line on stderr and exit with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_USAGE)


def _first_paragraph(box: str) -> str:
    """The text of tyro's error box up to its first rule, without the box."""
    lines = []
    for line in box.splitlines()[1:]:
        text = line.strip("│╭╮╰╯ ")
        if not text.strip("─"):
            break
        lines.append(text)
    return " ".join(lines)
