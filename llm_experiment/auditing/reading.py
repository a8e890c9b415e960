"""What a language model says of given texts, in windows of bounded size.

Rows of different lengths are read side by side, what is behind the end of a shorter one filled up:
a causal model's predictions do not depend on what comes later. Predictions are normalised in
float64, whatever the model's own precision.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from theory.errors import ModelError

LARGEST: Final = 2**22
"""Numbers, at most, that one window of predictions holds: 32 MiB in float64."""
_FILLING: Final = 0
"""The token behind the end of a row; it is read and nothing depends on it."""


@torch.no_grad()
def read_windows(model: PreTrainedModel, tokens: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The predictions after every token of n texts.

    Args:
        model: causal.
        tokens: int64, shape (n, t).

    Yields:
        The position p of a window's first token, and the log-probabilities, in nats, of the tokens
        that follow p, p + 1, ...: float64, shape (n, w, n_tokens).

    Raises:
        ModelError: a prediction that is no number.
    """
    n, t = tokens.shape
    n_tokens = model.config.get_text_config(decoder=True).vocab_size
    width = max(1, LARGEST // (n * n_tokens))
    cache = DynamicCache(config=model.config)
    for start in range(0, t, width):
        part = tokens[:, start : start + width].to(model.device)
        yield start, _log_probs(model, part, cache)


def _log_probs(model: PreTrainedModel, tokens: Tensor, cache: DynamicCache) -> Tensor:
    """The predictions after more tokens of every row, float64, shape (n, w, n_tokens)."""
    output: Any = model(input_ids=tokens, past_key_values=cache, use_cache=True)
    logits: Tensor = output.logits.to(tokens.device).double()
    if bool((logits.isnan() | (logits == torch.inf)).any()):
        raise ModelError(
            f"{model.name_or_path or 'the language model'}: its logits are no numbers (NaN or "
            "inf); choose another dtype, such as float32, or a whole checkpoint"
        )
    return logits.log_softmax(dim=-1)


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of tokens as one tensor, int64, shape (n, the longest)."""
    width = max(map(len, rows))
    filled = [[*row, *[_FILLING] * (width - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.int64)


def token_costs(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    """`-log b` of every token of every row given those before it, in nats; 0 for the first.

    Args:
        model: b.
        rows: at least one, none empty.

    Raises:
        ModelError: a prediction that is no number.
    """
    tokens = padded(rows)
    costs = torch.zeros(tokens.shape, dtype=torch.float64)
    for start, log_probs in read_windows(model, tokens):
        end = min(start + log_probs.shape[1], tokens.shape[1] - 1)
        following = tokens[:, start + 1 : end + 1].to(log_probs.device)[..., None]
        found = -log_probs[:, : end - start].gather(-1, following)
        costs[:, start + 1 : end + 1] = found[..., 0].cpu()
    return [costs[i, : len(row)].tolist() for i, row in enumerate(rows)]


@torch.no_grad()
def write_on(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    choose: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """Let every text go on, a token of each at a time, all in one batch.

    Texts whose context is longer begin later: at every position some read and others write, so
    that none needs padding before it.

    Args:
        model: causal.
        contexts: at least one, none empty.
        choose: given the rows that write now, int64 (m,), and the log-probabilities of what they
            write next, float64 (m, n_tokens), chooses it: int64 (m,), -1 for a row that is done.

    Raises:
        ModelError: a prediction that is no number.
    """
    read = padded(contexts)
    lengths = torch.tensor([len(context) for context in contexts])
    writing = torch.ones(len(contexts), dtype=torch.bool)
    cache = DynamicCache(config=model.config)
    n_tokens = model.config.get_text_config(decoder=True).vocab_size
    first = int(lengths.min())
    width = max(1, LARGEST // (len(contexts) * n_tokens))
    for start in range(0, first, width):
        part = read[:, start : min(start + width, first)].to(model.device)
        log_probs = _log_probs(model, part, cache)[:, -1]
    position = first
    while True:
        rows = torch.nonzero((lengths <= position) & writing)[:, 0]
        following = read[:, position].clone() if position < read.shape[1] else None
        tokens = torch.full((len(contexts),), _FILLING) if following is None else following
        if len(rows):
            chosen = choose(rows, log_probs[rows.to(log_probs.device)]).cpu()
            writing[rows[chosen < 0]] = False
            tokens[rows] = chosen.clamp(min=_FILLING)
        if not writing.any():
            return
        log_probs = _log_probs(model, tokens[:, None].to(model.device), cache)[:, -1]
        position += 1
