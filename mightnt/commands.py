"""Every command of this project, by its short name: what `mightnt` and the tests go through.

A command is a module with `main(argv)` and `Options`, a dataclass of what it takes; a demo is a
module with both in its `DEMO`. It is started as `python -m <module>` or as `mightnt <name>`. Its
module imports next to nothing: a command parses its options first and imports what it works with
after, so that `--help` and a bad option answer at once. Modules are named here, not imported, for
they are built on this package.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

DEMO: Final = "demo"
"""The command that takes the name of a demo."""
_DEMOS: Final = ("toy_world", "demo_")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        module: that `python -m` takes.
        summary: what it does, in a few words.
    """

    module: str
    summary: str

    def load(self) -> Callable[[Sequence[str] | None], None]:
        """Its `main`, which takes the options as words; None stands for those of the process."""
        code = self._code()
        main: Callable[[Sequence[str] | None], None] = getattr(code, "DEMO", code).main
        return main

    def options_type(self) -> type[Any]:
        """The dataclass of its options."""
        code = self._code()
        demo = getattr(code, "DEMO", None)
        options: type[Any] = code.Options if demo is None else demo.options_type
        return options

    def _code(self) -> Any:
        package = importlib.import_module(self.module)
        if hasattr(package, "__path__"):
            return importlib.import_module(f"{self.module}.__main__")
        return package


COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "demos": Command(module="toy_world", summary="run every demo and sum up what they found"),
        "proofs": Command(module="proofs_check", summary="check every lemma by machine"),
        "run": Command(
            module="llm_experiment.run", summary="train and evaluate agents under a KL budget"
        ),
        "report": Command(module="llm_experiment.report", summary="make the page of a run"),
        "tables": Command(
            module="llm_experiment.evaluation_tables", summary="make the tables of a run"
        ),
        "judge": Command(
            module="llm_experiment.judge", summary="compare transcripts of a run pairwise"
        ),
        "price": Command(
            module="llm_experiment.price", summary="price scripted behaviours under a base model"
        ),
        "audit": Command(
            module="llm_experiment.audit",
            summary="what a budget buys of any model, and where a policy spent it",
        ),
        "known-demonstrator": Command(
            module="llm_experiment.known_demonstrator",
            summary="how far agents are from a demonstrator that is known, on any model",
        ),
        "vetoes": Command(
            module="llm_experiment.vetoes", summary="learn what the demonstrator never does"
        ),
        "pessimists": Command(
            module="llm_experiment.pessimists", summary="compare pessimistic base policies"
        ),
        "simplicity": Command(
            module="llm_experiment.simplicity",
            summary="price against description length, frequency held fixed",
        ),
        "price-by-data": Command(
            module="llm_experiment.price_by_data",
            summary="what never-events cost, by the amount of data",
        ),
        "exact-mixture": Command(
            module="llm_experiment.exact_mixture",
            summary="an exact Bayesian mixture over processes as base policy",
        ),
        "veto-rounds": Command(
            module="llm_experiment.veto_rounds", summary="attack vetoes, and widen them"
        ),
        "guard-trl": Command(
            module="llm_experiment.guard_trl", summary="a hard budget and a penalty in trl's GRPO"
        ),
        "sweep": Command(module="llm_experiment.sweep", summary="many runs, here or on a cluster"),
        "tiny-models": Command(
            module="llm_experiment.tiny_models", summary="train the shipped models again"
        ),
        "figures": Command(module="paper_figures", summary="make every figure and table"),
    }
)
"""All commands but the demos, in the order in which a newcomer meets them."""


def demos() -> dict[str, Command]:
    """The demos by name, in alphabetical order."""
    package, prefix = _DEMOS
    modules = pkgutil.iter_modules(importlib.import_module(package).__path__)
    names = sorted(m.name.removeprefix(prefix) for m in modules if m.name.startswith(prefix))
    return {
        name: Command(module=f"{package}.{prefix}{name}", summary=f"the demo {name}")
        for name in names
    }
