"""`mightnt`, or `python -m mightnt`: every command of this project under one name.

mightnt run --quick               as python -m llm_experiment.run --quick
mightnt demo theorem1             as python -m toy_world.demo_theorem1
mightnt completion bash           what completes all of this in a shell
"""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from typing import Annotated, Any, Final, Union

from mightnt import __version__
from mightnt.command_line import fail
from mightnt.commands import COMMANDS, DEMO, Command, demos

PROG: Final = "mightnt"
COMPLETION: Final = "completion"
SHELLS: Final = ("bash", "zsh", "tcsh")
_HELP: Final = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> None:
    """Start the command that the first words name, with the others as its options."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in _HELP:
        print(help_text())
        return
    name, *rest = words
    if name == "--version":
        print(f"{PROG} {__version__}")
    elif name == COMPLETION:
        _print_completion(rest)
    elif name == DEMO:
        if not rest or rest[0] in _HELP:
            print(f"usage: {PROG} {DEMO} NAME [OPTIONS]\n\ndemos: {', '.join(demos())}")
            return
        _chosen(rest[0], demos(), f"{PROG} {DEMO}").load()(rest[1:])
    else:
        _chosen(name, COMMANDS, PROG).load()(rest)


def help_text() -> str:
    """What there is, a line a command."""
    lines = {name: command.summary for name, command in COMMANDS.items()}
    lines |= {
        f"{DEMO} NAME": f"run one demo ({PROG} {DEMO} lists them)",
        f"{COMPLETION} SHELL": f"print what completes commands in a shell: {', '.join(SHELLS)}",
    }
    width = max(map(len, lines))
    return "\n".join(
        [
            f"usage: {PROG} COMMAND [OPTIONS]      ({PROG} COMMAND --help lists the options)",
            "",
            "When does a KL constraint to an imitation of a trusted policy fail to constrain?",
            "",
            *(f"  {name:{width}}  {summary}" for name, summary in lines.items()),
        ]
    )


def _chosen(name: str, there: Mapping[str, Command], prog: str) -> Command:
    """The command called `name`; one line and exit code 2 if there is none."""
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1)
        proposal = f"; perhaps you meant {near[0]}" if near else f"; there are {', '.join(there)}"
        fail(f"{prog} has no command {name!r}{proposal} (commands: {PROG} --help)")
    return there[name]


def _print_completion(words: Sequence[str]) -> None:
    """Print the completion script of a shell, all options of all commands in it."""
    if len(words) != 1 or words[0] not in SHELLS:
        fail(f"{COMPLETION} takes one of {', '.join(SHELLS)}, got {' '.join(words) or 'nothing'}")
    import tyro  # noqa: PLC0415 - only this needs all commands at once

    tyro.cli(_union(), prog=PROG, args=["--tyro-print-completion", words[0]])


def _union() -> Any:
    """One type whose values are the options of any command."""
    import tyro  # noqa: PLC0415

    def either(commands: Mapping[str, Any]) -> Any:
        members = tuple(
            Annotated[kind, tyro.conf.subcommand(name=name)] for name, kind in commands.items()
        )
        return Union[members]  # noqa: UP007 - as many as there are

    of_demos = {name: command.options_type() for name, command in demos().items()}
    demo = make_dataclass(
        "Demo", [("options", Annotated[either(of_demos), tyro.conf.arg(name="")])]
    )
    return either(
        {name: command.options_type() for name, command in COMMANDS.items()} | {DEMO: demo}
    )


if __name__ == "__main__":
    main()
