"""Every demo's command, run once a session with options that make it quick."""

import contextlib
import functools
import io
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest

from toy_world.__main__ import load_demo
from toy_world.demo import DemoResult

SMALL = MappingProxyType(
    {
        "hybrid": "--runs 4 --offline 20 --online 40 --bits 14 --steps 24",
        "joint_predictor": "--delta-bits 3",
        "pessimism": "--world metronome --bits 18 --memory-bits 10 --steps 12 --runs 40 "
        "--careers 2",
        "planners": "--horizon 2 --problems 1",
        "proposition1": "--bits 18 --census-bits 16 --demonstrator-bits 5 --steps 10",
        "proposition2": "--bits 8 --steps 200",
        "regularisers": "--bits 18 --steps 10 --horizon 1",
        "solomonoff": "--bits 20 --n-max 100 --steps 400 --more-bits 64",
        "theorem1": "--bits 20 --steps 100 --horizon 1 --world alarm --jobs 1",
        "theorem2": "--problems 1",
        "vetoes": "--bits 16 --event-bits 10 --steps 24 --runs 2",
        "waiting_agent": "--bits 18 --steps 100",
    }
)


def pytest_collection_modifyitems(items):
    """The tests that compare all that a demo shows come first, and run the demos.

    So `make mutants` sees which lines of a demo are compared.
    """
    items.sort(key=lambda item: item.path.name != "test_shown_before.py")


@dataclass(frozen=True)
class Shown:
    """What a demo's command left.

    Attributes:
        folder: with its files.
        printed: on standard output.
        result: as read back from its JSON file.
    """

    folder: Path
    printed: str
    result: DemoResult


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    """Run a demo by its name; the second call, also of another worker, gives what is there."""
    own = tmp_path_factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    @functools.cache
    def run(name):
        place = common / f"demo-{name}"
        if not place.exists():
            made = tmp_path_factory.mktemp(name)
            (made / "printed.txt").write_text(printed_by(name, made / "out"), encoding="utf-8")
            with contextlib.suppress(OSError):  # another worker was faster
                made.rename(place)
        return Shown(
            folder=place / "out",
            printed=(place / "printed.txt").read_text(encoding="utf-8"),
            result=load_demo(name).presentation().read(place / "out" / f"{name}.json"),
        )

    return run


def printed_by(name, folder):
    """What a demo prints on standard output while it writes to `folder`."""
    from toy_world.presentations import joint_predictor

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        # The demo's own training lengths take a quarter of a minute.
        quick = partial(joint_predictor.joint_predictor_costs, training_lengths=(2,))
        patch.setattr(joint_predictor, "joint_predictor_costs", quick)
        load_demo(name).main(["--out", str(folder), *SMALL[name].split()])
    return printed.getvalue()
