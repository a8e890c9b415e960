"""Prompts and answers as tokens: chat templates are the tokenizer's own.

An answer is over with its *end token*: in a chat the first that the template writes after what the
assistant said, after a plain prompt the first of `end_text` or, without one, the tokenizer's end of
text. What is written between two answers begins with it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from llm_experiment.auditing.prompts import ASSISTANT, ChatPrompt, PlainPrompt, Prompt
from llm_experiment.chat.token_texts import TextDecoder, encode_start, encode_text
from theory.errors import InvalidArgumentError, ModelError

_PROBE: Final = "Yes"
"""An answer that stands for any, to see what a template writes after it."""


class Writer:
    """Writes prompts and answers with one tokenizer.

    Args:
        tokenizer: of the models.
        end_text: what ends an answer to a plain prompt; None: the tokenizer's end of text.
        n_tokens: size of the models' vocabulary.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, end_text: str | None, n_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self._decode = TextDecoder(tokenizer)
        self._n_tokens = n_tokens
        # Many answers follow one prompt.
        self._encode_before = lru_cache(maxsize=8)(lambda text: encode_text(tokenizer, text))
        self._chat_end: int | None = None
        self._end: list[int] | None = None
        if end_text is not None:
            self._end = encode_text(tokenizer, end_text)
            if not self._end or self._decode(self._end) != end_text:
                raise InvalidArgumentError(
                    f"end_text must be a text that the tokenizer can write, got {end_text!r}, "
                    f"which it writes as {self._decode(self._end)!r}; choose another"
                )
        elif tokenizer.eos_token_id is not None:
            self._end = [int(tokenizer.eos_token_id)]

    def context(self, prompt: Prompt) -> tuple[int, ...]:
        """The tokens of a prompt, up to where its answer begins.

        Raises:
            ModelError: a chat without a chat template, or one that the template refuses.
            InvalidArgumentError: a token that the models do not have.
        """
        if isinstance(prompt, ChatPrompt):
            tokens = encode_text(self._tokenizer, self._rendered(prompt, ()))
        else:
            tokens = encode_start(self._tokenizer, prompt.text)
        return self._checked(tokens, f"line {prompt.line}")

    def answer(self, prompt: Prompt, text: str) -> tuple[int, ...] | None:
        """The tokens of an answer, as the tokenizer writes them after the prompt.

        Returns:
            None if the tokenizer cannot write the text.
        """
        if not text:
            return ()
        before = self._rendered(prompt, ()) if isinstance(prompt, ChatPrompt) else prompt.text
        alone, whole = self._encode_before(before), encode_text(self._tokenizer, before + text)
        if whole[: len(alone)] == alone:
            tokens = whole[len(alone) :]
        else:  # the tokenizer joins them
            tokens = encode_text(self._tokenizer, text)
        if self._decode(tokens).strip() != text.strip():
            return None
        return self._checked(tokens, f"the answer {text!r:.40}")

    def between(self, prompt: Prompt, answers: Sequence[str]) -> tuple[int, ...]:
        """What is written between the last of `answers` and the next, its end token first.

        Raises:
            ModelError: nothing ends an answer, or a template that rewrites what was said before.
        """
        if isinstance(prompt, PlainPrompt):
            if self._end is None:
                raise ModelError(
                    "the tokenizer has no token for the end of a text; say what ends an answer "
                    r"with --end-text, such as '\n'"
                )
            tokens = [*self._end, *encode_text(self._tokenizer, prompt.follow_up)]
            return self._checked(tokens, f"the follow-up of line {prompt.line}")
        before = self._rendered(prompt, answers[:-1]) + answers[-1]
        after = self._rendered(prompt, answers)
        if not after.startswith(before) or after == before:
            raise ModelError(
                f"the chat template writes line {prompt.line} otherwise once it is answered, so "
                "that answers cannot follow one another; ask for them once with --n-times 1"
            )
        return self._checked(
            encode_text(self._tokenizer, after[len(before) :]), f"line {prompt.line}"
        )

    def end_token(self, prompt: Prompt) -> int:
        """What ends an answer.

        Raises:
            ModelError: nothing does.
        """
        if isinstance(prompt, PlainPrompt):
            return self.between(prompt, ("",))[0]
        if self._chat_end is None:
            self._chat_end = self._end_of_chats(prompt)
        return self._chat_end

    def _end_of_chats(self, prompt: ChatPrompt) -> int:
        """What the template writes after an answer."""
        start = self._rendered(prompt, ())
        answered = [*_as_dicts(prompt, ()), {"role": ASSISTANT, "content": _PROBE}]
        whole = self._render(answered, prompt, asks=False)
        ending = whole[len(start) + len(_PROBE) :] if whole.startswith(start + _PROBE) else ""
        tokens = encode_text(self._tokenizer, ending) or self._end
        if not tokens:
            raise ModelError(
                "neither the chat template nor the tokenizer says what ends an answer; say so with "
                r"--end-text, such as '\n'"
            )
        return tokens[0]

    def _rendered(self, prompt: ChatPrompt, answers: Sequence[str]) -> str:
        """A chat after some answers, up to where the next begins."""
        return self._render(_as_dicts(prompt, answers), prompt, asks=True)

    def _render(self, messages: list[dict[str, str]], prompt: ChatPrompt, *, asks: bool) -> str:
        if not self._tokenizer.chat_template:
            raise ModelError(
                f"line {prompt.line} is a chat and the tokenizer has no chat template; name an "
                "instruction-tuned model, or write plain prompts"
            )
        try:
            rendered: Any = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=asks
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise ModelError(
                f"the chat template refuses line {prompt.line}: {error}; change its messages"
            ) from error
        return str(rendered)

    def _checked(self, tokens: Sequence[int], where: str) -> tuple[int, ...]:
        if max(tokens, default=0) >= self._n_tokens:
            raise InvalidArgumentError(
                f"{where} has token {max(tokens)} and the models only {self._n_tokens}; use the "
                "tokenizer that they were trained with"
            )
        if not tokens:
            raise InvalidArgumentError(f"{where} has no tokens; write something there")
        return tuple(int(token) for token in tokens)


def _as_dicts(prompt: ChatPrompt, answers: Sequence[str]) -> list[dict[str, str]]:
    """The messages of a chat, then its answers, each with the follow-up after it."""
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    for answer in answers:
        messages.append({"role": ASSISTANT, "content": answer})
        messages.append({"role": prompt.messages[-1].role, "content": prompt.follow_up})
    return messages
