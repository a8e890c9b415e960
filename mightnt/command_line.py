"""Command lines from frozen dataclasses: field docs are the help, errors are one line.

A command is `main(argv)` wrapped by `run_command`: a bad option or an error of this project
prints one line that says what to do and exits with 2, Ctrl-C exits with 130. What a command prints
never stops it: it goes on when nobody reads its output any more (`| head -1`), and characters that
the terminal does not have become `?`.
"""

import contextlib
import difflib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TextIO, TypeVar, cast

import tyro

from mightnt.compiling import compilation_shown
from theory.errors import MightntError

BAD_USAGE: Final = 2
INTERRUPTED: Final = 130

EXPERIMENT_LIBRARIES: Final = (
    "gymnasium",
    "jinja2",
    "psutil",
    "regex",
    "safetensors",
    "stable_baselines3",
    "tensorboard",
    "tokenizers",
    "torch",
    "transformers",
)
"""What the extra `experiment` brings, by the names of its modules."""
TYRO_CONFIG: Final = (tyro.conf.FlagCreatePairsOff, tyro.conf.EnumChoicesFromValues)
"""How every dataclass becomes options: plain flags, enums by their values."""
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

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
    words = sys.argv[1:] if argv is None else argv

    def parse(words: Sequence[str]) -> ConfigT:
        return tyro.cli(
            config_type,
            args=words,
            prog=prog,
            default=tyro.MISSING_NONPROP if default is None else default,
            config=TYRO_CONFIG,
        )

    try:
        with contextlib.redirect_stderr(captured):
            return parse(words)
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        said = _sentence(captured.getvalue())
        # tyro speaks of what is missing first, and not of the misspelt word that was to be it.
        if said.startswith("Missing from"):
            said = _misspelt(words, lambda: parse(["--help"])) or said
        fail(f"{said} (options: {prog} --help)")


def _misspelt(words: Sequence[str], show_help: Callable[[], object]) -> str:
    """What to say of options that there are not; nothing if all exist."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        show_help()
    known = sorted({*re.findall(r"--[a-z][\w.-]*", _ANSI.sub("", shown.getvalue()))})
    given = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    unknown = [name for name in given if name not in known]
    near = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1)]
    said = f"Unrecognized options: {', '.join(unknown)}" if unknown else ""
    return f"{said}; perhaps you meant {' or '.join(near)}" if near else said


def run_command(main: Callable[[], None]) -> None:
    """Run `main`, turning this project's errors into one line and exit code 2."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see `mightnt`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    shown = [_Shown(stream) for stream in (sys.stdout, sys.stderr)]
    out, err = (cast(TextIO, stream) for stream in shown)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with compilation_shown():
                main()
        except MightntError as error:
            fail(str(error))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in EXPERIMENT_LIBRARIES:
                raise
            fail(f"this needs {error.name}; install it with: pip install 'mightnt[experiment]'")
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            asked_for = _first_sentences(error) or "none is left"
            fail(f"not enough memory: {asked_for}; ask for less at a time")
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)
        finally:
            for stream in shown:
                stream.flush()
        if shown[0].failure is not None:
            fail(f"cannot print: {shown[0].failure}; everything else is done")


def _lacks_memory(error: Exception) -> bool:
    """Whether Python, or torch (which may not be here), found no memory, on a GPU or elsewhere."""
    of_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return of_torch or isinstance(error, MemoryError)


def _first_sentences(error: Exception) -> str:
    """What was asked for, without torch's advice and addresses."""
    line = str(error).strip().partition("\n")[0]
    said = line[max(line.find("DefaultCPUAllocator"), 0) :].split(". ")
    return ". ".join(said[:2]).rstrip(".")


class _Shown:
    """A stream that a command prints to, which takes whatever it is given.

    Args:
        stream: to print to; None if there is none.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.failure: str | None = None
        """Why nothing can be printed any more, unless nobody reads it."""

    def write(self, text: str) -> int:
        """Print as much of it as the stream takes."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        printable = text.encode(encoding, errors="replace").decode(encoding)
        self._try(lambda stream: stream.write(printable))
        return len(text)

    def flush(self) -> None:
        """Print what was written."""
        self._try(lambda stream: stream.flush())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, action: Callable[[TextIO], object]) -> None:
        if self._stream is None:
            return
        try:
            action(self._stream)
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self.failure = error.strerror or str(error)
            # What the stream holds back would fail again when Python closes it.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def fail(message: str) -> NoReturn:
    """Print `message` as one line on stderr and exit with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_USAGE)


def _sentence(box: str) -> str:
    """What tyro's error box says first, and what it proposes instead; plain text on one line.

    On a terminal the box is drawn with colours, which `NO_COLOR` does not turn off.
    """
    lines = [line.strip("│╭╮╰╯ ") for line in _ANSI.sub("", box).splitlines()[1:]]
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip("─-"):  # the latter where the locale has no rules
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    said = " ".join(next(filter(None, paragraphs), []))
    proposed = [
        line.split()[0].rstrip(",")
        for paragraph in paragraphs
        if paragraph[:1] == ["Perhaps you meant:"]
        for line in paragraph[1:]
        if line.startswith("--")
    ]
    return f"{said}; perhaps you meant {' or '.join(proposed)}" if proposed else said
