"""How long every command takes to say what it takes: `--help`, as a multiple of `import numpy`.

Processor seconds of whole processes, user and system, the least of several.
"""

import resource
import subprocess
import sys

from rich.console import Console

from mightnt.commands import COMMANDS, demos
from mightnt.tables import Column, Evidence, Table, print_table

REPEATS = 7
GOAL = 4.0
"""At most so many times the processor time of `python -c "import numpy"`."""


def processor_seconds(*arguments: str) -> float:
    """The least processor time of several runs of Python with `arguments`."""
    times = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def main() -> None:
    """Measure and print."""
    commands = {**COMMANDS, **demos()}
    numpy = processor_seconds("-c", "import numpy")
    rows = []
    for command in (None, *commands.values()):
        words = ("-m", "mightnt" if command is None else command.module, "--help")
        seconds = processor_seconds(*words)
        rows.append(
            (
                f"python {' '.join(words)}",
                seconds,
                seconds / numpy,
                "" if seconds <= GOAL * numpy else "missed",
            )
        )
    table = Table(
        title=f'Start-up: `--help` against `python -c "import numpy"` ({numpy:.3f} s)',
        columns=(
            Column(header="command"),
            Column(header="processor seconds", evidence=Evidence.FLOAT, format=".2f"),
            Column(header=f"ratio (goal: at most {GOAL:g})", evidence=Evidence.FLOAT, format=".1f"),
            Column(header="goal"),
        ),
        rows=tuple(rows),
    )
    print_table(table, Console())


if __name__ == "__main__":
    main()
