"""Prompts from a file of JSON lines: plain texts or chats.

A line is an object with

- `prompt`: a text, or a list of messages (`{"role": ..., "content": ...}`) as trl has it; or
  `messages`, such a list;
- `follow_up`, if given: what is said between one answer and the next, where an answer is given
  over and over. Left out, what was said last is said again.

A chat ends with somebody else's message, so that the assistant is to answer. Blank lines and other
keys do not count.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from theory.errors import InvalidArgumentError

ASSISTANT: Final = "assistant"
"""The role of the one who answers."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: who speaks.
        content: what is said.
    """

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class PlainPrompt:
    """A text that is to be gone on with.

    Attributes:
        line: of the file, counted from 1.
        text: what stands there.
        follow_up: what is said between two answers.
    """

    line: int
    text: str
    follow_up: str

    @property
    def last_said(self) -> str:
        """What an answer that repeats its prompt says."""
        return self.text

    @property
    def last_answer(self) -> None:
        """A text has no turns, and no answer before."""
        return None


@dataclass(frozen=True, kw_only=True)
class ChatPrompt:
    """A chat in which the assistant is to answer.

    Attributes:
        line: of the file, counted from 1.
        messages: all so far, at least one; the last is not the assistant's.
        follow_up: the message between two answers, of the role of the last one.
    """

    line: int
    messages: tuple[Message, ...]
    follow_up: str

    @property
    def last_said(self) -> str:
        """What an answer that repeats its prompt says: the last message."""
        return self.messages[-1].content

    @property
    def last_answer(self) -> str | None:
        """What the assistant said last; None if it has not spoken."""
        said = [message.content for message in self.messages if message.role == ASSISTANT]
        return said[-1] if said else None


Prompt: TypeAlias = PlainPrompt | ChatPrompt


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file, in its order.

    Raises:
        InvalidArgumentError: in one line, with the number of the line that offends: no such file,
            no prompt in it, a line that is not a JSON object, or one that is no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidArgumentError(
            f"cannot read the prompts {path}: {said}; name a file of JSON lines"
        ) from error
    prompts = [
        _read_line(text, f"{path}, line {line}", line)
        for line, text in enumerate(lines, start=1)
        if text.strip()
    ]
    if not prompts:
        raise InvalidArgumentError(
            f'{path} holds no prompt; write one a line, such as {{"prompt": "Once upon a time"}}'
        )
    return tuple(prompts)


def _read_line(text: str, where: str, line: int) -> Prompt:
    """The prompt of one line."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        said = getattr(error, "msg", None) or "nested too deeply"
        raise InvalidArgumentError(f"{where}: not JSON ({said}); write one object a line") from None
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{where}: not an object, got {value!r:.40}; {_WANTED}")
    said = value.get("prompt", value.get("messages"))
    follow_up = value.get("follow_up")
    if follow_up is not None and not isinstance(follow_up, str):
        raise InvalidArgumentError(f"{where}: follow_up must be a text, got {follow_up!r:.40}")
    if isinstance(said, str) and said:
        return PlainPrompt(line=line, text=said, follow_up=said if follow_up is None else follow_up)
    if isinstance(said, list) and said:
        messages = tuple(_read_message(message, where) for message in said)
        if messages[-1].role == ASSISTANT:
            raise InvalidArgumentError(
                f"{where}: the chat ends with a message of the {ASSISTANT}, so that nothing is "
                "left to answer; leave that message out"
            )
        last = messages[-1].content
        return ChatPrompt(
            line=line, messages=messages, follow_up=last if follow_up is None else follow_up
        )
    raise InvalidArgumentError(f"{where}: no prompt, got {value!r:.40}; {_WANTED}")


_WANTED: Final = 'write {"prompt": "a text"} or {"messages": [{"role": "user", "content": "..."}]}'


def _read_message(value: Any, where: str) -> Message:
    match value:
        case {"role": str(role), "content": str(content)}:
            return Message(role=role, content=content)
    raise InvalidArgumentError(
        f"{where}: a message must have a role and a content that are texts, got {value!r:.40}"
    )
