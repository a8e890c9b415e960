"""Documents say what is so: their code runs, their commands parse, what they name exists."""

import ast
import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mightnt.commands import COMMANDS, demos
from paper_figures.__main__ import TITLES
from tests.documents import (
    LANGUAGES,
    PACKAGES,
    REPOSITORY,
    absent_names,
    blocks,
    command_lines,
    command_of,
    documents,
    links,
    named_options,
    options_of,
    parse,
    spans,
)

BLOCKS = [block for path in documents() for block in blocks(path)]
OTHERS_OPTIONS = {
    "--head",
    "--help",
    "--index-url",
    "--n-changes",
    "--no-deps",
    "--porcelain",
    "--tyro-print-completion",
    "--version",
}
"""Of every command, and of Ray, pip, git, tyro and `make mutants`."""
START = {"python": [sys.executable], "mightnt": [sys.executable, "-m", "mightnt"]}
FIGURES = REPOSITORY / "docs" / "figures.md"
PROOFS = REPOSITORY / "docs" / "proofs.md"
every_document = pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)


def test_every_block_says_what_it_is():
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []


# ----------------------------------------------------------------------- what is run


@pytest.mark.parametrize(
    "path",
    [path for path in documents() if any(b.runs for b in BLOCKS if b.path == path)],
    ids=lambda path: path.name,
)
def test_a_document_does_what_it_says_from_top_to_bottom(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in BLOCKS:
        if block.path == path and block.runs:
            printed = RUNNERS[block.language](block, names)
            if block.output is not None:
                assert_printed(block, printed)


def run_python(block, names):
    save_file(block)
    code = "\n" * block.line + block.code
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, str(block.path), "exec"), names)
    return printed.getvalue()


def save_file(block):
    if block.file is not None:
        Path(block.file).write_text(block.code, encoding="utf-8")


def run_session(block, names):
    test = doctest.DocTestParser().get_doctest(
        block.code, names, str(block), str(block.path), block.line
    )
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    with contextlib.redirect_stdout(io.StringIO()) as report:
        failed = runner.run(test, clear_globs=False).failed
    assert failed == 0, report.getvalue()
    names |= test.globs
    return ""


def run_commands(block, _names):
    """Ours in this process, which has imported by now what each would import anew."""
    printed = io.StringIO()
    for words in command_lines(block.code):
        found = command_of(words)
        if found is None:
            printed.write(run_other(block, words))
            continue
        command, argv = found
        with contextlib.redirect_stdout(printed):
            command.load()(argv)
    return printed.getvalue()


def run_other(block, words):
    done = subprocess.run(
        [*START.get(words[0], words[:1]), *words[1:]],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}: {done.stderr}"
    return done.stdout


RUNNERS = {"python": run_python, "pycon": run_session, "console": run_commands}


def assert_printed(block, printed):
    """What is printed is the text that follows the block, up to trailing blanks."""
    wanted, got = (
        "".join(f"{line.rstrip()}\n" for line in text.splitlines())
        for text in (block.output, printed)
    )
    alike = doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS)
    assert alike, f"{block} prints:\n{got}"


# -------------------------------------------------------------------- what is parsed


LINES = [
    pytest.param(block.path, words, id=f"{block} {' '.join(words)}"[:90])
    for block in BLOCKS
    if block.language == "console"
    for words in command_lines(block.code)
]


@pytest.mark.parametrize(("path", "words"), LINES)
def test_commands_in_documents_parse(path, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in BLOCKS:
        if block.path == path:
            save_file(block)
    found = command_of(words)
    if found is None:
        assert_not_ours(words)
        return
    parse(*found)


def assert_not_ours(words):
    """`make` has its targets; whatever else stands there is no command of this project."""
    assert words[0] != "mightnt" or words[1:2] in ([], ["completion"])
    assert not (words[:2] == ["python", "-m"] and words[2].split(".")[0] in PACKAGES)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.M)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)


# --------------------------------------------------------------------- what is named


@pytest.fixture(scope="module")
def every_option():
    commands = [*COMMANDS.values(), *demos().values()]
    return set().union(OTHERS_OPTIONS, *map(options_of, commands))


@every_document
def test_options_that_a_document_names_exist(path, every_option):
    assert named_options(path.read_text(encoding="utf-8")) - every_option == set()


@every_document
def test_names_and_files_that_a_document_mentions_exist(path):
    assert absent_names(spans(path)) == set()


@every_document
def test_links_of_a_document_lead_somewhere(path):
    assert [target for target in links(path) if not (path.parent / target).exists()] == []


def test_an_example_of_a_part_of_ones_own_has_at_most_forty_lines():
    parts = {b.file: b.code.count("\n") for b in BLOCKS if b.file and b.path.name == "plug_in.md"}
    named = ("reward", "base", "task", "features", "scripts", "behaviours")
    assert set(parts) == {f"my_{part}.py" for part in named}
    assert max(parts.values()) <= 40


def test_every_figure_and_table_is_on_its_page():
    named = set(re.findall(r"^\| ((?:figure|table)\d+) \|", FIGURES.read_text(), flags=re.M))
    assert named == set(TITLES)


def test_checks_that_the_page_of_proofs_names_exist():
    named = set(re.findall(r"^[a-z0-9]+(?:-[a-z0-9]+)+$|^value$", spans(PROOFS), flags=re.M))
    assert len(named) > 20
    checks = (REPOSITORY / "PROOFS.md").read_text(encoding="utf-8")
    assert named <= set(re.findall(r"^\| `([\w-]+)` \|", checks, flags=re.M))


def literals(package):
    """The strings of each module of a package, its docstrings and messages among them."""
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said = " ".join(
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        yield str(path.relative_to(REPOSITORY)), said


@pytest.mark.parametrize("package", PACKAGES)
def test_options_that_a_message_or_docstring_names_exist(package, every_option):
    unknown = {path: named_options(said) - every_option for path, said in literals(package)}
    assert {path: names for path, names in unknown.items() if names} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_names_and_files_that_a_message_or_docstring_mentions_exist(package):
    unknown = {path: absent_names(said) for path, said in literals(package)}
    assert {path: names for path, names in unknown.items() if names} == {}
