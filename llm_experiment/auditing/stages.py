"""The measurements of an audit, a batch of prompts at a time.

Prompts of about the same length are read together. A batch's numbers depend on nothing but its
prompts, the models and the settings, so that an audit can be taken up at any batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_experiment.auditing.answers import MeasuredAnswers, draw_answers, measure_answers
from llm_experiment.auditing.behaviours import Behaviour, Pattern
from llm_experiment.auditing.conversation import Writer
from llm_experiment.auditing.models import Models
from llm_experiment.auditing.patterns import Matcher, bracket_pattern
from llm_experiment.auditing.prompts import ChatPrompt, Prompt
from llm_experiment.auditing.reading import token_costs
from llm_experiment.auditing.scripts import WrittenScript, answer_costs, write_script
from llm_experiment.auditing.settings import AuditSettings
from llm_experiment.chat.token_texts import spelt_texts, token_bytes
from theory.errors import InvalidArgumentError

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]

_ANSWERS: Final = 0
_WALKS: Final = 1
"""The paths of the randomness of answers and of walks."""
_SPEAKER: Final = "A"
"""Token texts are read behind some name and its colon."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Prompts that are measured together.

    Attributes:
        number: of the batch.
        places: of its prompts in the file's order.
        contexts: their tokens.
    """

    number: int
    places: tuple[int, ...]
    contexts: tuple[tuple[int, ...], ...]


class Auditor:
    """Measures batches of prompts.

    Args:
        models: the base model, and the policy if there is one.
        prompts: all of them.
        behaviours: the scripts to price.
        patterns: the patterns to price.
        settings: how.

    Raises:
        ModelError, InvalidArgumentError: in one line: prompts that the models cannot read.
    """

    def __init__(
        self,
        models: Models,
        prompts: Sequence[Prompt],
        *,
        behaviours: Sequence[Behaviour],
        patterns: Sequence[Pattern],
        settings: AuditSettings,
    ) -> None:
        self._models, self._prompts, self._settings = models, prompts, settings
        self._behaviours = behaviours
        self._writer = Writer(
            models.tokenizer, end_text=settings.end_text, n_tokens=models.n_tokens
        )
        contexts = [self._context(prompt) for prompt in prompts]
        self._stops = {kind: self._stops_of(kind) for kind in {type(prompt) for prompt in prompts}}
        pieces = token_bytes(models.tokenizer, speaker=_SPEAKER, n_tokens=models.n_tokens)
        texts = [_whole_text(piece) for piece in pieces]
        self._spelt = _named(pieces, models.tokenizer)
        self._matchers = {
            kind: [Matcher(pattern, texts, stops=stops) for pattern in patterns]
            for kind, stops in self._stops.items()
        }
        self.batches = _batches(prompts, contexts, size=settings.batch_size)

    def measure(self, batch: Batch) -> Arrays:
        """All numbers of a batch, in arrays whose first axis is the prompt.

        `scripts_base_nats`, (n, behaviours, n_times): prices; nan where there is none.
        `patterns_base`, (n, patterns, 3): the ends of each bracket, and the estimate.
        With a policy, `scripts_policy_nats` and `patterns_policy`, and the arrays of
        `MeasuredAnswers`, (..., n * n_samples, n_tokens).

        Raises:
            ModelError: a model's predictions are no numbers.
        """
        prompts = [self._prompts[place] for place in batch.places]
        scripts = [
            [self._script(prompt, behaviour) for behaviour in self._behaviours]
            for prompt in prompts
        ]
        found: Arrays = {"places": np.array(batch.places)}
        for name, model in (("base", self._models.base), ("policy", self._models.policy)):
            if model is not None:
                found[f"scripts_{name}_nats"] = self._prices(model, scripts)
                found[f"patterns_{name}"] = self._brackets(model, batch, type(prompts[0]))
        if self._models.policy is not None:
            found |= self._answers(self._models.policy, batch, type(prompts[0]))
        return found

    def spelt(self, tokens: Sequence[int]) -> list[str]:
        """What each token says, such that it adds up to what they say; special ones their names."""
        return spelt_texts(self._spelt, tokens)

    def _context(self, prompt: Prompt) -> tuple[int, ...]:
        context, limit = self._writer.context(prompt), self._models.n_positions
        if len(context) + self._settings.n_tokens > limit:
            raise InvalidArgumentError(
                f"{self._settings.prompts}, line {prompt.line}: the prompt has {len(context)} "
                f"tokens and with an answer of {self._settings.n_tokens} does not fit the model, "
                f"which reads {limit}; shorten it, or lower --n-tokens"
            )
        return context

    def _stops_of(self, kind: type) -> tuple[int, ...]:
        """What ends answers to prompts of a kind: their end token, and the models' own."""
        first = next(prompt for prompt in self._prompts if type(prompt) is kind)
        stops = {self._writer.end_token(first)}
        for model in (self._models.base, self._models.policy):
            ends: Any = None if model is None else model.generation_config.eos_token_id
            stops |= {ends} if isinstance(ends, int) else set(ends or ())
        return tuple(sorted(stop for stop in stops if stop < self._models.n_tokens))

    def _script(self, prompt: Prompt, behaviour: Behaviour) -> WrittenScript | None:
        return write_script(
            self._writer,
            prompt,
            behaviour,
            n_times=self._settings.n_times,
            n_tokens=self._settings.n_tokens,
            n_positions=self._models.n_positions,
        )

    def _prices(
        self, model: PreTrainedModel, scripts: Sequence[Sequence[WrittenScript | None]]
    ) -> Floats:
        """`-log b` of every answer, shape (prompts, behaviours, n_times)."""
        n_times = self._settings.n_times
        prices = np.full((len(scripts), len(self._behaviours), n_times), np.nan)
        jobs = [
            (len(script.tokens), i, j, script)
            for i, several in enumerate(scripts)
            for j, script in enumerate(several)
            if script is not None
        ]
        jobs.sort(key=lambda job: job[:3])
        for start in range(0, len(jobs), self._settings.batch_size):
            part = jobs[start : start + self._settings.batch_size]
            costs = token_costs(model, [script.tokens for *_, script in part])
            for (_, i, j, script), nats in zip(part, costs, strict=True):
                prices[i, j] = answer_costs(nats, script, n_times=n_times)
        return prices

    def _brackets(self, model: PreTrainedModel, batch: Batch, kind: type) -> Floats:
        """Brackets and estimates, shape (prompts, patterns, 3)."""
        settings, matchers = self._settings, self._matchers[kind]
        found = np.full((len(batch.places), len(matchers), 3), np.nan)
        size = max(1, settings.batch_size // settings.n_walks)
        for column, matcher in enumerate(matchers):
            for start in range(0, len(batch.places), size):
                places = batch.places[start : start + size]
                shape = (settings.n_walks, settings.pattern_tokens)
                brackets = bracket_pattern(
                    model,
                    batch.contexts[start : start + size],
                    matcher,
                    n_walks=settings.n_walks,
                    n_tokens=settings.pattern_tokens,
                    uniforms=self._uniforms(places, _WALKS, column, shape=shape),
                )
                found[start : start + size, column] = [
                    (b.at_least, b.at_most, b.estimate) for b in brackets
                ]
        return found

    def _answers(self, policy: PreTrainedModel, batch: Batch, kind: type) -> Arrays:
        """The policy's answers and what they cost."""
        settings = self._settings
        rows = [context for context in batch.contexts for _ in range(settings.n_samples)]
        shape = (settings.n_samples, settings.n_tokens)
        uniforms = self._uniforms(batch.places, _ANSWERS, shape=shape)
        uniforms = uniforms.reshape(-1, settings.n_tokens)
        parts = []
        for start in range(0, len(rows), settings.batch_size):
            part = slice(start, start + settings.batch_size)
            stops = [self._stops[kind]] * len(rows[part])
            answers = draw_answers(policy, rows[part], stops=stops, uniforms=uniforms[part])
            parts.append(
                measure_answers(
                    policy, self._models.base, rows[part], answers, n_tokens=settings.n_tokens
                )
            )
        return _joined(parts)

    def _uniforms(self, places: Sequence[int], *path: int, shape: tuple[int, ...]) -> Floats:
        """Numbers in [0, 1) that depend on the prompt's place alone."""
        return np.stack(
            [
                np.random.default_rng((self._settings.seed, *path, place)).random(shape)
                for place in places
            ]
        )


def _joined(parts: Sequence[MeasuredAnswers]) -> Arrays:
    """The answers of several batches as arrays, one after the other."""

    def rows(read: Callable[[MeasuredAnswers], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([read(part) for part in parts], axis=-2)

    return {
        "answers": rows(lambda part: part.tokens),
        "kl_nats": rows(lambda part: part.kl_nats),
        "drawn_nats": rows(lambda part: part.drawn_nats),
        "mean_nats": rows(lambda part: part.mean_nats),
        "variance": rows(lambda part: part.variance),
        "parts_nats": np.sum([part.parts_nats for part in parts], axis=0),
        "policy_mass": np.sum([part.policy_mass for part in parts], axis=0),
        "base_mass": np.sum([part.base_mass for part in parts], axis=0),
    }


def _whole_text(piece: bytes) -> str | None:
    """The text of a token; None where it has none of its own, or is no whole characters."""
    try:
        return piece.decode() or None
    except UnicodeDecodeError:
        return None


def _named(pieces: Sequence[bytes], tokenizer: PreTrainedTokenizerBase) -> tuple[bytes, ...]:
    """What every token says; of those that say nothing, their names or numbers."""
    names = {token: name for name, token in tokenizer.get_vocab().items()}
    return tuple(
        piece or names.get(token, f"<{token}>").encode() for token, piece in enumerate(pieces)
    )


def _batches(
    prompts: Sequence[Prompt], contexts: Sequence[tuple[int, ...]], *, size: int
) -> tuple[Batch, ...]:
    """Prompts of one kind and of about one length together."""
    found: list[Batch] = []
    for chats in (False, True):
        places = [i for i, prompt in enumerate(prompts) if isinstance(prompt, ChatPrompt) is chats]
        places.sort(key=lambda i: len(contexts[i]))
        for start in range(0, len(places), size):
            part = tuple(places[start : start + size])
            found.append(
                Batch(number=len(found), places=part, contexts=tuple(contexts[i] for i in part))
            )
    return tuple(found)
