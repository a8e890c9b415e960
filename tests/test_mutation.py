"""`make mutants` measures only what changed, goes on where it was stopped, and picks the tests."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from mightnt.tables import print_table
from tests.mutation import covering
from tests.mutation.covering import Covering, measured, note_changes
from theory.errors import InvalidArgumentError

PACKAGES = ("package",)


@pytest.fixture
def repository(tmp_path):
    """Two modules, and more test files than a portion holds."""
    for name in ("package/one.py", "package/two.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "tests").mkdir()
    for number in range(2 * covering.PORTION + 3):
        (tmp_path / "tests" / f"test_{number}.py").write_text(f"# {number}\n")
    return tmp_path


@pytest.fixture
def portions(monkeypatch):
    """Test files as they are measured; each executes the first line of `one.py`."""
    seen = []

    def measure(repository, store, test_files, known, **_):
        seen.append(set(test_files))
        lines = known.tests.setdefault("package/one.py", {}).setdefault(1, set())
        for file in test_files:
            known.seconds[f"{file}::test"] = 1.0
            lines.add(f"{file}::test")

    monkeypatch.setattr(covering, "_measure", measure)
    return seen


def measure(repository):
    return measured(repository, repository, packages=PACKAGES, n_workers=1)


def test_a_measurement_that_was_stopped_goes_on_where_it_was(repository, portions, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    whole = {f"tests/test_{number}.py" for number in range(2 * covering.PORTION + 3)}
    with monkeypatch.context() as patch:
        going = covering._measure
        patch.setattr(covering, "_measure", lambda *a, **k: stop() if portions else going(*a, **k))
        with pytest.raises(KeyboardInterrupt):
            measure(repository)
    assert [len(portion) for portion in portions] == [covering.PORTION]
    known = measure(repository)
    assert [len(portion) for portion in portions] == [covering.PORTION, covering.PORTION, 3]
    assert set().union(*portions) == whole
    assert known.waiting == set()
    assert set(known.seconds) == {f"{file}::test" for file in whole}


def test_only_what_changed_and_what_executes_it_is_measured_again(repository, portions):
    everything = set(measure(repository).seconds)
    portions.clear()
    measure(repository)
    assert portions == []
    (repository / "tests" / "test_3.py").write_text("# other\n")
    (repository / "package" / "two.py").write_text("# no test executes it\n")
    measure(repository)
    assert portions == [{"tests/test_3.py"}]
    portions.clear()
    (repository / "package" / "one.py").write_text("# every test executes it\n")
    measure(repository)
    assert {f"{file}::test" for portion in portions for file in portion} == everything


def test_a_test_file_that_is_gone_is_forgotten(repository, portions):
    measure(repository)
    (repository / "tests" / "test_3.py").unlink()
    known = measure(repository)
    assert "tests/test_3.py::test" not in known.seconds
    assert "tests/test_3.py::test" not in known.tests["package/one.py"][1]


def test_what_leaves_counting_off_is_measured_all_the_same(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "one.py").write_text("def one():\n    return 1\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text(
        "import pytest\nfrom package.one import one\n\n\n"
        "@pytest.mark.no_cover\ndef test_one():\n    assert one() == 1\n"
    )
    (tmp_path / "tests" / "mutation").symlink_to(Path(covering.__file__).parent)
    known = measured(tmp_path, tmp_path, packages=PACKAGES, n_workers=0)
    assert known.tests["package/one.py"][2] == {"tests/test_one.py::test_one"}


def test_a_change_is_tried_by_the_tests_of_its_line_its_own_first_then_the_fastest():
    own, other = "tests/package/test_one.py", "tests/test_all.py"
    known = Covering(
        seconds={f"{own}::slow": 5.0, f"{own}::fast": 1.0, f"{other}::a": 0.5, f"{other}::b": 2.0},
        tests={
            "package/one.py": {3: {f"{own}::slow", f"{own}::fast", f"{other}::a"}},
            "package/two.py": {3: {f"{other}::b"}},
        },
    )
    found = known.selection("package/one.py", 3, seconds=100)
    assert found == [f"{own}::fast", f"{own}::slow", f"{other}::a"]
    assert known.duration(found) == 6.5
    # The first is tried whatever it takes; what does not fit is left out.
    assert known.selection("package/one.py", 3, seconds=1.5) == [f"{own}::fast", f"{other}::a"]
    assert known.selection("package/one.py", 3, seconds=0) == [f"{own}::fast"]


def test_after_the_tests_of_a_line_come_those_that_a_fixture_may_have_spared():
    own, other = "tests/package/test_one.py", "tests/test_all.py"
    known = Covering(
        seconds={f"{own}::a": 1.0, f"{own}::b": 2.0, f"{other}::c": 9.0, f"{other}::d": 0.1},
        tests={"package/one.py": {3: {f"{other}::c"}, 4: {f"{own}::b", f"{other}::d"}}},
    )
    found = known.selection("package/one.py", 3, seconds=100)
    assert found == [f"{other}::c", f"{own}::a", f"{own}::b", f"{other}::d"]


def test_a_line_that_no_test_is_seen_to_execute_is_tried_by_all_tests_of_its_module():
    own = "tests/package/test_one.py"
    known = Covering(
        seconds={f"{own}::a": 1.0, "tests/test_all.py::b": 1.0, "tests/test_all.py::c": 1.0},
        tests={"package/one.py": {3: {"tests/test_all.py::b"}}},
    )
    found = known.selection("package/one.py", 1, seconds=100)
    assert found == [f"{own}::a", "tests/test_all.py::b"]


def test_what_is_kept_is_read_back(tmp_path):
    known = Covering(
        hashes={"a.py": "1"},
        seconds={"t::x": 2.0},
        tests={"a.py": {7: {"t::x"}}},
        waiting={"tests/test_b.py"},
    )
    covering._write(tmp_path / "kept.json.gz", known)
    assert covering._read(tmp_path / "kept.json.gz") == known
    note_changes(known, {"a.py": "2"})
    assert known.waiting == set()


SOURCE = """
def smaller(a, b, *, strict=False):
    if a < b:
        print(a)
    return a if strict else min(a, b)
"""


def test_a_change_is_of_one_place_and_says_which():
    changes = pytest.importorskip("tests.mutation.changes", exc_type=ImportError)
    found = changes.ChangesOfFile("package/one.py", SOURCE)
    told = {(found[i].line, found[i].new) for i in range(len(found))}
    assert {
        (3, "if a <= b:"),
        (3, "if True:"),
        (4, "pass"),
        (5, "return a if strict else max(a, b)"),
    } <= told
    for i in range(len(found)):
        before, after = SOURCE.splitlines(), found[i].code.splitlines()
        assert len(before) == len(after)
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_the_share_is_of_what_was_decided():
    """Of 4 changes 2 were noticed, 1 survived, and 1 ran out of time."""
    command = pytest.importorskip("tests.mutation.command", exc_type=ImportError)
    trials = pytest.importorskip("tests.mutation.trials", exc_type=ImportError)
    change = command.Change(path="theory/one.py", line=1, old="a", new="b", code="b")
    trial = trials.Trial(change=change, tests=(), seconds=0.0)
    outcome = trials.Outcome
    found = [outcome.NOTICED, outcome.NOTICED, outcome.SURVIVED, outcome.TIMED_OUT]
    table = command.summary([(trial, each) for each in found], about="4 of 9", n_equivalent=1)
    printed = io.StringIO()
    print_table(table, Console(file=printed))
    for name in ("theory", "all"):
        (line,) = (line for line in printed.getvalue().splitlines() if line.startswith(name))
        assert line.split()[1:6] == ["4", "2", "1", "1", "66.7%"]


def test_a_folder_that_is_not_there_is_refused():
    command = pytest.importorskip("tests.mutation.command", exc_type=ImportError)
    with pytest.raises(InvalidArgumentError, match="must name folders or modules, got nowhere"):
        command.sampled_changes(["nowhere"], 3, 0)
