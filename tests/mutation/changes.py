"""Small changes of behaviour, one place at a time.

A *change* replaces one node of a file's syntax tree. The kinds are those of mutmut
(`mutmut.mutation.mutators`) that change what a program does, and four more that reviewers made by
hand: a statement left out, a condition that always or never holds, a keyword argument left out, two
arguments swapped. Left alone are texts, messages of errors, annotations, decorators, and
`zip(strict=...)`, which is a check of our own assumptions.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

SYMMETRIC: Final = {"maximum", "minimum", "max", "min", "logaddexp", "gcd"}
"""Functions of which arguments may change places."""
SWAPPED_NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of one file.

    Attributes:
        path: of the file, below the repository.
        line: where it starts, counted from 1.
        old: the lines that it replaces, without indentation.
        new: what replaces them.
        code: the whole file after it.
    """

    path: str
    line: int
    old: str
    new: str
    code: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.old} -> {self.new}"


class ChangesOfFile:
    """Every change of a file, each written out only when asked for."""

    def __init__(self, path: str, source: str) -> None:
        self._path, self._source = path, source
        wrapper = MetadataWrapper(cst.parse_module(source))
        self._module = wrapper.module
        finder = _Finder()
        wrapper.visit(finder)
        self._found = finder.found

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: int) -> Change:
        line, node, replacement = self._found[index]
        code = self._module.deep_replace(node, replacement).code
        old, new = _difference(self._source, code)
        return Change(path=self._path, line=line, old=old, new=new, code=code)


def changes_of_file(repository: Path, path: str) -> ChangesOfFile:
    """The changes of a file of the repository."""
    return ChangesOfFile(path, (repository / path).read_text(encoding="utf-8"))


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[tuple[int, cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_left_alone(node):
            return False
        position = self.get_metadata(PositionProvider, node, None)
        if position is not None:
            self.found += [
                (position.start.line, node, replacement) for replacement in _replacements(node)
            ]
        return True


def _is_left_alone(node: cst.CSTNode) -> bool:
    if isinstance(
        node,
        cst.Annotation | cst.Decorator | cst.Raise | cst.Assert | cst.Import | cst.ImportFrom,
    ):
        return True
    if isinstance(node, cst.AnnAssign):
        return m.matches(node.annotation.annotation, m.Name("TypeAlias"))
    if isinstance(node, cst.If):
        return m.matches(node.test, m.Name("TYPE_CHECKING") | m.Comparison(m.Name("__name__")))
    return isinstance(node, cst.Arg) and m.matches(node, m.Arg(keyword=m.Name("strict")))


def _replacements(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    for kind, operator in _OPERATORS:
        if isinstance(node, kind):
            yield from operator(node)


def _conditions(node: cst.If) -> Iterator[cst.If]:
    blank = cst.SimpleWhitespace(" ")
    for constant in ("True", "False"):
        yield node.with_changes(test=cst.Name(constant), whitespace_before_test=blank)


def _statements(node: cst.Expr) -> Iterator[cst.Pass]:
    if isinstance(node.value, cst.Call):
        yield cst.Pass()


def _number(node: cst.BaseNumber) -> Iterator[cst.BaseNumber]:
    """A whole number is one more, any other ten times as large: tolerances are of that kind."""
    if isinstance(node, cst.Integer):
        yield node.with_changes(value=repr(node.evaluated_value + 1))
    elif isinstance(node, cst.Float):
        value = node.evaluated_value
        yield node.with_changes(value=repr(10 * value if value else 1.0))


def _calls(node: cst.Call) -> Iterator[cst.Call]:
    if isinstance(node.func, cst.Name) and node.func.value in SWAPPED_NAMES:
        yield node.with_changes(func=cst.Name(SWAPPED_NAMES[node.func.value]))
    for i, arg in enumerate(node.args):
        if arg.keyword is not None and arg.keyword.value != "strict":
            yield node.with_changes(args=[*node.args[:i], *node.args[i + 1 :]])
    match node.args[:2]:
        case [cst.Arg(keyword=None, star="") as a, cst.Arg(keyword=None, star="") as b]:
            if not a.value.deep_equals(b.value) and _name(node.func) not in SYMMETRIC:
                swapped = [a.with_changes(value=b.value), b.with_changes(value=a.value)]
                yield node.with_changes(args=[*swapped, *node.args[2:]])


_OPERATORS: Final[tuple[tuple[type[cst.CSTNode], Callable[..., Iterable[cst.CSTNode]]], ...]] = (
    (cst.Name, mutators.operator_name),
    (cst.AugAssign, mutators.operator_augmented_assignment),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    (cst.IfExp, mutators.operator_if_exp),
    (cst.Match, mutators.operator_match),
    (cst.CSTNode, mutators.operator_keywords),
    (cst.CSTNode, mutators.operator_swap_op),
    (cst.BaseNumber, _number),
    (cst.If, _conditions),
    (cst.Expr, _statements),
    (cst.Call, _calls),
)
"""By the kind of node that they replace."""


def _name(function: cst.BaseExpression) -> str:
    match function:
        case cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name)):
            return name
    return ""


def _difference(before: str, after: str) -> tuple[str, str]:
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    old, new = (
        " ".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in "-+"
    )
    return old, new
