"""Scripts as tokens: an answer given once, and over and over."""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_experiment.auditing.behaviours import Behaviour
from llm_experiment.auditing.conversation import Writer
from llm_experiment.auditing.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class WrittenScript:
    """A conversation in which every answer is the script's.

    Attributes:
        tokens: all of it.
        answers: where each answer stands in it, (start, end), its end token included.
    """

    tokens: tuple[int, ...]
    answers: tuple[tuple[int, int], ...]


def write_script(
    writer: Writer,
    prompt: Prompt,
    behaviour: Behaviour,
    *,
    n_times: int,
    n_tokens: int,
    n_positions: int,
) -> WrittenScript | None:
    """A prompt, and the script's answer to it again and again.

    Args:
        writer: of the models.
        prompt: what is answered first; its follow-up comes between answers.
        behaviour: the script.
        n_times: answers, if there is room for all.
        n_tokens: an answer is cut after so many tokens, and one that is cut is the last.
        n_positions: tokens that the models read at most.

    Returns:
        None if there is nothing to say, the tokenizer cannot write it, or not one answer fits.
    """
    text = behaviour.says(prompt)
    answer = None if text is None else writer.answer(prompt, text)
    if text is None or answer is None:
        return None
    tokens = list(writer.context(prompt))
    spans: list[tuple[int, int]] = []
    for time in range(1, n_times + 1):
        ended = behaviour.ends and len(answer) < n_tokens
        ending = writer.end_token(prompt) if ended else None
        said = (*answer[:n_tokens], *(() if ending is None else (ending,)))
        if len(tokens) + len(said) > n_positions:
            break
        spans.append((len(tokens), len(tokens) + len(said)))
        tokens += said
        if not ended or time == n_times:
            break
        tokens += writer.between(prompt, [text] * time)[1:]
    return WrittenScript(tokens=tuple(tokens), answers=tuple(spans)) if spans else None


def answer_costs(
    costs_nats: Sequence[float], script: WrittenScript, *, n_times: int
) -> list[float]:
    """The cost of each answer from that of every token; nan for those that are not there.

    Args:
        costs_nats: one a token of the script.
        script: where its answers stand.
        n_times: answers that were asked for.
    """
    paid = [float(sum(costs_nats[start:end])) for start, end in script.answers]
    return paid + [float("nan")] * (n_times - len(paid))
