"""`from theory import ...`: every name is there, documented, shown at work, and costs nothing."""

import ast
import doctest
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import theory

HEAVY = {"numpy", "scipy", "torch", "flint", "sympy", "jaxtyping", "matplotlib", "numba"}


def loaded_by(statements):
    """The top-level modules that a fresh interpreter has loaded after `statements`."""
    script = f"{statements}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    return set(printed.split())


@pytest.mark.parametrize("name", theory.__all__)
def test_every_name_is_documented_with_an_example(name):
    value = getattr(theory, name)
    assert value.__module__.startswith("theory.")
    assert inspect.getdoc(value)
    (found,) = doctest.DocTestFinder(recurse=False).find(value, name, globs={})
    assert found.examples


def test_the_front_page_has_an_example_too():
    (found,) = doctest.DocTestFinder(recurse=False).find(theory, "theory", globs={})
    assert len(found.examples) > 10


def test_type_checkers_see_the_same_names_of_the_same_modules():
    stub = ast.parse(Path(theory.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    promised = {alias.asname: node.module for node in stub.body for alias in node.names}
    assert promised == {name: getattr(theory, name).__module__ for name in theory.__all__}


def test_no_name_is_a_modules():
    modules = {module.name for module in pkgutil.iter_modules(theory.__path__)}
    assert not modules & set(theory.__all__)


def test_names_are_listed_and_others_refused():
    assert set(theory.__all__) <= set(dir(theory))
    with pytest.raises(AttributeError, match="module 'theory' has no attribute 'nonsense'"):
        theory.nonsense  # noqa: B018 - asking is the point


def test_the_front_door_loads_nothing():
    loaded = loaded_by("import theory, theory.errors, theory.paper, theory.arguments")
    assert not loaded & HEAVY


def test_a_name_loads_what_it_needs_alone():
    assert not loaded_by("from theory import kl_nats, open_ledger, fixed_kl_mixture") & (
        HEAVY - {"numpy"}
    )
    everything = loaded_by("from theory import *")
    assert not everything & {"torch", "sympy", "jaxtyping", "matplotlib", "numba"}
    assert {"numpy", "scipy", "flint"} <= everything
