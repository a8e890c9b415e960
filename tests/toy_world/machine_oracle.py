"""An interpreter of the universal machine written differently: a tree run by recursion.

`toy_world.machine.definition` and its kernel move a position through a flat store of instructions.
Here a block is a list of instructions and inner blocks, `:` and `]` are Python loops over the block
so far, and there is no test for endless loops.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from toy_world.machine.definition import OPCODES, Status


@dataclass
class Block:
    items: list["str | Block"] = field(default_factory=list)
    closed: bool = False


class EndError(Exception):
    pass


class Oracle:
    """`run` gives how the program ended; the rest is what it did."""

    def __init__(self, program: Sequence[int], *, steps: int, cells: int, max_symbols: int) -> None:
        self.program = program
        self.steps_left = steps
        self.cells = cells
        self.max_symbols = max_symbols
        self.bits_read = 0
        self.output: list[int] = []
        self.bits_at_symbol: list[int] = []
        self.tape = [0] * cells
        self.head = 0

    def run(self) -> Status:
        try:
            self.first_time(Block(), outermost=True)
        except EndError as end:
            return end.args[0]
        raise AssertionError("the outermost block never ends")

    def first_time(self, block: Block, *, outermost: bool) -> None:
        while not block.closed:
            if self.steps_left == 0:
                raise EndError(Status.TIMEOUT)
            item = self.read()
            if item == "]" and not outermost:
                self.until_positive(block, len(block.items))
                block.closed = True
            else:
                block.items.append(Block() if item == "[" else item)
                self.execute(block, len(block.items) - 1)

    def execute(self, block: Block, i: int) -> None:
        item = block.items[i]
        if item == ":":
            times = self.tape[self.head] + 1
            self.tick()
            for _ in range(times):
                self.prefix(block, i)
                self.tick()
        elif item == "]":
            self.until_positive(block, i)
        elif isinstance(item, Block):
            self.tick()
            if self.tape[self.head] > 0:
                self.tape[self.head] -= 1
                self.leave_out(item)
            elif item.closed:
                self.prefix(item, len(item.items))
                self.until_positive(item, len(item.items))
            else:
                self.first_time(item, outermost=False)
        else:
            self.tick()
            self.simple(item)

    def prefix(self, block: Block, end: int) -> None:
        for i in range(end):
            self.execute(block, i)

    def until_positive(self, block: Block, end: int) -> None:
        self.tick()
        while self.tape[self.head] == 0:
            self.prefix(block, end)
            self.tick()
        self.tape[self.head] -= 1

    def leave_out(self, block: Block) -> None:
        while not block.closed:
            item = self.read()
            if item == "]":
                block.closed = True
            elif item == "[":
                inner = Block()
                block.items.append(inner)
                self.leave_out(inner)
            else:
                block.items.append(item)

    def simple(self, item: str) -> None:
        match item:
            case "0" | "1":
                self.output.append(int(item))
                self.bits_at_symbol.append(self.bits_read)
                if len(self.output) == self.max_symbols:
                    raise EndError(Status.OUTPUT_LIMIT)
            case "+":
                self.tape[self.head] += 1
            case ",":
                self.tape[self.head] *= 2
                self.tape[self.head] += self.bit()
            case "<":
                if self.head == 0:
                    raise EndError(Status.HALTED)
                self.head -= 1
            case ">":
                if self.head == self.cells - 1:
                    raise EndError(Status.TAPE_LIMIT)
                self.head += 1

    def tick(self) -> None:
        if self.steps_left == 0:
            raise EndError(Status.TIMEOUT)
        self.steps_left -= 1

    def bit(self) -> int:
        if self.bits_read == len(self.program):
            raise EndError(Status.WAITING)
        self.bits_read += 1
        return self.program[self.bits_read - 1]

    def read(self) -> str:
        opcode: tuple[int, ...] = ()
        while True:
            opcode = (*opcode, self.bit())
            for instruction, bits in OPCODES.items():
                if bits == opcode:
                    return instruction.value
