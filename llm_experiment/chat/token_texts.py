"""What each token of a vocabulary adds to a transcript, read without a learning library.

A run's tokens are turned into text for its report, its judges and Figure 2. Most tokenizers are
wholly said by their `tokenizer.json`, which the library `tokenizers` reads in milliseconds; the
others are loaded by transformers (`llm_experiment.base.loading`), which brings torch along.
"""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import tokenizers

from llm_experiment.chat.turn_records import COLON

_FILE: Final = "tokenizer.json"
_CONFIG: Final = "tokenizer_config.json"
_PLAIN_CLASSES: Final = frozenset({"TokenizersBackend", "PreTrainedTokenizerFast"})
"""Transformers' names, new and old, of a tokenizer that is what its file says and nothing more."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer, in transformers' words."""

    def __len__(self) -> int:
        """How many tokens there are, added ones included."""
        ...

    def encode(self, text: str, /, *, add_special_tokens: bool) -> Any:
        """The tokens of a text."""
        ...

    def decode(
        self,
        token_ids: list[int],
        /,
        *,
        skip_special_tokens: bool,
        clean_up_tokenization_spaces: bool,
    ) -> Any:
        """The text of tokens."""
        ...


class PlainTokenizer:
    """A tokenizer that is what its file says.

    Args:
        rules: as `tokenizers` reads them.
    """

    def __init__(self, rules: tokenizers.Tokenizer) -> None:
        self._rules = rules

    def __len__(self) -> int:
        """How many tokens there are, added ones included."""
        return int(self._rules.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, /, *, add_special_tokens: bool) -> list[int]:
        """The tokens of a text."""
        return list(self._rules.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(
        self,
        token_ids: list[int],
        /,
        *,
        skip_special_tokens: bool,
        clean_up_tokenization_spaces: bool,
    ) -> str:
        """The text of tokens; there are no blanks to clean up."""
        del clean_up_tokenization_spaces
        return str(self._rules.decode(token_ids, skip_special_tokens=skip_special_tokens))


def read_tokenizer(name: str) -> Tokenizer:
    """The tokenizer at a local folder or hub id.

    Raises:
        ModelError: no such tokenizer, or a download cut short.
    """
    plain = _read_plain(Path(name))
    if plain is not None:
        return plain
    loaded: Tokenizer = importlib.import_module("llm_experiment.base.loading").load_tokenizer(name)
    return loaded


def _read_plain(folder: Path) -> PlainTokenizer | None:
    """The tokenizer in a folder, if its file says all of it."""
    try:
        config: dict[str, Any] = json.loads((folder / _CONFIG).read_bytes())
        plain = config.get("tokenizer_class") in _PLAIN_CLASSES
        text = (folder / _FILE).read_text(encoding="utf-8") if plain else ""
    except (OSError, ValueError):
        return None  # transformers says what is wrong with it
    if not plain:
        return None
    rules = tokenizers.Tokenizer.from_str(text)
    special = [value for key, value in config.items() if key.endswith("_token")]
    # Transformers adds special tokens that the configuration names and the file lacks.
    known = all(isinstance(t, str) and rules.token_to_id(t) is not None for t in special if t)
    return PlainTokenizer(rules) if known else None


def token_texts(tokenizer: Tokenizer, *, speaker: str, n_tokens: int) -> tuple[str, ...]:
    """What each token adds to a transcript; ids from the tokenizer's size to `n_tokens`, nothing.

    Some decoders treat the first token differently, so that every token is read after the colon
    behind the name of a `speaker`.
    """
    colon = encode_text(tokenizer, f"{speaker}{COLON}")[-1:]
    start = len(decode_tokens(tokenizer, colon))
    texts = [decode_tokens(tokenizer, [*colon, token])[start:] for token in range(len(tokenizer))]
    return (*texts, *[""] * (n_tokens - len(texts)))


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text, no special ones added."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def decode_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of tokens, special ones included."""
    text = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return str(text)
