"""Counter programs, their meaning, and their translation to the universal machine.

A program is a list of statements: `Add(x)`, `Print(b)`, `Read(x)` (x becomes 2x + bit) and
`While(x, body)`: while x > 0, take 1 from x and run the body. These compute everything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias


@dataclass(frozen=True)
class Add:
    counter: int


@dataclass(frozen=True)
class Print:
    symbol: int


@dataclass(frozen=True)
class Read:
    counter: int


@dataclass(frozen=True)
class While:
    counter: int
    body: tuple["Statement", ...]


Statement: TypeAlias = Add | Print | Read | While


class FuelError(Exception):
    pass


class InputError(Exception):
    pass


def meaning(  # noqa: C901 - one case a statement
    program: Sequence[Statement], bits: Iterator[int], fuel: int
) -> Iterator[int]:
    """The symbols that `program` prints, reading `bits`, for `fuel` statements at most."""
    counters: dict[int, int] = {}
    left = count(fuel, -1)

    def run(statements: Sequence[Statement]) -> Iterator[int]:
        for statement in statements:
            if next(left) <= 0:
                raise FuelError
            match statement:
                case Add(x):
                    counters[x] = counters.get(x, 0) + 1
                case Print(symbol):
                    yield symbol
                case Read(x):
                    bit = next(bits, None)
                    if bit is None:
                        raise InputError
                    counters[x] = 2 * counters.get(x, 0) + bit
                case While(x, body):
                    while counters.get(x, 0) > 0:
                        if next(left) <= 0:
                            raise FuelError
                        counters[x] -= 1
                        yield from run(body)

    yield from run(program)


def for_ever(body: list[Statement], *, counter: int) -> list[Statement]:
    return [Add(counter), While(counter, (*body, Add(counter)))]


def machine_code(program: Sequence[Statement], *, n_counters: int) -> str:
    """`program` for the universal machine, read whole before it starts; it ends by halting."""
    free = count(n_counters)
    z, p = next(free), next(free)
    code, at = _statements(program, p, free)
    return f"{_go(0, p)}+{_go(p, z)}[{_go(z, p)}[{code}{_go(at, 0)}<]{_go(p, z)}]"


def _go(start: int, end: int) -> str:
    return ">" * (end - start) + "<" * (start - end)


def _statements(program: Sequence[Statement], at: int, free: Iterator[int]) -> tuple[str, int]:
    code = ""
    for statement in program:
        match statement:
            case Add(x):
                code += _go(at, x) + "+"
                at = x
            case Read(x):
                code += _go(at, x) + ","
                at = x
            case Print(symbol):
                code += str(symbol)
            case While(x, body):
                z, f = next(free), next(free)
                inner, ends = _statements(body, f, free)
                unless = f"[{_go(x, f)}+{_go(f, z)}+{_go(z, x)}+]"
                code += f"{_go(at, z)}[{_go(z, x)}{unless}{_go(x, f)}"
                code += f"[{inner}{_go(ends, f)}+]{_go(f, z)}]"
                at = z
    return code, at
