"""The machine of `toy_world.machine.definition`, compiled: one interpreter, driven in two ways.

`_advance` executes until something has to come from or go to outside: a bit, a symbol, an end.
`enumerate_kernel` answers each wish for bits in every possible way, depth first: the wish is a
*frame*, a snapshot of the machine, restored for each answer in turn. At a wish for an instruction
a snapshot is the registers and the written cells, since every `:` read so far has finished and
the code store is a stack; at a wish for data it also holds the state of every `:`.
`sample_kernel` answers from given random words.

These functions check nothing; `toy_world.machine.enumeration` does.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toy_world.compiled import compiled
from toy_world.machine.definition import MAX_DOUBLED, OPCODES, Instruction, Status

_ORDER: Final = list(Instruction)
_AGAIN: Final = _ORDER.index(Instruction.AGAIN)
_PRINT_0: Final = _ORDER.index(Instruction.PRINT_0)
_PRINT_1: Final = _ORDER.index(Instruction.PRINT_1)
_ADD: Final = _ORDER.index(Instruction.ADD)
_CLOSE: Final = _ORDER.index(Instruction.CLOSE)
_OPEN: Final = _ORDER.index(Instruction.OPEN)
_READ: Final = _ORDER.index(Instruction.READ)
_LEFT: Final = _ORDER.index(Instruction.LEFT)
_N_INSTRUCTIONS: Final = len(_ORDER)

STATUSES: Final = list(Status)
"""A status is this list's index in what the kernels return."""
_HALTED: Final = STATUSES.index(Status.HALTED)
_LOOPING: Final = STATUSES.index(Status.LOOPING)
_OUTPUT_LIMIT: Final = STATUSES.index(Status.OUTPUT_LIMIT)
_TIMEOUT: Final = STATUSES.index(Status.TIMEOUT)
_TAPE_LIMIT: Final = STATUSES.index(Status.TAPE_LIMIT)
_WAITING: Final = STATUSES.index(Status.WAITING)

# What `_advance` returns besides a status.
_PRINTED_0: Final = len(STATUSES)
_PRINTED_1: Final = len(STATUSES) + 1
_WANTS_INSTRUCTION: Final = len(STATUSES) + 2
_WANTS_TO_SKIP: Final = len(STATUSES) + 3
_WANTS_DATA: Final = len(STATUSES) + 4

# The columns of a frame: first what the driver wants to know, then the machine's registers.
_CHOICE, _WANTS, _BITS, _PROGRAM, _NODE = range(5)
_POSITION, _HEAD, _HIGHEST, _LENGTH, _OPENED, _SKIPPING, _STEPS = range(5, 12)
_FRAME_SIZE: Final = 12

OPCODE_LENGTHS: Final = np.array([len(OPCODES[i]) for i in _ORDER], dtype=np.int64)
LONGEST_OPCODE: Final = int(OPCODE_LENGTHS.max())
_SHORTEST_OPCODE: Final = int(OPCODE_LENGTHS.min())
_VALUES: Final = np.array(
    [sum(bit << k for k, bit in enumerate(reversed(OPCODES[i]))) for i in _ORDER], dtype=np.int64
)
_DECODED: Final = np.repeat(np.arange(len(_ORDER)), 1 << (LONGEST_OPCODE - OPCODE_LENGTHS))
"""The instruction that a full-length string of bits begins with."""
_FIRST_INCOMPLETE: Final = np.array(
    [sum(1 << (r - int(n)) for n in OPCODE_LENGTHS if n <= r) for r in range(LONGEST_OPCODE + 1)],
    dtype=np.int64,
)
"""Of the strings of r bits those from this one on hold no complete instruction.

That is how the opcodes are ordered: shorter ones first.
"""

Array = NDArray[Any]


@compiled
def _advance(  # noqa: C901, PLR0912, PLR0915 - one loop: the state stays in registers
    position: int,
    head: int,
    highest: int,
    steps: int,
    changes: int,
    lefts: int,
    length: int,
    cells: Array,
    code: Array,
    target: Array,
    repeats: Array,
    went_back: Array,
    max_steps: int,
) -> tuple[int, int, int, int, int, int, int]:
    """Execute until a status, a printed symbol, or a wish for bits.

    Args:
        position: of the next instruction in the code store.
        head: the cell under the head.
        highest: the highest cell ever written, or -1.
        steps: instructions begun.
        changes: grows with every write and print, and never shrinks.
        lefts: grows with every `<`, and never shrinks.
        length: of the code store.
        cells: the tape.
        code: the code store.
        target: where each `]` and `:` goes back to, and each `[` on to (0: not known yet).
        repeats: of each `:` 0 if it is not under way, else 1 + how often it still goes back.
        went_back: shape (n, 3): changes, lefts and head when each `]` last went back.
        max_steps: T.

    Returns:
        The event, and the first six arguments as they are now.
    """
    while True:
        if steps == max_steps:
            event = _TIMEOUT
            break
        if position == length:
            event = _WANTS_INSTRUCTION
            break
        steps += 1
        here, at = np.uint64(position), np.uint64(head)  # unsigned: no test for negative indices
        instruction = code[here]
        if instruction == _AGAIN:
            left = repeats[here]
            if left == 0:
                left = cells[at] + 2
            repeats[here] = left - 1
            position = target[here] if left > 1 else position + 1
        elif instruction <= _PRINT_1:
            position += 1
            changes += 1
            event = _PRINTED_0 + (instruction - _PRINT_0)
            break
        elif instruction == _ADD:
            cells[at] += 1
            highest = max(highest, head)
            changes += 1
            position += 1
        elif instruction == _CLOSE:
            if cells[at] > 0:
                cells[at] -= 1
                changes += 1
                position += 1
            else:
                was_at = went_back[here, 2]
                if went_back[here, 0] == changes and (
                    was_at == head or (highest < was_at < head and went_back[here, 1] == lefts)
                ):
                    event = _LOOPING
                    break
                went_back[here, 0] = changes
                went_back[here, 1] = lefts
                went_back[here, 2] = head
                position = target[here]
        elif instruction == _OPEN:
            if cells[at] == 0:
                position += 1
            else:
                cells[at] -= 1
                changes += 1
                if target[here] == 0:
                    event = _WANTS_TO_SKIP
                    break
                position = target[here]
        elif instruction == _READ:
            event = _WANTS_DATA if cells[at] < MAX_DOUBLED else _TAPE_LIMIT
            break
        elif instruction == _LEFT:
            if head == 0:
                event = _HALTED
                break
            head -= 1
            lefts += 1
            position += 1
        else:
            if head == cells.shape[0] - 1:
                event = _TAPE_LIMIT
                break
            head += 1
            position += 1
    return event, position, head, highest, steps, changes, lefts


@compiled
def _store(
    instruction: int, here: int, opened: int, code: Array, target: Array, enclosing: Array
) -> int:
    """Append `instruction` to a code store of length `here`.

    Returns:
        The innermost bracket that is open now, given the one that was, or -1.
    """
    code[here] = instruction
    if instruction == _OPEN:
        target[here] = 0
        enclosing[here] = opened
        return here
    target[here] = opened + 1
    if instruction == _CLOSE and opened >= 0:
        target[opened] = here + 1
        return enclosing[opened]  # type: ignore[no-any-return]
    return opened


@compiled
def _skipping(skipping: int, instruction: int) -> int:
    """How many `]` end the body that is left out, given how many did before `instruction`."""
    if skipping > 0:
        if instruction == _OPEN:
            return skipping + 1
        if instruction == _CLOSE:
            return skipping - 1
    return skipping


@compiled
def enumerate_kernel(  # noqa: C901, PLR0912, PLR0915 - one loop: the state stays in registers
    word: int,
    word_bits: int,
    max_bits: int,
    max_steps: int,
    n_cells: int,
    children: Array,
    reached: Array,
    ended: Array,
    shortest_bits: Array,
    shortest_program: Array,
    waiting: Array,
    counters: Array,
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
        reached: shape (n,), to which `2^(L - |p|)` is added for every minimal program p.
        ended: shape (len(Status), n), to which the same is added where a program ends; at
            `OUTPUT_LIMIT`, the last node it reached.
        shortest_bits: shape (n,), lowered to the length of the shortest program.
        shortest_program: shape (n,), that program as a number; ties go to the first.
        waiting: the programs that want another bit, as numbers, as many as fit; written.
        counters: shape (3,), to which the numbers of instructions read, of programs ended (those
            that want another bit included), and of steps executed are added.
    """
    size = max_bits + 2
    cells = np.zeros(n_cells, np.int64)
    code = np.zeros(size, np.int64)
    target = np.zeros(size, np.int64)
    enclosing = np.full(size, -1, np.int64)
    repeats = np.zeros(size, np.int64)
    went_back = np.full((size, 3), -1, np.int64)
    frames = np.zeros((size, _FRAME_SIZE), np.int64)
    frame_cells = np.zeros((size, min(n_cells, max_steps + 1)), np.int64)
    frame_repeats = np.zeros((size, size), np.int64)
    highest = -1
    changes = 0
    lefts = 0
    n_instructions = 0
    n_ended = 0
    n_waiting = 0
    n_steps = 0

    if max_bits < LONGEST_OPCODE:  # else the first instruction can be read whatever it is
        for beginning in range(_FIRST_INCOMPLETE[max_bits], 1 << max_bits):
            if n_waiting < waiting.shape[0]:
                waiting[n_waiting] = beginning
            n_waiting += 1
        ended[_WAITING, 0] += n_waiting
    depth = 0
    frames[0] = 0
    frames[0, _HIGHEST] = -1
    frames[0, _OPENED] = -1
    frames[0, _WANTS] = _WANTS_INSTRUCTION
    while depth >= 0:
        frame = frames[depth]
        choice = frame[_CHOICE]
        wants_data = frame[_WANTS] == _WANTS_DATA
        if choice == (2 if wants_data else _N_INSTRUCTIONS):
            depth -= 1
            continue
        frame[_CHOICE] = choice + 1
        taken = 1 if wants_data else OPCODE_LENGTHS[choice]
        value = choice if wants_data else _VALUES[choice]
        bits = frame[_BITS] + taken
        if bits > max_bits:
            continue
        if frame[_BITS] < word_bits:
            compared = min(taken, word_bits - frame[_BITS])
            wanted = (word >> (word_bits - frame[_BITS] - compared)) & ((1 << compared) - 1)
            if value >> (taken - compared) != wanted:
                continue
        counts = bits >= word_bits or word & ((1 << (word_bits - bits)) - 1) == 0
        weight = 1 << (max_bits - bits)
        program = (frame[_PROGRAM] << taken) | value
        node = frame[_NODE]

        for k in range(frame[_HIGHEST] + 1, highest + 1):
            cells[k] = 0
        highest = frame[_HIGHEST]
        for k in range(highest + 1):
            cells[k] = frame_cells[depth, k]
        position = frame[_POSITION]
        head = frame[_HEAD]
        length = frame[_LENGTH]
        opened = frame[_OPENED]
        skipping = frame[_SKIPPING]
        steps = frame[_STEPS]
        changes += 1
        if wants_data:
            for k in range(length):
                repeats[k] = frame_repeats[depth, k]
            cells[head] = 2 * cells[head] + value
            highest = max(highest, head)
            position += 1
        else:
            if opened >= 0:
                target[opened] = 0  # its `]`, if the last choice was one, is unread again
            opened = _store(choice, length, opened, code, target, enclosing)
            skipping = _skipping(skipping, choice)
            length += 1
            if frame[_SKIPPING] > 0:
                position = length
            if counts:
                n_instructions += 1
        event = _WANTS_INSTRUCTION
        while skipping == 0:
            event, position, head, highest, steps, changes, lefts = _advance(
                position,
                head,
                highest,
                steps,
                changes,
                lefts,
                length,
                cells,
                code,
                target,
                repeats,
                went_back,
                max_steps,
            )
            if event != _PRINTED_0 and event != _PRINTED_1:  # noqa: PLR1714 - compiled
                break
            child = children[node, event - _PRINTED_0]
            if child < 0:
                event = _OUTPUT_LIMIT
                break
            node = child
            if counts:
                reached[node] += weight
                if bits < shortest_bits[node]:
                    shortest_bits[node] = bits
                    shortest_program[node] = program
            if children[node, 0] < 0 and children[node, 1] < 0:
                event = _OUTPUT_LIMIT
                break
        if counts:
            n_steps += steps - frame[_STEPS]
        if event == _WANTS_DATA:
            for k in range(length):
                frame_repeats[depth + 1, k] = repeats[k]
        if event == _WANTS_DATA or event < _PRINTED_0:  # else every `:` has finished
            for k in range(length):
                repeats[k] = 0
        if event < _PRINTED_0:
            if counts:
                ended[event, node] += weight
                n_ended += 1
            continue
        left = max_bits - bits
        if left < (1 if event == _WANTS_DATA else LONGEST_OPCODE):
            first = 0 if event == _WANTS_DATA else _FIRST_INCOMPLETE[left]
            for beginning in range(first, 1 << left):
                if n_waiting < waiting.shape[0]:
                    waiting[n_waiting] = (program << left) | beginning
                n_waiting += 1
            ended[_WAITING, node] += (1 << left) - first
        if left < (1 if event == _WANTS_DATA else _SHORTEST_OPCODE):
            continue
        depth += 1
        frame = frames[depth]
        frame[_CHOICE] = 0
        frame[_WANTS] = event
        frame[_BITS] = bits
        frame[_PROGRAM] = program
        frame[_NODE] = node
        frame[_POSITION] = position
        frame[_HEAD] = head
        frame[_HIGHEST] = highest
        frame[_LENGTH] = length
        frame[_OPENED] = opened
        frame[_SKIPPING] = 1 if event == _WANTS_TO_SKIP else skipping
        frame[_STEPS] = steps
        for k in range(highest + 1):
            frame_cells[depth, k] = cells[k]
    counters[0] += n_instructions
    counters[1] += n_ended + n_waiting
    counters[2] += n_steps


@compiled
def _peek(words: Array, row: int, bits: int) -> np.int64:
    """The next `LONGEST_OPCODE` bits after the first `bits` of a row (zeros beyond its end)."""
    word, offset = bits >> 6, np.uint64(bits & 63)
    if word >= words.shape[1]:
        return np.int64(0)
    window = words[row, word] << offset
    if offset > 64 - LONGEST_OPCODE and word + 1 < words.shape[1]:
        window |= words[row, word + 1] >> (np.uint64(64) - offset)
    return np.int64(window >> np.uint64(64 - LONGEST_OPCODE))


@compiled
def sample_kernel(  # noqa: C901, PLR0915 - one loop: the state stays in registers
    words: Array,
    max_bits: int,
    max_steps: int,
    n_cells: int,
    outputs: Array,
    n_symbols: Array,
    statuses: Array,
    bits_read: Array,
    steps: Array,
) -> None:
    """Run the programs whose bits are the rows of `words`, most significant bit first.

    Args:
        words: shape (n, ceil(L / 64)), uint64.
        max_bits: L.
        max_steps: T.
        n_cells: the tape's length.
        outputs: shape (n, max_symbols), uint8; row i is written up to `n_symbols[i]`.
        n_symbols: shape (n,), written.
        statuses: shape (n,), written: indices in `STATUSES`.
        bits_read: shape (n,), written.
        steps: shape (n,), written.
    """
    size = max_bits // 2 + 2
    cells = np.zeros(n_cells, np.int64)
    code = np.zeros(size, np.int64)
    target = np.zeros(size, np.int64)
    enclosing = np.full(size, -1, np.int64)
    repeats = np.zeros(size, np.int64)
    went_back = np.full((size, 3), -1, np.int64)
    max_symbols = outputs.shape[1]
    highest = -1
    changes = 0
    lefts = 0
    for i in range(words.shape[0]):
        for k in range(highest + 1):
            cells[k] = 0
        highest = -1
        position = 0
        head = 0
        length = 0
        opened = -1
        skipping = 0
        step = 0
        changes += 1
        printed = 0
        bits = 0
        event = _WANTS_INSTRUCTION
        while event >= _PRINTED_0:
            if event >= _WANTS_INSTRUCTION and bits == max_bits:
                event = _WAITING
                break
            if event == _WANTS_DATA:
                cells[head] = 2 * cells[head] + (_peek(words, i, bits) >> (LONGEST_OPCODE - 1))
                bits += 1
                highest = max(highest, head)
                changes += 1
                position += 1
            elif event >= _WANTS_INSTRUCTION:
                instruction = _DECODED[_peek(words, i, bits)]
                bits += OPCODE_LENGTHS[instruction]
                if bits > max_bits:
                    bits = max_bits
                    event = _WAITING
                    break
                if event == _WANTS_TO_SKIP:
                    skipping = 1
                opened = _store(instruction, length, opened, code, target, enclosing)
                repeats[length] = 0
                length += 1
                if skipping > 0:
                    position = length
                    skipping = _skipping(skipping, instruction)
                    if skipping > 0:
                        event = _WANTS_INSTRUCTION
                        continue
            else:
                outputs[i, printed] = event - _PRINTED_0
                printed += 1
                if printed == max_symbols:
                    event = _OUTPUT_LIMIT
                    break
            event, position, head, highest, step, changes, lefts = _advance(
                position,
                head,
                highest,
                step,
                changes,
                lefts,
                length,
                cells,
                code,
                target,
                repeats,
                went_back,
                max_steps,
            )
        n_symbols[i] = printed
        statuses[i] = event
        bits_read[i] = bits
        steps[i] = step
