"""`python -m tests.benchmarks [--only NAME]`: run every benchmark, or one.

A benchmark is a module `bench_<name>.py` of this folder whose `main()` measures and prints.
"""

import importlib
import pkgutil
from dataclasses import dataclass

import tests.benchmarks
from mightnt.command_line import parse_command_line, run_command
from theory.errors import InvalidArgumentError

PREFIX = "bench_"


def benchmark_names() -> tuple[str, ...]:
    """The names of all benchmarks."""
    modules = pkgutil.iter_modules(tests.benchmarks.__path__)
    return tuple(
        sorted(module.name[len(PREFIX) :] for module in modules if module.name.startswith(PREFIX))
    )


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Measure this project's speed; every figure is the best of several repetitions."""

    only: str | None = None
    """Run this benchmark alone."""

    def __post_init__(self) -> None:
        if self.only is not None and self.only not in benchmark_names():
            raise InvalidArgumentError(
                f"--only must be one of {', '.join(benchmark_names())}, got {self.only}"
            )


def main() -> None:
    """Run the benchmarks that the command line names."""
    options = parse_command_line(BenchmarkOptions, prog="python -m tests.benchmarks")
    for name in (options.only,) if options.only else benchmark_names():
        importlib.import_module(f"tests.benchmarks.{PREFIX}{name}").main()


if __name__ == "__main__":
    run_command(main)
