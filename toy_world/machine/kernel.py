"""The machine of `toy_world.machine.definition`, compiled: one interpreter, driven in two ways.

`_advance` executes until something has to come from or go to outside: a bit, a symbol, an end.
`enumerate_kernel` answers each wish for bits in every possible way, depth first: the wish is a
*frame*, a snapshot of the machine, restored for each answer in turn. At a wish for an instruction
a snapshot is the registers and the written cells, since every `:` read so far has finished and
the code store is a stack; at a wish for data it also holds the state of every `:`.
`sample_kernel` answers from given random words.

These functions check nothing; `toy_world.machine.enumeration` does.
"""

from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.compiled import compiled
from toy_world.machine.definition import MAX_DOUBLED, OPCODES, Instruction, Status

Array = NDArray[Any]

INSTRUCTIONS: Final = list(Instruction)
STATUSES: Final = list(Status)
"""A status is this list's index in what the kernels return."""


class Op(IntEnum):
    """The instructions as numbers: their places in `INSTRUCTIONS`."""

    AGAIN = 0
    PRINT_0 = 1
    PRINT_1 = 2
    ADD = 3
    CLOSE = 4
    OPEN = 5
    READ = 6
    LEFT = 7
    RIGHT = 8


class Event(IntEnum):
    """Why `_advance` returns: first how a run can end, as places in `STATUSES`."""

    HALTED = 0
    LOOPING = 1
    OUTPUT_LIMIT = 2
    TIMEOUT = 3
    TAPE_LIMIT = 4
    WAITING = 5
    # From here on the run can go on.
    PRINTED_0 = 6
    PRINTED_1 = 7
    # From here on it needs bits.
    WANTS_INSTRUCTION = 8
    WANTS_TO_SKIP = 9
    """An instruction too, but as part of a body that is left out."""
    WANTS_DATA = 10


OPCODE_LENGTHS: Final = np.array([len(OPCODES[i]) for i in INSTRUCTIONS], dtype=np.int64)
LONGEST_OPCODE: Final = int(OPCODE_LENGTHS.max())
_SHORTEST_OPCODE: Final = int(OPCODE_LENGTHS.min())
_N_INSTRUCTIONS: Final = len(INSTRUCTIONS)
_VALUES: Final = np.array(
    [sum(bit << k for k, bit in enumerate(reversed(OPCODES[i]))) for i in INSTRUCTIONS],
    dtype=np.int64,
)
"""The opcodes as numbers."""
_DECODED: Final = np.repeat(np.arange(_N_INSTRUCTIONS), 1 << (LONGEST_OPCODE - OPCODE_LENGTHS))
"""The instruction that a full-length string of bits begins with."""
_FIRST_INCOMPLETE: Final = np.array(
    [sum(1 << (r - int(n)) for n in OPCODE_LENGTHS if n <= r) for r in range(LONGEST_OPCODE + 1)],
    dtype=np.int64,
)
"""Of the strings of r bits those from this one on hold no complete instruction.

That is how the opcodes are ordered: shorter ones first.
"""


class Machine(NamedTuple):
    """The code store and the tape, and what the machine remembers of each stored instruction.

    Attributes:
        cells: the tape.
        code: the code store.
        target: where each `]` and `:` goes back to, and each `[` on to (0: not known yet).
        enclosing: of each `[` the one that is open around it, or -1.
        repeats: of each `:` 0 if it is not under way, else 1 + how often it still goes back.
        went_back: shape (n, 3): changes, lefts and head when each `]` last went back.
    """

    cells: Array
    code: Array
    target: Array
    enclosing: Array
    repeats: Array
    went_back: Array


class Registers(NamedTuple):
    """What a run changes besides the arrays.

    Attributes:
        position: of the next instruction in the code store.
        head: the cell under the head.
        highest: the highest cell ever written, or -1.
        steps: instructions begun.
        changes: grows with every write and print, and never shrinks.
        lefts: grows with every `<`, and never shrinks.
    """

    position: int
    head: int
    highest: int
    steps: int
    changes: int
    lefts: int


@compiled
def new_machine(n_cells: int, n_instructions: int) -> Machine:
    """A machine with an empty tape of so many cells and room for so many instructions."""
    return Machine(
        cells=np.zeros(n_cells, np.int64),
        code=np.zeros(n_instructions, np.int64),
        target=np.zeros(n_instructions, np.int64),
        enclosing=np.full(n_instructions, -1, np.int64),
        repeats=np.zeros(n_instructions, np.int64),
        went_back=np.full((n_instructions, 3), -1, np.int64),
    )


@compiled
def _advance(  # noqa: C901, PLR0912, PLR0915 - one loop: the state stays in registers
    machine: Machine, at: Registers, length: int, max_steps: int
) -> tuple[Event, Registers]:
    """Execute until a status, a printed symbol, or a wish for bits.

    Args:
        machine: whose arrays are changed.
        at: the registers.
        length: of the code store.
        max_steps: T.

    Returns:
        The event, and the registers as they are now.
    """
    cells, code, target = machine.cells, machine.code, machine.target
    repeats, went_back = machine.repeats, machine.went_back
    position, head, highest = at.position, at.head, at.highest
    steps, changes, lefts = at.steps, at.changes, at.lefts
    while True:
        if steps == max_steps:
            event = Event.TIMEOUT
            break
        if position == length:
            event = Event.WANTS_INSTRUCTION
            break
        steps += 1
        # Unsigned, so that indexing does not test for negative numbers at every step.
        here, cell = np.uint64(position), np.uint64(head)
        instruction = code[here]
        if instruction == Op.AGAIN:
            # One more than how often it still goes back, so that 0 says that it is not under way.
            left = repeats[here]
            if left == 0:
                left = cells[cell] + 2
            repeats[here] = left - 1
            position = target[here] if left > 1 else position + 1
        elif instruction <= Op.PRINT_1:
            position += 1
            changes += 1
            event = Event.PRINTED_0 if instruction == Op.PRINT_0 else Event.PRINTED_1
            break
        elif instruction == Op.ADD:
            cells[cell] += 1
            highest = max(highest, head)
            changes += 1
            position += 1
        elif instruction == Op.CLOSE:
            if cells[cell] > 0:
                cells[cell] -= 1
                changes += 1
                position += 1
            else:
                # Silent for ever, if nothing has changed since it last went back from here and
                # the head is where it was, or further right on blank tape without a step left.
                was_at = went_back[here, 2]
                if went_back[here, 0] == changes and (
                    was_at == head or (highest < was_at < head and went_back[here, 1] == lefts)
                ):
                    event = Event.LOOPING
                    break
                went_back[here, 0] = changes
                went_back[here, 1] = lefts
                went_back[here, 2] = head
                position = target[here]
        elif instruction == Op.OPEN:
            if cells[cell] == 0:
                position += 1
            else:
                cells[cell] -= 1
                changes += 1
                if target[here] == 0:  # the body has not been read to its end
                    event = Event.WANTS_TO_SKIP
                    break
                position = target[here]
        elif instruction == Op.READ:
            event = Event.WANTS_DATA if cells[cell] < MAX_DOUBLED else Event.TAPE_LIMIT
            break
        elif instruction == Op.LEFT:
            if head == 0:
                event = Event.HALTED
                break
            head -= 1
            lefts += 1
            position += 1
        else:
            if head == cells.shape[0] - 1:
                event = Event.TAPE_LIMIT
                break
            head += 1
            position += 1
    return event, Registers(position, head, highest, steps, changes, lefts)


@compiled
def _append(
    code: Array, target: Array, enclosing: Array, length: int, opened: int, instruction: int
) -> int:
    """Append an instruction to the code store.

    (It takes the machine's arrays one by one: taking them out of a tuple would cost more, at
    every instruction that is read, than all else that happens here.)

    Args:
        code: as in `Machine`; likewise the next two.
        target: changed.
        enclosing: changed.
        length: of the code store until now.
        opened: the innermost open bracket until now, or -1.
        instruction: what was read.

    Returns:
        The innermost open bracket from now on, or -1.
    """
    code[length] = instruction
    if instruction == Op.OPEN:
        target[length] = 0
        enclosing[length] = opened
        return length
    target[length] = opened + 1
    if instruction == Op.CLOSE and opened >= 0:
        target[opened] = length + 1
        return enclosing[opened]  # type: ignore[no-any-return]
    return opened


@compiled
def _skipping(skipping: int, instruction: int) -> int:
    """How many `]` end the body that is left out, given how many did before `instruction`."""
    if skipping > 0:
        if instruction == Op.OPEN:
            return skipping + 1
        if instruction == Op.CLOSE:
            return skipping - 1
    return skipping


@compiled
def _jumped(at: Registers, position: int) -> Registers:
    """The same registers with another next instruction."""
    return Registers(position, at.head, at.highest, at.steps, at.changes, at.lefts)


@compiled
def _read_data(machine: Machine, at: Registers, bit: int) -> Registers:
    """Execute the `,` that wished for `bit`."""
    machine.cells[at.head] = 2 * machine.cells[at.head] + bit
    return Registers(
        at.position + 1, at.head, max(at.highest, at.head), at.steps, at.changes + 1, at.lefts
    )


FRAME: Final = np.dtype(
    [
        (name, np.int64)
        for name in (
            # What the search wants to know: the next answer to try, what was wished for, and
            # the bits, the program and the node of the output tree so far.
            *("choice", "wants", "bits", "program", "node"),
            # Of the registers those that are restored, and how far the program was read.
            *("position", "head", "highest", "steps", "length", "opened", "skipping"),
        )
    ]
)


class Frames(NamedTuple):
    """The wishes for bits that are being answered, the outermost first.

    Attributes:
        records: of dtype `FRAME`.
        cells: the tape up to its highest written cell, for each frame.
        repeats: the state of every `:`, where data were wished for.
    """

    records: Array
    cells: Array
    repeats: Array


class Tally(NamedTuple):
    """What `enumerate_kernel` counts, all added to or lowered in place.

    Attributes:
        reached: shape (n,), to which `2^(L - |p|)` is added for every minimal program p.
        ended: shape (len(Status), n), to which the same is added where a program ends; at
            `OUTPUT_LIMIT`, the last node it reached.
        shortest_bits: shape (n,), lowered to the length of the shortest program.
        shortest_program: shape (n,), that program as a number; ties go to the first.
        waiting: the programs that want another bit, as numbers, as many as fit.
        counters: shape (3,), to which the numbers of instructions read, of programs ended (those
            that want another bit included), and of steps executed are added.
    """

    reached: Array
    ended: Array
    shortest_bits: Array
    shortest_program: Array
    waiting: Array
    counters: Array


@compiled
def _agrees(word: int, word_bits: int, n_read: int, value: int, taken: int) -> bool:
    """Whether `taken` bits of this value, after `n_read` others, are those of the word there."""
    if n_read >= word_bits:
        return True
    compared = min(taken, word_bits - n_read)
    wanted = (word >> (word_bits - n_read - compared)) & ((1 << compared) - 1)
    return value >> (taken - compared) == wanted


@compiled
def _restored(machine: Machine, frames: Frames, depth: int, before: Registers) -> Registers:
    """The registers of a frame, whose tape is put in place of the one that there was before.

    `changes` and `lefts` go on from where they are. Going back to a frame counts as a change, so
    that a `]` does not take what it noted on another branch of the search for its own past.
    """
    frame = frames.records[depth]
    for k in range(frame.highest + 1, before.highest + 1):  # beyond that all cells are 0
        machine.cells[k] = 0
    for k in range(frame.highest + 1):
        machine.cells[k] = frames.cells[depth, k]
    return Registers(
        frame.position, frame.head, frame.highest, frame.steps, before.changes + 1, before.lefts
    )


@compiled
def _wait(tally: Tally, program: int, left: int, first: int, n_waiting: int) -> int:
    """Note the strings of L bits that begin with a program and then want another bit.

    Args:
        tally: whose `waiting` is filled.
        program: what was read.
        left: the bits that are left.
        first: the first string of so many bits that completes no wish.
        n_waiting: how many programs wait already.

    Returns:
        How many wait now.
    """
    for rest in range(first, 1 << left):
        if n_waiting < tally.waiting.shape[0]:
            tally.waiting[n_waiting] = (program << left) | rest
        n_waiting += 1
    return n_waiting


@compiled
def enumerate_kernel(  # noqa: C901, PLR0912, PLR0915 - one loop: the state stays in registers
    word: int,
    word_bits: int,
    max_bits: int,
    max_steps: int,
    n_cells: int,
    children: Array,
    tally: Tally,
) -> None:
    """Run every program of up to L bits that begins with, or is the beginning of, a given word.

    What is found out after reading fewer bits than a word has belongs to every word with that
    beginning; it is counted for the one that goes on with zeros. So all words of one length
    together count everything once.

    Args:
        word: as a number.
        word_bits: the word's length, 0, or at most L minus the longest opcode.
        max_bits: L, at most 62.
        max_steps: T.
        n_cells: the tape's length.
        children: shape (n, 2), the output tree; -1 where it ends.
        tally: what is counted.
    """
    size = max_bits + 2
    machine = new_machine(n_cells, size)
    code, target, enclosing = machine.code, machine.target, machine.enclosing
    frames = Frames(
        np.zeros(size, FRAME),
        np.zeros((size, min(n_cells, max_steps + 1)), np.int64),
        np.zeros((size, size), np.int64),
    )
    at = Registers(0, 0, -1, 0, 0, 0)
    n_instructions = 0
    n_ended = 0
    n_waiting = 0
    n_steps = 0

    if max_bits < LONGEST_OPCODE:  # else the first instruction can be read whatever it is
        n_waiting = _wait(tally, 0, max_bits, _FIRST_INCOMPLETE[max_bits], n_waiting)
        tally.ended[Event.WAITING, 0] += n_waiting
    depth = 0
    frame = frames.records[0]
    frame.wants = Event.WANTS_INSTRUCTION
    frame.highest = -1
    frame.opened = -1
    while depth >= 0:
        # The next answer to the innermost wish. An instruction is chosen whole: its opcode's bits
        # are read one by one, but nothing happens before the last.
        frame = frames.records[depth]
        choice = frame.choice
        wants_data = frame.wants == Event.WANTS_DATA
        if choice == (2 if wants_data else _N_INSTRUCTIONS):
            depth -= 1
            continue
        frame.choice = choice + 1
        taken = 1 if wants_data else OPCODE_LENGTHS[choice]
        value = choice if wants_data else _VALUES[choice]
        bits = frame.bits + taken
        if bits > max_bits or not _agrees(word, word_bits, frame.bits, value, taken):
            continue
        # Before the word is read to its end, only for the word that goes on with zeros.
        counts = bits >= word_bits or word & ((1 << (word_bits - bits)) - 1) == 0
        weight = 1 << (max_bits - bits)
        program = (frame.program << taken) | value
        node = frame.node

        # The machine as it was when it wished, given this answer.
        at = _restored(machine, frames, depth, at)
        length = frame.length
        opened = frame.opened
        skipping = frame.skipping
        if wants_data:
            for k in range(length):
                machine.repeats[k] = frames.repeats[depth, k]
            at = _read_data(machine, at, value)
        else:
            if opened >= 0:
                target[opened] = 0  # its `]`, if the last choice was one, is unread again
            opened = _append(code, target, enclosing, length, opened, choice)
            skipping = _skipping(skipping, choice)
            length += 1
            if frame.skipping > 0:
                at = _jumped(at, length)
            if counts:
                n_instructions += 1

        # It runs until it wishes again or ends, its output down the tree; a body that is left
        # out wishes at once.
        event = Event.WANTS_INSTRUCTION
        while skipping == 0:
            event, at = _advance(machine, at, length, max_steps)
            if event != Event.PRINTED_0 and event != Event.PRINTED_1:  # noqa: PLR1714 - compiled
                break
            child = children[node, event - Event.PRINTED_0]
            if child < 0:
                event = Event.OUTPUT_LIMIT
                break
            node = child
            if counts:
                tally.reached[node] += weight
                if bits < tally.shortest_bits[node]:
                    tally.shortest_bits[node] = bits
                    tally.shortest_program[node] = program
            if children[node, 0] < 0 and children[node, 1] < 0:
                event = Event.OUTPUT_LIMIT
                break
        if counts:
            n_steps += at.steps - frame.steps
        if event == Event.WANTS_DATA:
            for k in range(length):
                frames.repeats[depth + 1, k] = machine.repeats[k]
        # At a wish for an instruction every `:` has finished, and so has none under way; else
        # the next branch must find none.
        if event == Event.WANTS_DATA or event < Event.PRINTED_0:
            for k in range(length):
                machine.repeats[k] = 0
        if event < Event.PRINTED_0:
            if counts:
                tally.ended[event, node] += weight
                n_ended += 1
            continue

        # The new wish: some strings of the bits that are left complete no answer to it, the
        # others are tried next.
        left = max_bits - bits
        if left < (1 if event == Event.WANTS_DATA else LONGEST_OPCODE):
            first = 0 if event == Event.WANTS_DATA else _FIRST_INCOMPLETE[left]
            n_waiting = _wait(tally, program, left, first, n_waiting)
            tally.ended[Event.WAITING, node] += (1 << left) - first
        if left < (1 if event == Event.WANTS_DATA else _SHORTEST_OPCODE):
            continue
        depth += 1
        frame = frames.records[depth]
        frame.choice = 0
        frame.wants = event
        frame.bits = bits
        frame.program = program
        frame.node = node
        frame.position = at.position
        frame.head = at.head
        frame.highest = at.highest
        frame.steps = at.steps
        frame.length = length
        frame.opened = opened
        frame.skipping = 1 if event == Event.WANTS_TO_SKIP else skipping
        for k in range(at.highest + 1):
            frames.cells[depth, k] = machine.cells[k]
    tally.counters[0] += n_instructions
    tally.counters[1] += n_ended + n_waiting
    tally.counters[2] += n_steps


@compiled
def _peek(words: Array, row: int, bits: int) -> Any:
    """The next `LONGEST_OPCODE` bits after the first `bits` of a row (zeros beyond its end)."""
    word, offset = bits >> 6, np.uint64(bits & 63)
    if word >= words.shape[1]:
        return np.int64(0)
    window = words[row, word] << offset
    if offset > 64 - LONGEST_OPCODE and word + 1 < words.shape[1]:
        window |= words[row, word + 1] >> (np.uint64(64) - offset)
    return np.int64(window >> np.uint64(64 - LONGEST_OPCODE))


class Outcomes(NamedTuple):
    """What `sample_kernel` writes of each program.

    Attributes:
        outputs: shape (n, max_symbols), uint8; row i is written up to `n_symbols[i]`.
        n_symbols: shape (n,).
        statuses: shape (n,), indices in `STATUSES`.
        bits_read: shape (n,).
        steps: shape (n,).
    """

    outputs: Array
    n_symbols: Array
    statuses: Array
    bits_read: Array
    steps: Array


@compiled
def sample_kernel(  # noqa: C901 - one loop: the state stays in registers
    words: Array, max_bits: int, max_steps: int, n_cells: int, outcomes: Outcomes
) -> None:
    """Run the programs whose bits are the rows of `words`, most significant bit first.

    Args:
        words: shape (n, ceil(L / 64)), uint64.
        max_bits: L.
        max_steps: T.
        n_cells: the tape's length.
        outcomes: written.
    """
    machine = new_machine(n_cells, max_bits // _SHORTEST_OPCODE + 2)
    code, target, enclosing = machine.code, machine.target, machine.enclosing
    max_symbols = outcomes.outputs.shape[1]
    at = Registers(0, 0, -1, 0, 0, 0)
    for i in range(words.shape[0]):
        for k in range(at.highest + 1):
            machine.cells[k] = 0
        # A change, so that no `]` takes what it noted in another program for its own past.
        at = Registers(0, 0, -1, 0, at.changes + 1, at.lefts)
        length = 0
        opened = -1
        skipping = 0
        printed = 0
        bits = 0
        event = Event.WANTS_INSTRUCTION
        while event >= Event.PRINTED_0:
            if event >= Event.WANTS_INSTRUCTION and bits == max_bits:
                event = Event.WAITING
                break
            if event == Event.WANTS_DATA:
                at = _read_data(machine, at, _peek(words, i, bits) >> (LONGEST_OPCODE - 1))
                bits += 1
            elif event >= Event.WANTS_INSTRUCTION:
                instruction = _DECODED[_peek(words, i, bits)]
                bits += OPCODE_LENGTHS[instruction]
                if bits > max_bits:
                    bits = max_bits
                    event = Event.WAITING
                    break
                if event == Event.WANTS_TO_SKIP:
                    skipping = 1
                opened = _append(code, target, enclosing, length, opened, instruction)
                machine.repeats[length] = 0
                length += 1
                if skipping > 0:
                    at = _jumped(at, length)
                    skipping = _skipping(skipping, instruction)
                    if skipping > 0:
                        event = Event.WANTS_INSTRUCTION
                        continue
            else:
                outcomes.outputs[i, printed] = event - Event.PRINTED_0
                printed += 1
                if printed == max_symbols:
                    event = Event.OUTPUT_LIMIT
                    break
            event, at = _advance(machine, at, length, max_steps)
        outcomes.n_symbols[i] = printed
        outcomes.statuses[i] = event
        outcomes.bits_read[i] = bits
        outcomes.steps[i] = at.steps
