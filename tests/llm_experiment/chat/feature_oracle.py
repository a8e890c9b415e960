"""The features of a transcript the slow way: from its text, anew at every position."""

import re
from dataclasses import dataclass

import numpy as np

from llm_experiment.chat.features import MEMORY


@dataclass(frozen=True)
class Turn:
    """A turn's speaker, its tokens, the text of its opening token after the colon, its body."""

    speaker: str
    tokens: tuple[int, ...]
    rest: str
    body: tuple[int, ...] | None


def features_by_text(tokens, pieces, rules):
    """Whether the agent acts, and the features, of what comes after `tokens`."""
    turns = turns_by_text(tokens, pieces, rules)
    if not turns:
        return False, {}
    now, before = turns[-1], turns[:-1]
    visible = sum(bool(pieces[t].strip()) for t in now.tokens) + bool(now.rest.strip())
    own = next((turn.body for turn in reversed(before) if turn.speaker == rules.agent), None)
    reply = next((turn.body for turn in reversed(before) if turn.speaker == rules.partner), None)
    n, place = len(pieces), len(now.tokens)

    def opening_after(body):
        return 0 if visible else 1 if body is None else 2 if body else 3

    def begins(body):
        short = place <= MEMORY and not now.rest.strip()
        return bool(visible) and body is not None and short and body[:place] == now.tokens

    last = [n, n, *tokens][-2:]
    within = own is not None and place < min(len(own), MEMORY)
    return now.speaker == rules.agent, {
        "always": 0,
        "said_so_far": min(visible, 3),
        "opening_after_reply": opening_after(reply),
        "opening_after_own": opening_after(own),
        "begins_as_own": int(begins(own)),
        "equals_own": int(begins(own) and place == len(own)),
        "equals_reply": int(begins(reply) and place == len(reply)),
        "previous_token": last[1],
        "same_place": own[place] if within else n,
        "previous_two_tokens": last[0] * (n + 1) + last[1],
    }


def turns_by_text(tokens, pieces, rules):
    """All turns that were opened, in order."""
    texts = [pieces[t] for t in tokens]
    text = "".join(texts)
    ends = np.cumsum([len(piece) for piece in texts]) if texts else np.zeros(0, dtype=int)
    names = "|".join(map(re.escape, (rules.agent, rules.partner)))
    opened = []
    for match in re.finditer(rf"^[ \t]*({names})[ \t]*:", text, flags=re.MULTILINE):
        if not opened or opened[-1][0] != match[1]:
            opened.append((match[1], match.end(), int(np.searchsorted(ends, match.end()))))
    turns = []
    for i, (name, end, token) in enumerate(opened):
        closing = opened[i + 1] if i + 1 < len(opened) else None
        own = tuple(tokens[token + 1 : closing[2] + 1 if closing else len(tokens)])
        rest = text[end : ends[token]]
        body = None if closing is None else body_by_text(own, pieces, text[: closing[1]], ends)
        turns.append(Turn(speaker=name, tokens=own, rest=rest, body=body))
    return turns


def body_by_text(own, pieces, text_up_to_colon, ends):
    """Tokens up to the last with a visible character before the last line break of a turn."""
    # Where each of the turn's tokens begins: the last of them holds the closing colon.
    last = int(np.searchsorted(ends, len(text_up_to_colon)))
    first = last + 1 - len(own)
    starts = [int(ends[first + i]) - len(pieces[token]) for i, token in enumerate(own)]
    line_break = text_up_to_colon.rfind("\n", starts[0] if starts else 0)
    length = 0
    for i, (token, start) in enumerate(zip(own, starts, strict=True)):
        if line_break >= 0 and pieces[token][: max(line_break - start, 0)].strip():
            length = i + 1
    return own[:length]
