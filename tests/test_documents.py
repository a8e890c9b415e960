"""Documents say what is so: their code runs, their commands parse, the options they name exist."""

import ast
import doctest
import os
import re
import subprocess
import sys

import pytest
import tyro

from mightnt.command_line import TYRO_CONFIG
from mightnt.commands import COMMANDS, demos
from tests.documents import (
    REPOSITORY,
    Block,
    blocks,
    command_lines,
    command_of,
    documents,
    named_options,
    options_of,
)

BLOCKS = [block for path in documents() for block in blocks(path)]
LANGUAGES = {"python", "console", "text", "json", "bibtex"}
PACKAGES = ("mightnt", "theory", "toy_world", "llm_experiment", "proofs_check", "paper_figures")
OTHERS_OPTIONS = {"--help", "--version", "--index-url", "--head", "--extra-index-url"}
"""Of pip, Ray and every command."""


def of(*languages):
    return [block for block in BLOCKS if block.language in languages]


@pytest.fixture(scope="module")
def every_option():
    commands = [*COMMANDS.values(), *demos().values()]
    return set().union(OTHERS_OPTIONS, *map(options_of, commands))


def test_every_block_says_what_it_is():
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_python_blocks_run_and_print_what_they_say(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in [block for block in of("python") if block.path == path]:
        if block.code.startswith(">>>"):
            parsed = doctest.DocTestParser().get_doctest(
                block.code, names, str(block), str(path), block.line
            )
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
            assert runner.run(parsed, clear_globs=False).failed == 0, str(block)
            names |= parsed.globs
        else:
            code = "\n" * block.line + block.code
            exec(compile(code, str(path), "exec"), names)


LINES = [
    pytest.param(words, id=f"{block} {' '.join(words)}"[:90])
    for block in of("console")
    for words in command_lines(block.code)
]


@pytest.mark.parametrize("words", LINES)
def test_commands_in_documents_parse(words):
    found = command_of(words)
    if found is None:
        assert_not_ours(words)
        return
    command, argv = found
    tyro.cli(command.options_type(), args=argv, prog="x", config=TYRO_CONFIG)


def assert_not_ours(words):
    """`make` has its targets; whatever else stands there is no command of this project."""
    assert "mightnt" not in words[:1]
    assert not (words[:2] == ["python", "-m"] and words[2].split(".")[0] in PACKAGES)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.M)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.runs], ids=str)
def test_marked_commands_run(block: Block, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    start = {"python": [sys.executable], "mightnt": [sys.executable, "-m", "mightnt"]}
    for first, *rest in command_lines(block.code):
        done = subprocess.run(
            [*start.get(first, [first]), *rest],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_options_that_a_document_names_exist(path, every_option):
    assert named_options(path.read_text(encoding="utf-8")) - every_option == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_options_that_a_message_or_docstring_names_exist(package, every_option):
    unknown = {}
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said = " ".join(
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        absent = named_options(said) - every_option
        if absent:
            unknown[str(path.relative_to(REPOSITORY))] = absent
    assert unknown == {}
