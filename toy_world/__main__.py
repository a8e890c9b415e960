"""`python -m toy_world`: run every demo, one after the other, and sum up what they found.

A demo is a module `toy_world.demo_<name>` that offers `DEMO`. Each runs with its defaults and
writes its JSON and figure; `findings.json` holds what all of them found. A demo that fails
does not stop the others; the exit code is then 2.
"""

import importlib
import pkgutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

import toy_world
from mightnt.command_line import fail, parse_command_line, run_command
from mightnt.results import check_writable, to_jsonable, write_json
from theory.errors import InvalidArgumentError, MightntError
from toy_world.demo import Demo, DemoOptions, DemoResult, print_findings, print_tables, write

PREFIX: Final = "demo_"
FINDINGS_FILE: Final = "findings.json"


def demo_names() -> tuple[str, ...]:
    """The names of all demos, in alphabetical order."""
    modules = (module.name for module in pkgutil.iter_modules(toy_world.__path__))
    return tuple(sorted(name.removeprefix(PREFIX) for name in modules if name.startswith(PREFIX)))


def load_demo(name: str) -> Demo[Any]:
    """The demo of module `toy_world.demo_<name>`."""
    demo: Demo[Any] = importlib.import_module(f"toy_world.{PREFIX}{name}").DEMO
    return demo


@dataclass(frozen=True, kw_only=True)
class Options(DemoOptions):
    """Run every demo with its defaults, and sum up what they found."""

    only: tuple[str, ...] = ()
    """Run these demos alone."""
    tables: bool = False
    """Print every table too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.only:
            if name not in demo_names():
                raise InvalidArgumentError(
                    f"--only must be among {', '.join(demo_names())}, got {name}"
                )


def run_all(options: Options) -> None:
    """Run the demos that `options` names, print and write.

    Raises:
        SystemExit: with code 2 after all, if a demo failed.
    """
    names = options.only or demo_names()
    check_writable(options.out / FINDINGS_FILE)
    progress = Console(stderr=True)
    console = Console()
    results: list[DemoResult[Any, Any]] = []
    failures: list[str] = []
    for k, name in enumerate(names, start=1):
        progress.print(f"{k}/{len(names)} {name} ...", markup=False)
        start = time.monotonic()
        try:
            results.append(_run_one(load_demo(name), options))
        except MightntError as error:
            failures.append(f"{name}: {error}")
        progress.print(f"{k}/{len(names)} {name}: {time.monotonic() - start:.0f} s", markup=False)
    found = [
        {"name": r.name, "statements": r.presentation.statements, "findings": r.findings}
        for r in results
    ]
    write_json(options.out / FINDINGS_FILE, found)
    if options.json:
        console.print_json(data=to_jsonable(found))
    else:
        for result in results:
            print_findings(result)
    if failures:
        fail("; ".join(failures))


def _run_one(demo: Demo[Any], options: Options) -> DemoResult[Any, Any]:
    result = demo.run(demo.options_type(out=options.out, seed=options.seed))
    write(result)
    if options.tables:
        print_tables(result)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""

    def run() -> None:
        run_all(parse_command_line(Options, argv, prog="python -m toy_world"))

    run_command(run)


if __name__ == "__main__":
    main()
