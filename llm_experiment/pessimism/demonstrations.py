r"""What the demonstrator did: transcripts of two speakers, in tokens.

They come from a file or from a task's own process. A file has one dialogue a line, as JSON:

    {"turns": [{"speaker": "Student", "text": "Hello?"}, {"speaker": "Teacher", "text": "Yes?"}]}
    {"transcript": "Student: Hello?\\nTeacher: Yes?\\nStudent:"}

The agent's turns are the demonstrations; its partner's are what they answer. A dialogue that is
given by turns is written out as a chat writes it, so that a last turn of the agent ends with the
separator and its partner's name.

A `prompt`, text that stands before the rest, is read and demonstrates nothing. Dialogues that begin
alike need one: what begins them was not drawn anew each time, and would count as often as there are
dialogues.

    {"prompt": "Student: Hello?\\nTeacher: Do", "transcript": " you?\\nStudent:"}
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_experiment.chat.turn_records import COLON, NEWLINE
from llm_experiment.chat.turns import TurnRules
from llm_experiment.dialogue.process import DialogueProcess
from theory.errors import InvalidArgumentError, ResultsError

Tokens = NDArray[np.int64]
"""A transcript, shape (tokens,)."""


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A dialogue in tokens.

    Attributes:
        tokens: all of it, int64, shape (t,).
        n_given: tokens at its start that demonstrate nothing.
    """

    tokens: Tokens
    n_given: int = 0


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """A dialogue in words.

    Attributes:
        text: what is written.
        line: of the file that it comes from, counted from 1.
        prompt: the beginning of the text that demonstrates nothing.
    """

    text: str
    line: int
    prompt: str = ""


def read_transcripts(path: Path, rules: TurnRules) -> tuple[Transcript, ...]:
    """The dialogues in a JSONL file; empty lines are skipped.

    Args:
        path: of the file.
        rules: how turns look.

    Raises:
        ResultsError: the file cannot be read or has no dialogue, or one of its lines is none; the
            message has the line's number.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResultsError(
            f"cannot read {path}: {reason}; name a file of one JSON object a line, in UTF-8"
        ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt, text = _text(json.loads(line), rules)
            found.append(Transcript(text=prompt + text, line=number, prompt=prompt))
        except (ValueError, TypeError, RecursionError) as error:
            raise ResultsError(
                f"{path}, line {number}: {error}; a line is an object with turns, each with "
                "speaker and text, or with transcript, and may have a prompt"
            ) from error
    if not found:
        raise ResultsError(f"{path} has no dialogue; write one JSON object a line")
    return tuple(found)


def _text(content: Any, rules: TurnRules) -> tuple[str, str]:
    """The prompt of a dialogue and the rest, as one line of a file gives them."""
    if not isinstance(content, dict) or len(content.keys() & {"turns", "transcript"}) != 1:
        raise TypeError("there must be either turns or transcript")
    prompt = _string(content, "prompt") if "prompt" in content else ""
    if "transcript" in content:
        return prompt, _string(content, "transcript")
    turns = content["turns"]
    if not isinstance(turns, list) or not turns:
        raise TypeError("turns must be a list of at least 1 turn")
    names = (rules.agent, rules.partner)
    text = ""
    speaker = ""
    for turn in turns:
        if not isinstance(turn, dict):
            raise TypeError(f"a turn must be an object, got {turn!r:.40}")
        speaker, words = _string(turn, "speaker"), _string(turn, "text")
        if speaker not in names:
            raise ValueError(f"speaker must be {names[0]} or {names[1]}, got {speaker!r}")
        words = words.strip()
        text += f"{speaker}{COLON}{' ' * bool(words)}{words}{rules.separator}"
    return prompt, f"{text}{names[1 - names.index(speaker)]}{COLON}"


def _string(content: dict[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise TypeError(f"{key} must be text, got {value!r:.40}")
    return value


def encode_transcripts(
    transcripts: Sequence[Transcript],
    path: Path,
    *,
    encode: Callable[[str], Sequence[int]],
    unknown: int | None,
    most_tokens: int | None,
) -> tuple[Demonstration, ...]:
    """The tokens of dialogues.

    Args:
        transcripts: of a file.
        path: of the file, for errors.
        encode: the tokens of a text, with the special ones that stand before any text.
        unknown: the token for what the tokenizer cannot write, if there is one.
        most_tokens: the longest dialogue that the language model reads, if it has a limit.

    Raises:
        ResultsError: a dialogue that is too long or has words that the tokenizer does not know;
            the message has its line's number.
    """
    found = []
    for transcript in transcripts:
        tokens = np.asarray(encode(transcript.text), dtype=np.int64)
        where = f"{path}, line {transcript.line}"
        if unknown is not None and unknown in tokens:
            raise ResultsError(
                f"{where}: the dialogue has words that the language model does not know; leave "
                "them out, or name another --base-model"
            )
        if len(tokens) < 2 or (most_tokens is not None and len(tokens) > most_tokens):
            raise ResultsError(
                f"{where}: the dialogue has {len(tokens)} tokens; it needs 2 at least, and the "
                f"language model reads {'any number' if most_tokens is None else most_tokens} at "
                "most; split it over several lines"
            )
        given = encode(transcript.prompt) if transcript.prompt else ()
        found.append(Demonstration(tokens=tokens, n_given=_n_given(tokens, given)))
    return tuple(found)


def _n_given(tokens: Tokens, prompt: Sequence[int]) -> int:
    """How many tokens of a dialogue hold some of its prompt, whose own tokens are `prompt`.

    Where the two differ, a token holds the end of the prompt and what follows it.
    """
    alike = 0
    while alike < min(len(tokens), len(prompt)) and tokens[alike] == prompt[alike]:
        alike += 1
    return alike if alike == len(prompt) else alike + 1


def sample_demonstrations(
    process: DialogueProcess,
    rng: np.random.Generator,
    *,
    n_dialogues: int,
    n_tokens: int,
    agent: str,
    partner: str,
    n_silences: int = 0,
) -> tuple[Demonstration, ...]:
    """Dialogues of two roles that a process makes up; the partner begins, as a chat's prompt does.

    Args:
        process: the demonstrator.
        rng: the source of randomness.
        n_dialogues: how many.
        n_tokens: length of each.
        agent: the role whose turns are the demonstrations.
        partner: the other role.
        n_silences: turns of the agent, drawn without replacement, of which all words are taken
            out: dirty data, in which the demonstrator did what it never does.

    Raises:
        InvalidArgumentError: roles that do not talk with each other, no dialogue, or more
            silences than turns.
    """
    if n_dialogues < 1 or n_tokens < 2:
        raise InvalidArgumentError(
            f"n_dialogues must be >= 1 and n_tokens >= 2, got {n_dialogues} and {n_tokens}"
        )
    tokens = process.sample(rng, n_dialogues, n_tokens, speakers=(partner, agent))
    rows = _with_silences(process, tokens, rng, agent=agent, n_silences=n_silences)
    return tuple(Demonstration(tokens=row) for row in rows)


def _with_silences(
    process: DialogueProcess,
    tokens: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    agent: str,
    n_silences: int,
) -> tuple[Tokens, ...]:
    """Transcripts, shape (n, tokens), of which some of the agent's turns lost their words."""
    if not n_silences:
        return tuple(tokens)
    newline = process.vocabulary.index(NEWLINE)
    spoken = [
        (row, start, start + int(np.argmax(tokens[row, start:] == newline)))
        for row, start in zip(*np.nonzero(process.turn_begins(tokens, agent)), strict=True)
        for start in (int(start) + 2,)
        if newline in tokens[row, start:]
    ]
    if n_silences > len(spoken):
        raise InvalidArgumentError(
            f"n_silences must be at most {len(spoken)}, the agent's turns, got {n_silences}"
        )
    keep = np.ones(tokens.shape, dtype=bool)
    for turn in rng.choice(len(spoken), size=n_silences, replace=False):
        row, start, end = spoken[turn]
        keep[row, start:end] = False
    return tuple(row[kept] for row, kept in zip(tokens, keep, strict=True))
