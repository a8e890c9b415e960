"""The reward: how positive a sentiment classifier finds the partner's reply.

With P the classifier's probability of its label POSITIVE, the label that wins has the score
s = max(P, 1 - P), the reply is worth r = s if that label is POSITIVE and r = -s if it is
NEGATIVE, and the reward is (r + 1) / 2, in [0, 1]:

    (1 + P) / 2  if P > 1/2,   P / 2  if P <= 1/2.

P is read from the classifier's logits by a `PositiveLabel`: of labels that exclude each other, the
share of the positive one in their softmax (so that NEUTRAL, if there is one, counts as not
positive); of a single logit, or of labels that do not exclude each other, its logistic function.
Which label is the positive one is known where the two are called POSITIVE and NEGATIVE, and has to
be named anywhere else.

The reward jumps by 1/2 at P = 1/2: what the published experiment does, not a calibrated scale.

A *scalar reward model*, one of a single label that nobody calls positive, says how good a reply is
on a scale of its own. Its number y becomes the reward 1 / (1 + exp(-y)), without a jump: of models
that learnt from comparisons, the probability that the reply is preferred to one of y = 0.

A reply without words says nothing good or bad, yet the first formula cannot give it the middle,
1/2, which no P reaches. Here a blank reply is worth `BLANK_REWARD` = 1/2 by definition, unless the
classifier is asked to score the blank text too, as in the published experiment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llm_experiment.base.loading import (
    check_quantisation,
    check_weights,
    find_device,
    one_line_errors,
    read_configuration,
)
from llm_experiment.dialogue.task import NEGATIVE, POSITIVE
from theory.errors import InvalidArgumentError, InvalidDistributionError, ModelError

_SHORT: Final = {"POS": POSITIVE, "NEG": NEGATIVE}
_NOT_EXCLUSIVE: Final = "multi_label_classification"
"""Transformers' name for classifiers whose labels may hold together."""
_SIDES: Final = ("right", "left")
_PROBES: Final = (
    "Yes.",
    "No, I do not think that this is any good at all, and I said so.",
    "Fine!",
)
"""Replies of different lengths, to try a model with."""
_LEAST_ROUNDING: Final = torch.finfo(torch.float32).eps
ROUNDINGS: Final = 1000
"""How many roundings a probability may change by where it should not: sums of many terms do."""
BLANK_REWARD: Final = 0.5
"""The reward of a reply without words: r = 0, neither good nor bad."""


def sentiment_reward(positive: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r + 1) / 2 for probabilities of POSITIVE, any shape.

    Raises:
        InvalidDistributionError: a probability outside [0, 1], or NaN.
    """
    outside = positive[~((positive >= 0) & (positive <= 1))]
    if outside.size:
        raise InvalidDistributionError(
            f"probabilities of {POSITIVE} must lie in [0, 1], got {outside.flat[0]}"
        )
    return np.where(positive > 0.5, (1 + positive) / 2, positive / 2)


@dataclass(frozen=True, kw_only=True)
class PositiveLabel:
    """How P is read from a classifier's logits.

    Attributes:
        index: of the positive label.
        exclusive: whether its labels exclude each other: softmax, else the logistic function.
        scalar: whether P itself is the reward.
    """

    index: int
    exclusive: bool
    scalar: bool = False

    def probability(self, logits: Tensor) -> Tensor:
        """P of logits of shape (n, labels), float64, shape (n,)."""
        exact = logits.double()
        shares = exact.softmax(dim=-1) if self.exclusive else exact.sigmoid()
        return shares[:, self.index]

    def reward(self, positive: NDArray[np.float64]) -> NDArray[np.float64]:
        """What probabilities P are worth, shape (n,)."""
        return positive if self.scalar else sentiment_reward(positive)


class SentimentReward:
    """Rewards of replies by a sequence classifier with a positive label, or a scalar reward model.

    Equal replies in one call are scored once. Nothing is remembered between calls, so that a
    resumed run computes what an uninterrupted one does.

    Args:
        model: is put into evaluation mode; stays on its device.
        tokenizer: the model's.
        blank_reward: of replies without words; None to let the model score them.
        batch_size: replies of a forward.
        positive_label: see `find_positive_label`.

    Raises:
        ModelError: no such label, no padding token, or scores that change with the padding.
        InvalidArgumentError: a blank reward outside [0, 1], or an empty batch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        blank_reward: float | None = BLANK_REWARD,
        batch_size: int = 512,
        positive_label: str | None = None,
    ) -> None:
        if blank_reward is not None and not 0 <= blank_reward <= 1:
            raise InvalidArgumentError(f"blank_reward must lie in [0, 1], got {blank_reward}")
        if batch_size < 1:
            raise InvalidArgumentError(f"batch_size must be >= 1, got {batch_size}")
        check_padding(tokenizer)
        positive = find_positive_label(model.config, positive_label)
        model.train(mode=False)
        model.requires_grad_(requires_grad=False)
        # Where a decoder's last token is, it finds by the padding token that its configuration
        # names, if any; what pads is the tokenizer's.
        for config in (model.config, model.config.get_text_config()):
            config.pad_token_id = tokenizer.pad_token_id
        self._model = model
        self._tokenizer = tokenizer
        self._positive = positive
        self._blank_reward = blank_reward
        self._batch_size = batch_size
        self._max_tokens = min(
            tokenizer.model_max_length,
            getattr(model.config, "max_position_embeddings", tokenizer.model_max_length),
            *_positions(model),
        )
        self._padding_side = self._find_padding_side()

    def _find_padding_side(self) -> str:
        """On which side replies can be padded without a change of their scores.

        Raises:
            ModelError: on neither.
        """
        reasons = []
        for side in dict.fromkeys((self._tokenizer.padding_side, *_SIDES)):
            self._padding_side = side
            try:
                together = self._forward(list(_PROBES))
                alone = torch.cat([self._forward([text]) for text in _PROBES])
            except (IndexError, ValueError, RuntimeError) as error:
                reasons.append(str(error).partition("\n")[0])
                continue
            change = float((together - alone).abs().max())
            rounding = max(torch.finfo(self._model.dtype).eps, _LEAST_ROUNDING)
            if change <= ROUNDINGS * rounding:
                return side
            reasons.append(f"the score changes by {change:.2g}")
        raise ModelError(
            "the reward model must score replies of different lengths together as it does alone, "
            f"and does not ({reasons[0]}); use the tokenizer that it was trained with, with its "
            "own padding token"
        )

    def __call__(self, replies: Sequence[str]) -> NDArray[np.float64]:
        """Rewards in [0, 1], shape (len(replies),).

        A reply longer than the model can read is judged by its beginning.
        """
        texts, place = np.unique(np.array(replies, dtype=object), return_inverse=True)
        rewards = np.empty(len(texts))
        blank = np.array([not text.strip() for text in texts], dtype=bool)
        judged = np.ones(len(texts), dtype=bool)
        if self._blank_reward is not None:
            rewards[blank] = self._blank_reward
            judged = ~blank
        rewards[judged] = self._positive.reward(self.positive(list(texts[judged])))
        return rewards[place]

    def positive(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """P(POSITIVE) of every text, shape (len(texts),)."""
        # Texts of like length together: little padding, and the same work in the same order.
        order = np.array(sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i])), int)
        positive = np.empty(len(texts))
        for start in range(0, len(texts), self._batch_size):
            rows = order[start : start + self._batch_size]
            positive[rows] = self._forward([texts[i] for i in rows]).cpu().numpy()
        return positive

    def _forward(self, texts: list[str]) -> Tensor:
        encoded: Any = self._tokenizer(
            texts,
            padding=True,
            padding_side=self._padding_side,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = self._model(**encoded.to(self._model.device)).logits
            return self._positive.probability(logits)


def _positions(model: PreTrainedModel) -> list[int]:
    """How many tokens each table of positions has room for; some begin after the padding token."""
    return [
        layer.num_embeddings - (0 if layer.padding_idx is None else layer.padding_idx + 1)
        for name, layer in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(layer, nn.Embedding)
    ]


def find_positive_label(config: PreTrainedConfig, name: str | None = None) -> PositiveLabel:
    """Which output of a sequence classifier is the positive one, and how it is read.

    Args:
        config: the classifier's.
        name: of the positive label, in any case; None: it and its only other label are called
            POSITIVE and NEGATIVE (or POS and NEG), or there is one label, a scalar reward's.

    Raises:
        ModelError: no such label, or none is named where it cannot be known.
    """
    names = {int(i): str(label) for i, label in (config.id2label or {}).items()}
    exclusive = len(names) > 1 and getattr(config, "problem_type", None) != _NOT_EXCLUSIVE
    listed = ", ".join(names.values())
    if name is None and len(names) == 1:
        return PositiveLabel(index=0, exclusive=False, scalar=True)
    if name is None:
        labels = {_SHORT.get(label.upper(), label.upper()): i for i, label in names.items()}
        if set(labels) != {NEGATIVE, POSITIVE}:
            raise ModelError(
                f"the reward model's labels must be {NEGATIVE} and {POSITIVE}, got {listed}; say "
                "with --positive-label which of them is the positive one, or name another --reward"
            )
        return PositiveLabel(index=labels[POSITIVE], exclusive=exclusive)
    found = [i for i, label in names.items() if label.upper() == name.strip().upper()]
    if len(found) != 1:
        raise ModelError(
            f"--positive-label must be one of the reward model's labels, {listed}, got {name!r}"
        )
    return PositiveLabel(index=found[0], exclusive=exclusive)


def check_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise unless texts of different lengths can be read together.

    Raises:
        ModelError: the tokenizer has no padding token.
    """
    if tokenizer.pad_token_id is None:
        raise ModelError("the reward model's tokenizer must have a padding token; it has none")


def check_reward(name: str, *, positive_label: str | None = None) -> None:
    """Raise unless `load_reward` can load a model, as far as can be told without its weights.

    Args:
        name: local folder or hub id.
        positive_label: see `find_positive_label`.

    Raises:
        ModelError: as `load_reward` does, but for weights that are missing within their files.
    """
    shape = read_configuration("reward model", name)
    check_weights("reward model", name)
    check_quantisation("reward model", name, shape)
    find_positive_label(shape, positive_label)
    with one_line_errors("reward model", name):
        check_padding(AutoTokenizer.from_pretrained(name, trust_remote_code=False))


def load_reward(
    name: str,
    *,
    device: str | torch.device = "cpu",
    blank_reward: float | None = BLANK_REWARD,
    positive_label: str | None = None,
) -> SentimentReward:
    """The sentiment reward at a local folder or hub id, from safetensors, no remote code.

    Args:
        name: local folder or hub id of a sequence classifier.
        device: where it runs.
        blank_reward: see `SentimentReward`.
        positive_label: see `find_positive_label`.

    Raises:
        ModelError: in one line: no such model, a download cut short, a model without a trained
            classifier, other labels, no such device.
    """
    place = find_device(device)
    check_weights("reward model", name)
    with one_line_errors("reward model", name):
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(  # with info, a pair
            name, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        model, info = loaded
        missing = sorted(info["missing_keys"])
        if missing:
            raise ModelError(f"its files lack {len(missing)} of its weights, such as {missing[0]}")
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return SentimentReward(
            model.to(place), tokenizer, blank_reward=blank_reward, positive_label=positive_label
        )
