"""Solomonoff induction on the universal machine, exactly up to L bits and T steps.

`enumerate_programs` runs every program of up to L bits for up to T steps and counts, for every
string x of an `OutputTree`, in whole units of 2^-L:

    M_{L,T}(x) = sum over minimal programs p of x with |p| <= L, found in T steps, of 2^-|p|

(`toy_world.machine.definition` defines minimal programs). It bounds M(x) from below, grows with L,
T and the length of the tape, and is a semimeasure exactly:

    M(x) = M(x0) + M(x1) + (programs that print x and then nothing) + (undecided at x).

A program is *undecided* when a limit stopped it, the last reason included that it wants a bit
after the L-th. Whatever it has printed is counted; what it would print is not known. So

    M_{L,T}(x) <= M(x) <= M_{L,T}(x) + (undecided mass at proper prefixes of x),

and predictions come in three kinds, each saying which predictor it is about:

- of the *truncated mixture* `xi_{L,T}`, exactly: `M_{L,T}(xb) / M_{L,T}(x)`, a semi-distribution
  whose missing mass is "no output" (or none within the limits), the convention of
  `theory.process`; and the same normalised as Solomonoff did, `M(xb) / (M(x0) + M(x1))`;
- of the unlimited M, as a bracket that is proved;
- of a mixture with limits out of enumeration's reach, by `sample_programs`, or better by
  `continue_programs` from where enumeration stopped, with an interval.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial, reduce
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mightnt.workers import on_workers
from theory.errors import InvalidArgumentError, InvalidHistoryError, UnreachableLengthError
from theory.process import History
from toy_world.machine.definition import Limits, Status
from toy_world.machine.kernel import (
    STATUSES,
    Outcomes,
    Tally,
    enumerate_kernel,
    sample_kernel,
)

MOST_BITS: Final = 62
"""Masses in units of 2^-L stay within 64-bit integers up to here."""

_MOST_WORD_BITS: Final = 8
_UNDIVIDED_BITS: Final = 20
"""So short programs are not worth dividing: adding up the parts would take longer."""
_NO_PROGRAM: Final = MOST_BITS + 1
_WORDS_A_CHUNK: Final = 2**18


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputTree:
    """The strings of output that are asked about, with all their prefixes.

    A program is run no further than needed to know which of them it prints.

    Attributes:
        children: shape (n, 2), int32; the nodes of x0 and x1, -1 where x has no such child.
            Node 0 is the empty string.
    """

    children: NDArray[np.int32]

    @staticmethod
    def of(strings: Iterable[History]) -> "OutputTree":
        """The smallest tree with all of `strings`.

        Raises:
            InvalidHistoryError: a symbol that is neither 0 nor 1.
        """
        children = [[-1, -1]]
        for string in strings:
            node = 0
            for symbol in string:
                if symbol not in (0, 1):
                    raise InvalidHistoryError(f"the machine prints 0 and 1, got {symbol!r}")
                if children[node][symbol] < 0:
                    children[node][symbol] = len(children)
                    children.append([-1, -1])
                node = children[node][symbol]
        return OutputTree(children=np.array(children, dtype=np.int32))

    @staticmethod
    def complete(length: int) -> "OutputTree":
        """Every string of up to `length` symbols.

        Raises:
            InvalidArgumentError: length outside 0..20.
        """
        if not 0 <= length <= 20:
            raise InvalidArgumentError(f"length must lie in 0..20, got {length}")
        inner = np.arange(2**length - 1)
        children = np.full((2 ** (length + 1) - 1, 2), -1, dtype=np.int32)
        children[inner] = 2 * inner[:, None] + [1, 2]
        return OutputTree(children=children)

    def __len__(self) -> int:
        """The number of strings, the empty one included."""
        return len(self.children)

    def path(self, x: History) -> list[int]:
        """The nodes of the prefixes of x, from the empty string to x itself.

        Raises:
            InvalidHistoryError: x is not in the tree.
        """
        path = [0]
        for position, symbol in enumerate(x):
            child = int(self.children[path[-1]][symbol]) if symbol in (0, 1) else -1
            if child < 0:
                raise InvalidHistoryError(
                    f"the output tree does not hold symbol {symbol!r} at position {position} of "
                    f"{_shown(x)}; add the string when building it"
                )
            path.append(child)
        return path


@dataclass(frozen=True, kw_only=True, eq=False)
class Census:
    """What all programs of up to L bits print, in units of 2^-L.

    Attributes:
        limits: L, T and the length of the tape.
        tree: the strings asked about.
        reached: shape (n,); at x, `2^L M_{L,T}(x)`.
        ended: shape (len(Status), n), rows in the order of `Status`; the mass of the programs
            that end so having printed x. `OUTPUT_LIMIT`: x is a leaf of the tree, or the next
            symbol leads out of it.
        shortest_bits: shape (n,); the length of the shortest minimal program of x within the
            limits, an upper bound of its monotone complexity; `MOST_BITS` + 1 if there is none.
        shortest_program: shape (n,), that program (the first of them) as a number.
        n_instructions: instructions read, in all.
        n_programs: programs ended, counting each that wants another bit after the L-th.
        n_steps: instructions executed, in all.
    """

    limits: Limits
    tree: OutputTree
    reached: NDArray[np.int64]
    ended: NDArray[np.int64]
    shortest_bits: NDArray[np.int64]
    shortest_program: NDArray[np.int64]
    n_instructions: int
    n_programs: int
    n_steps: int

    @property
    def n_prefixes(self) -> int:
        """How many bit strings some program begins with, all programs and the empty one included.

        They are the nodes of a binary tree whose leaves are the programs ended and whose other
        nodes have two children each.
        """
        return 2 * self.n_programs - 1

    def mass(self, x: History) -> Fraction:
        """`M_{L,T}(x)`, a lower bound of M(x)."""
        return self._share(self.reached[self.tree.path(x)[-1]])

    def ended_mass(self, x: History, status: Status) -> Fraction:
        """The mass of the programs that print x exactly and end with `status`."""
        return self._share(self.ended[STATUSES.index(status), self.tree.path(x)[-1]])

    def undecided_mass(self, x: History) -> Fraction:
        """The mass of the programs whose output is a proper prefix of x and may yet become x."""
        return self._share(self._undecided(self.tree.path(x)[:-1]))

    def bounds(self, x: History) -> tuple[Fraction, Fraction]:
        """A lower and an upper bound of M(x) of the unlimited machine."""
        mass = self.mass(x)
        return mass, mass + self.undecided_mass(x)

    def prediction(self, x: History) -> tuple[Fraction, Fraction]:
        """`xi_{L,T}(b | x) = M_{L,T}(xb) / M_{L,T}(x)` for b = 0, 1, a semi-distribution.

        Raises:
            InvalidHistoryError: x0 or x1 is not in the tree.
            UnreachableLengthError: no program within the limits prints x.
        """
        mass = self.mass(x)
        if mass == 0:
            raise self._unreachable(x)
        return self.mass((*x, 0)) / mass, self.mass((*x, 1)) / mass

    def normalised_prediction(self, x: History) -> tuple[Fraction, Fraction]:
        """Solomonoff's normalisation, `M_{L,T}(xb) / (M_{L,T}(x0) + M_{L,T}(x1))`.

        Raises:
            InvalidHistoryError: x0 or x1 is not in the tree.
            UnreachableLengthError: no program within the limits prints a symbol after x.
        """
        zero, one = self.mass((*x, 0)), self.mass((*x, 1))
        if zero + one == 0:
            raise self._unreachable(x)
        return zero / (zero + one), one / (zero + one)

    def price_bits(self, x: History, symbol: int) -> float:
        """`-log2 xi_{L,T}(symbol | x)`; inf if no program within the limits prints it.

        Raises:
            UnreachableLengthError: no program within the limits prints x.
        """
        share = self.prediction(x)[symbol]
        return math.inf if share == 0 else log2_of(1 / share)

    def price_bounds_bits(self, x: History, symbol: int) -> tuple[float, float]:
        """A lower and an upper bound of `-log2 M(symbol | x)` of the unlimited machine.

        With a, b the masses of x and of x followed by `symbol`, u the undecided mass at proper
        prefixes of x and v that at x itself: `M(x) <= a + u` and `M(x symbol) >= b` give the
        upper bound `log2((a + u)/b)`. The lower one is `log2((a + u)/(b + u + v))`: what becomes
        x of u is in both masses, the quotient (at most 1) is largest if all of u and v turns out
        to print x and `symbol`.

        Raises:
            UnreachableLengthError: no program within the limits prints x.
        """
        a, b = self.mass(x), self.mass((*x, symbol))
        if a == 0:
            raise self._unreachable(x)
        u, u_and_v = self.undecided_mass(x), self.undecided_mass((*x, symbol))
        return (
            log2_of((a + u) / (b + u_and_v)),  # v > 0 at (): some program only moves to the right
            log2_of((a + u) / b) if b > 0 else math.inf,
        )

    def shortest(self, x: History) -> tuple[int, ...] | None:
        """The shortest minimal program of x within the limits, or None."""
        node = self.tree.path(x)[-1]
        length = int(self.shortest_bits[node])
        if length == _NO_PROGRAM:
            return None
        program = int(self.shortest_program[node])
        return tuple(program >> k & 1 for k in reversed(range(length)))

    def _share(self, units: Any) -> Fraction:
        return Fraction(int(units), 2**self.limits.bits)

    def _undecided(self, nodes: list[int]) -> int:
        rows = [k for k, status in enumerate(STATUSES) if not status.decided]
        return int(self.ended[np.ix_(rows, nodes)].sum())

    def _unreachable(self, x: History) -> UnreachableLengthError:
        return UnreachableLengthError(
            f"no program of up to {self.limits.bits} bits goes on from {_shown(x)} within "
            f"{self.limits.steps} steps; raise the limits"
        )


def enumerate_programs(tree: OutputTree, *, limits: Limits, n_jobs: int = 1) -> Census:
    """Run every program of up to L bits, as far as `tree` asks.

    The programs are divided by their first bits among `n_jobs` workers of joblib, threads unless
    the surrounding `joblib.parallel_config` says otherwise; the result does not depend on it.

    Raises:
        InvalidArgumentError: L > 62.
    """
    if limits.bits > MOST_BITS:
        raise InvalidArgumentError(
            f"bits must be <= {MOST_BITS} to enumerate, got {limits.bits}; sample instead"
        )
    word_bits = max(0, min(_MOST_WORD_BITS, limits.bits - _UNDIVIDED_BITS))
    count = partial(_run_kernel, word_bits=word_bits, limits=limits, tree=tree)
    parts = on_workers(count, range(2**word_bits), n_jobs=n_jobs, description="running programs")
    total = reduce(_joined, parts)
    total.reached[0] = 2**limits.bits
    return total


def _run_kernel(
    word: int,
    *,
    word_bits: int,
    limits: Limits,
    tree: OutputTree,
    waiting: NDArray[np.int64] | None = None,
) -> Census:
    """The census of the programs that belong to one word (see `enumerate_kernel`)."""
    size = len(tree)
    tally = Tally(
        reached=np.zeros(size, dtype=np.int64),
        ended=np.zeros((len(STATUSES), size), dtype=np.int64),
        shortest_bits=np.full(size, _NO_PROGRAM, dtype=np.int64),
        shortest_program=np.zeros(size, dtype=np.int64),
        waiting=np.empty(0, dtype=np.int64) if waiting is None else waiting,
        counters=np.zeros(3, dtype=np.int64),
    )
    tally.shortest_bits[0] = 0
    enumerate_kernel(word, word_bits, limits.bits, limits.steps, limits.cells, tree.children, tally)
    n_instructions, n_programs, n_steps = tally.counters.tolist()
    return Census(
        limits=limits,
        tree=tree,
        reached=tally.reached,
        ended=tally.ended,
        shortest_bits=tally.shortest_bits,
        shortest_program=tally.shortest_program,
        n_instructions=n_instructions,
        n_programs=n_programs,
        n_steps=n_steps,
    )


def _joined(one: Census, other: Census) -> Census:
    """The census of both parts; ties between shortest programs go to the smaller number."""
    shorter = (other.shortest_bits < one.shortest_bits) | (
        (other.shortest_bits == one.shortest_bits) & (other.shortest_program < one.shortest_program)
    )
    return Census(
        limits=one.limits,
        tree=one.tree,
        reached=one.reached + other.reached,
        ended=one.ended + other.ended,
        shortest_bits=np.where(shorter, other.shortest_bits, one.shortest_bits),
        shortest_program=np.where(shorter, other.shortest_program, one.shortest_program),
        n_instructions=one.n_instructions + other.n_instructions,
        n_programs=one.n_programs + other.n_programs,
        n_steps=one.n_steps + other.n_steps,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Programs of fair coin flips, and what they did.

    Attributes:
        outputs: shape (n, max_symbols), uint8; 0 beyond what was printed.
        n_symbols: shape (n,), how much was printed.
        statuses: shape (n,), indices in the order of `Status`.
        bits_read: shape (n,).
        steps: shape (n,), instructions begun.
    """

    outputs: NDArray[np.uint8]
    n_symbols: NDArray[np.int64]
    statuses: NDArray[np.int64]
    bits_read: NDArray[np.int64]
    steps: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of programs."""
        return len(self.n_symbols)

    def prints(self, x: History) -> NDArray[np.bool_]:
        """Which programs' output begins with x; their share estimates `M_{L,T}(x)`, unbiased."""
        if len(x) > self.outputs.shape[1]:
            raise InvalidHistoryError(
                f"only {self.outputs.shape[1]} symbols were sampled, asked about {len(x)}"
            )
        begins = (self.outputs[:, : len(x)] == np.array(x, dtype=np.uint8)).all(axis=1)
        return np.asarray(begins & (self.n_symbols >= len(x)))


def waiting_programs(census: Census) -> NDArray[np.int64]:
    """The strings of L bits, as numbers, after which the machine wants another bit.

    Their number is `2^L` times the mass of the programs that end `WAITING`; they come in no
    particular order. `continue_programs` says how they go on.
    """
    waiting = np.empty(int(census.ended[STATUSES.index(Status.WAITING)].sum()), dtype=np.int64)
    _run_kernel(0, word_bits=0, limits=census.limits, tree=census.tree, waiting=waiting)
    return waiting


def sample_programs(
    n: int, *, limits: Limits, max_symbols: int, rng: np.random.Generator
) -> Samples:
    """Run `n` programs whose bits are fair coin flips, each up to `max_symbols` symbols.

    Unlike enumeration this takes any number of bits. The same seed gives the same programs,
    whatever the other limits, as long as L rounds up to the same number of 64-bit words.

    Raises:
        InvalidArgumentError: n < 1, max_symbols < 1, or L < 1.
    """
    if n < 1:
        raise InvalidArgumentError(f"n must be >= 1 to sample, got {n}")
    return continue_programs(
        np.zeros(n, dtype=np.int64), 0, limits=limits, max_symbols=max_symbols, rng=rng
    )


def continue_programs(
    beginnings: NDArray[np.int64],
    beginning_bits: int,
    *,
    limits: Limits,
    max_symbols: int,
    rng: np.random.Generator,
) -> Samples:
    """Run programs that begin as given and go on with fair coin flips.

    Args:
        beginnings: shape (n,), strings of `beginning_bits` bits as numbers.
        beginning_bits: at most 62.
        limits: L counts the bits of the beginning too.
        max_symbols: a program ends when it has printed so many.
        rng: flips the coins.

    Raises:
        InvalidArgumentError: max_symbols < 1, L < 1, or a beginning that does not fit.
    """
    for name, value in (("max_symbols", max_symbols), ("bits", limits.bits)):
        if value < 1:
            raise InvalidArgumentError(f"{name} must be >= 1 to sample, got {value}")
    if not 0 <= beginning_bits <= min(MOST_BITS, limits.bits):
        raise InvalidArgumentError(
            f"beginning_bits must lie in 0..{min(MOST_BITS, limits.bits)}, got {beginning_bits}"
        )
    outside = beginnings[(beginnings < 0) | (beginnings >= 2**beginning_bits)]
    if outside.size:
        raise InvalidArgumentError(
            f"a beginning of {beginning_bits} bits must lie in 0..{2**beginning_bits - 1}, got "
            f"{outside[0]}"
        )
    n = len(beginnings)
    words_each = -(-limits.bits // 64)
    samples = Samples(
        outputs=np.zeros((n, max_symbols), dtype=np.uint8),
        n_symbols=np.zeros(n, dtype=np.int64),
        statuses=np.zeros(n, dtype=np.int64),
        bits_read=np.zeros(n, dtype=np.int64),
        steps=np.zeros(n, dtype=np.int64),
    )
    chunk = max(1, _WORDS_A_CHUNK // words_each)
    for start in range(0, n, chunk):
        part = slice(start, min(n, start + chunk))
        words = rng.integers(0, 2**64, size=(part.stop - start, words_each), dtype=np.uint64)
        if beginning_bits:
            words[:, 0] >>= np.uint64(beginning_bits)
            words[:, 0] |= beginnings[part].astype(np.uint64) << np.uint64(64 - beginning_bits)
        sample_kernel(
            words,
            limits.bits,
            limits.steps,
            limits.cells,
            Outcomes(
                outputs=samples.outputs[part],
                n_symbols=samples.n_symbols[part],
                statuses=samples.statuses[part],
                bits_read=samples.bits_read[part],
                steps=samples.steps[part],
            ),
        )
    return samples


def log2_of(ratio: Fraction) -> float:
    """The logarithm to base 2 of a positive rational, however large its terms.

    Accurate to an ulp or so of the larger of the two logarithms, and relatively near 1.
    """
    if Fraction(1, 2) < ratio < 2:
        return math.log1p(float(ratio - 1)) / math.log(2)
    return math.log2(ratio.numerator) - math.log2(ratio.denominator)


def _shown(x: History) -> str:
    text = "".join(map(str, x))
    return repr(text if len(text) <= 24 else f"{text[:20]}... ({len(x)} symbols)")
