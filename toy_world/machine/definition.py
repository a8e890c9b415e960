"""A universal monotone machine: nine instructions, read bit by bit when they are needed.

A *monotone machine* has a one-way, read-only program tape and a one-way, write-only output tape
of binary symbols; what it has printed it never takes back. Fed with fair coin flips it prints a
string that begins with x with probability `M(x) = sum_p 2^-|p|`, where p runs over the *minimal*
programs of x: bit strings that have just been read when the last symbol of x is printed. No such
p is a prefix of another, since the machine reads a bit only when it cannot go on without it; so
the sum needs no end marker, and `M(x0) + M(x1) <= M(x)`.

The machine works on a tape of cells, each a natural number, all 0 at first; it is infinite to the
right. Instructions are read into a code store and executed in order. When the end of the store
is reached the next instruction is read; going back executes stored instructions again and reads
nothing. With c the number in the cell under the head, *body* of a `:` or `]` being the code
between the nearest open bracket before it (the program's start where there is none) and itself:

    :   00    again: run the body again, once and then c times more (c as it is on arrival)
    0   010   print 0
    1   011   print 1
    +   100   add 1 to the cell
    ]   101   if c = 0 go back to the start of the body, else take 1 from the cell and go on;
              closes its bracket
    [   1100  open a bracket; if c > 0 take 1 from the cell and go on after the matching `]`
    ,   1101  read one bit b of the program tape as data: c becomes 2c + b
    <   1110  head one cell to the left; on the leftmost cell: halt
    >   1111  head one cell to the right

So `[B]` waits until the cell is positive, running B meanwhile, and then takes one unit from it.
To leave out a body that has not been read yet the machine has to read it. Unclosed brackets and
a `]` without a bracket need no rule of their own: the program's start opens one that any number
of `]` may use. `0]` prints zeros for ever (6 bits), `01]` the sequence 0101..., `0:::` eight
zeros (9 bits), and `0+::` ninety-three (10 bits).

*It is universal.* Give each counter its own cell. `+` adds to it, `,` reads into it, `0` and `1`
print, and `while x > 0: x = x - 1; B` is, with two cells z and f that hold 0 before and after
(`go` stands for moves of the head between fixed cells):

    go z [  go x [ go f + go z + go x + ]  go f [ B + ]  go z ]

If x = 0 the inner bracket is entered, which sets f and z and restores x, so B is left out and z
ends the loop; else x loses one and B runs. Programs of such loops over counters with `x + 1`
compute every computable function, and conditional reading and printing come with them, so every
monotone machine V has a code P with `U(P q) = V(q)` if P is read before its first `,`. It is in

    go p +  go z [  go p [ P ]  go z ]

which leaves P out the first time round, reading it, and runs it the second time. P ends, if it
does, by moving left off the tape. Hence `M >= 2^-|P'| M_V` for every V (P' being this wrapping).

What a computer can do of this is bounded by `Limits`: bits read, steps, cells, and numbers (a
cell of 2^61 or more cannot be doubled by `,`). How a run ended is data, `Status`; a run that a
limit stopped is *undecided*, and whatever is computed from it holds for the unlimited machine
only as a lower bound.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, unique
from typing import Final

from theory.errors import InvalidArgumentError

MAX_DOUBLED: Final = 2**61
"""`,` stops with `Status.TAPE_LIMIT` on a number as large as this: 64-bit cells never overflow."""


@unique
class Instruction(Enum):
    """An instruction; the value is its symbol. In lexicographic order of the opcodes."""

    AGAIN = ":"
    PRINT_0 = "0"
    PRINT_1 = "1"
    ADD = "+"
    CLOSE = "]"
    OPEN = "["
    READ = ","
    LEFT = "<"
    RIGHT = ">"


OPCODES: Final = {
    Instruction.AGAIN: (0, 0),
    Instruction.PRINT_0: (0, 1, 0),
    Instruction.PRINT_1: (0, 1, 1),
    Instruction.ADD: (1, 0, 0),
    Instruction.CLOSE: (1, 0, 1),
    Instruction.OPEN: (1, 1, 0, 0),
    Instruction.READ: (1, 1, 0, 1),
    Instruction.LEFT: (1, 1, 1, 0),
    Instruction.RIGHT: (1, 1, 1, 1),
}
"""A complete prefix-free code: its lengths fill Kraft's inequality."""

_INSTRUCTIONS: Final = {opcode: instruction for instruction, opcode in OPCODES.items()}
_DATA_BITS: Final = ("₀", "₁")


@unique
class Status(Enum):
    """How a run ended."""

    HALTED = "halted"
    LOOPING = "silent for ever"
    """Proved by a repeated configuration, or by one that repeats further right on blank tape."""
    OUTPUT_LIMIT = "output limit"
    """All the symbols that were asked for have been printed."""
    TIMEOUT = "out of steps"
    TAPE_LIMIT = "out of cells"
    """The head would leave the last cell, or a number of `MAX_DOUBLED` or more be doubled."""
    WAITING = "wants another bit"
    """The machine wants a bit beyond the limit, or beyond the program that it was given."""

    @property
    def decided(self) -> bool:
        """Whether no larger limits could add to what was printed (of what was asked for)."""
        return self in (Status.HALTED, Status.LOOPING, Status.OUTPUT_LIMIT)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may use.

    Attributes:
        bits: L, the longest program read, at least 0.
        steps: T, the most instructions executed, at least 1.
        cells: the length of the tape, at least 1.
    """

    bits: int
    steps: int
    cells: int = 4096

    def __post_init__(self) -> None:
        for name, least in (("bits", 0), ("steps", 1), ("cells", 1)):
            if getattr(self, name) < least:
                raise InvalidArgumentError(f"{name} must be >= {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a program did.

    Attributes:
        status: how it ended.
        output: the symbols printed.
        bits_read: how much of the program was read.
        steps: instructions begun.
        listing: the instructions read, data bits as ₀ and ₁, in the order of reading.
    """

    status: Status
    output: tuple[int, ...]
    bits_read: int
    steps: int
    listing: str


def assemble(text: str) -> tuple[int, ...]:
    """The bits of `text`: instruction symbols, and ₀ or ₁ for bits of data; spaces are ignored.

    Raises:
        InvalidArgumentError: a character that is none of these.

    >>> assemble("0]")
    (0, 1, 0, 1, 0, 1)
    """
    bits: list[int] = []
    for position, symbol in enumerate(text):
        if symbol in _DATA_BITS:
            bits.append(_DATA_BITS.index(symbol))
        elif not symbol.isspace():
            try:
                bits.extend(OPCODES[Instruction(symbol)])
            except ValueError:
                raise InvalidArgumentError(
                    f"character {position} must be one of "
                    f"{' '.join(i.value for i in Instruction)} or a data bit ₀ ₁, got {symbol!r}"
                ) from None
    return tuple(bits)


def run(program: Iterable[int], *, limits: Limits, max_symbols: int) -> Run:
    """Run `program` by the definition above, slow and plain.

    Many programs at once, and fast: `toy_world.machine.enumeration`.

    Args:
        program: bits, finitely many or not; no more are taken than the machine reads.
        limits: what the run may use.
        max_symbols: it ends when so many symbols have been printed, at least 1.

    Raises:
        InvalidArgumentError: max_symbols < 1, or a bit that is neither 0 nor 1.

    >>> run(assemble("0+::1"), limits=Limits(bits=13, steps=1000), max_symbols=100).output[92:]
    (0, 1)
    """
    if max_symbols < 1:
        raise InvalidArgumentError(f"max_symbols must be >= 1, got {max_symbols}")
    return _Machine(iter(program), limits, max_symbols).run()


class _Machine:
    """One run: the code store, the tape, and what has been read and printed."""

    def __init__(self, program: Iterator[int], limits: Limits, max_symbols: int) -> None:
        self.program = program
        self.limits = limits
        self.max_symbols = max_symbols
        self.bits_read = 0
        self.steps = 0
        self.output: list[int] = []
        self.listing = ""
        self.code: list[Instruction] = []
        self.next = 0
        self.opened: list[int] = []  # brackets read and not yet closed
        self.partner: dict[int, int] = {}  # `[` to `]`, and `]` and `:` to `[`, or to -1
        self.repeats: dict[int, int] = {}  # how often each `:` under way still goes back
        self.cells: defaultdict[int, int] = defaultdict(int)
        self.head = 0
        self.highest = -1  # of the cells ever written
        self.changes = 0  # cells written and symbols printed
        self.lefts = 0
        self.went_back: dict[int, tuple[int, int, int]] = {}

    def run(self) -> Run:
        """Execute until something ends it."""
        while True:
            status = self.step()
            if status is not None:
                return Run(
                    status=status,
                    output=tuple(self.output),
                    bits_read=self.bits_read,
                    steps=self.steps,
                    listing=self.listing,
                )

    def step(self) -> Status | None:  # noqa: C901, PLR0911, PLR0912 - one case an instruction
        """Execute one instruction, reading it first if need be."""
        if self.steps == self.limits.steps:
            return Status.TIMEOUT
        if self.next == len(self.code) and not self.read_instruction():
            return Status.WAITING
        self.steps += 1
        here = self.next
        self.next += 1
        match self.code[here]:
            case Instruction.AGAIN:
                left = self.repeats.pop(here, self.cells[self.head] + 1)
                if left > 0:
                    self.repeats[here] = left - 1
                    self.next = self.partner[here] + 1
            case Instruction.PRINT_0:
                return self.print(0)
            case Instruction.PRINT_1:
                return self.print(1)
            case Instruction.ADD:
                self.write(self.cells[self.head] + 1)
            case Instruction.CLOSE:
                if self.cells[self.head] > 0:
                    self.write(self.cells[self.head] - 1)
                else:
                    self.next = self.partner[here] + 1
                    return self.go_back(here)
            case Instruction.OPEN:
                if self.cells[self.head] > 0:
                    self.write(self.cells[self.head] - 1)
                    while here not in self.partner:
                        if not self.read_instruction():
                            return Status.WAITING
                    self.next = self.partner[here] + 1
            case Instruction.READ:
                if self.cells[self.head] >= MAX_DOUBLED:
                    return Status.TAPE_LIMIT
                bit = self.read_bit()
                if bit is None:
                    return Status.WAITING
                self.listing += _DATA_BITS[bit]
                self.write(2 * self.cells[self.head] + bit)
            case Instruction.LEFT:
                if self.head == 0:
                    return Status.HALTED
                self.head -= 1
                self.lefts += 1
            case Instruction.RIGHT:
                if self.head == self.limits.cells - 1:
                    return Status.TAPE_LIMIT
                self.head += 1
        return None

    def read_bit(self) -> int | None:
        """The next bit of the program, or None if there is none."""
        if self.bits_read == self.limits.bits:
            return None
        bit = next(self.program, None)
        if bit is None:
            return None
        if bit not in (0, 1):
            raise InvalidArgumentError(f"a program is made of bits 0 and 1, got {bit!r}")
        self.bits_read += 1
        return bit

    def read_instruction(self) -> bool:
        """Read one instruction into the code store; False if the bits do not suffice."""
        opcode: tuple[int, ...] = ()
        while opcode not in _INSTRUCTIONS:
            bit = self.read_bit()
            if bit is None:
                return False
            opcode += (bit,)
        instruction = _INSTRUCTIONS[opcode]
        here = len(self.code)
        self.code.append(instruction)
        self.listing += instruction.value
        match instruction:
            case Instruction.OPEN:
                self.opened.append(here)
            case Instruction.CLOSE:
                bracket = self.opened.pop() if self.opened else -1
                self.partner[here], self.partner[bracket] = bracket, here
            case Instruction.AGAIN:
                self.partner[here] = self.opened[-1] if self.opened else -1
        return True

    def write(self, number: int) -> None:
        """Put `number` into the cell under the head."""
        self.cells[self.head] = number
        self.highest = max(self.highest, self.head)
        self.changes += 1

    def print(self, symbol: int) -> Status | None:
        """Print `symbol`."""
        self.output.append(symbol)
        self.changes += 1
        return Status.OUTPUT_LIMIT if len(self.output) == self.max_symbols else None

    def go_back(self, here: int) -> Status | None:
        """Whether the `]` at `here`, going back, proves that nothing will be printed any more.

        Compare with the last time that it went back. If nothing was written or printed since
        and the head is where it was, the configuration is the same (every `:` inside the body
        has finished, none outside it has been met). If the head has moved right, never left,
        over cells that were never written, the same will happen for ever further right.
        """
        before = self.went_back.get(here)
        self.went_back[here] = (self.changes, self.lefts, self.head)
        if before is None or before[0] != self.changes:
            return None
        _, lefts, head = before
        if head == self.head or (self.highest < head < self.head and lefts == self.lefts):
            return Status.LOOPING
        return None
