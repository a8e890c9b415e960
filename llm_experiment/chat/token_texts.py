"""What each token of a vocabulary adds to a transcript, read without a learning library.

A run's tokens are turned into text for its report, its judges and Figure 2. Most tokenizers are
wholly said by their `tokenizer.json`, which the library `tokenizers` reads in milliseconds; the
others are loaded by transformers (`llm_experiment.base.loading`), which brings torch along.

Two things that a tokenizer's own `decode` does are not what a transcript says:

- *Special tokens* (the beginning and end of a text, padding, ...) are marks for the model and have
  no text here: a name after one still begins a line, and a reply does not hold its marker.
  The token for what is unknown is none of them: it stands for text that the tokenizer cannot write.
- Where a character is cut off within its bytes, tokenizers with a token for every byte give up the
  whole run of byte tokens, complete characters and line breaks included. Here every byte that is
  part of no character is one replacement sign, and takes nothing else away.

A token may be a part of a character: then its text is replacement signs, while a transcript that
holds the rest of the character too has it whole. `token_bytes` gives what every token writes as
bytes of UTF-8, which add up.
"""

import importlib
import json
import re
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final, Protocol

import tokenizers

from llm_experiment.chat.turn_records import COLON
from theory.errors import ModelError

_FILE: Final = "tokenizer.json"
_CONFIG: Final = "tokenizer_config.json"
_PLAIN_CLASSES: Final = frozenset({"TokenizersBackend", "PreTrainedTokenizerFast"})
"""Transformers' names, new and old, of a tokenizer that is what its file says and nothing more."""
_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")
"""The token of a byte, in tokenizers that have one for each."""
_REPLACEMENT: Final = "\ufffd"
_PRINTABLE: Final = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_OF_SIGN: Final = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + place): byte
    for place, byte in enumerate(byte for byte in range(0x100) if byte not in _PRINTABLE)
}
"""How byte-level tokenizers spell bytes: printable ones as themselves, the rest from U+0100 on."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer, in transformers' words."""

    def __len__(self) -> int:
        """How many tokens there are, added ones included."""
        ...

    @property
    def added_tokens_decoder(self) -> Any:
        """Added tokens by id; those that are `special` are marks for the model."""
        ...

    @property
    def unk_token_id(self) -> Any:
        """The token for what is unknown, if any; the next two likewise."""
        ...

    @property
    def bos_token_id(self) -> Any:
        """The token at the beginning of a text."""
        ...

    @property
    def eos_token_id(self) -> Any:
        """The token at its end."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Ids by token, added ones included."""
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
        unk_token: what stands for the unknown, if anything.
        bos_token: at the beginning of a text, if anything.
        eos_token: at its end.
    """

    def __init__(
        self,
        rules: tokenizers.Tokenizer,
        *,
        unk_token: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
    ) -> None:
        self._rules = rules
        self.unk_token_id, self.bos_token_id, self.eos_token_id = (
            None if token is None else rules.token_to_id(token)
            for token in (unk_token, bos_token, eos_token)
        )

    def __len__(self) -> int:
        """How many tokens there are, added ones included."""
        return int(self._rules.get_vocab_size(with_added_tokens=True))

    @property
    def added_tokens_decoder(self) -> dict[int, tokenizers.AddedToken]:
        """Added tokens by id; those that are `special` are marks for the model."""
        return dict(self._rules.get_added_tokens_decoder())

    def get_vocab(self) -> dict[str, int]:
        """Ids by token, added ones included."""
        return dict(self._rules.get_vocab(with_added_tokens=True))

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
    roles = {role: config.get(role) for role in ("unk_token", "bos_token", "eos_token")}
    return PlainTokenizer(rules, **roles) if known else None


class TextDecoder:
    """The text of any tokens of a tokenizer; see the module's docstring.

    Args:
        tokenizer: is read once, so that decoding many transcripts is fast.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        bytes_by_id = {
            token: int(found[1], 16)
            for text, token in tokenizer.get_vocab().items()
            if (found := _BYTE.fullmatch(text))
        }
        # Texts that merely look like bytes decode to themselves.
        newline = next((token for token, byte in bytes_by_id.items() if byte == ord("\n")), None)
        in_bytes = newline is not None and self._decode([newline]) == "\n"
        self._bytes = bytes_by_id if in_bytes else {}
        texts = {*self._bytes, tokenizer.unk_token_id}
        if tokenizer.unk_token_id in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            texts.remove(tokenizer.unk_token_id)  # there is one for all, and nothing unknown
        self._special = {
            token
            for token, added in tokenizer.added_tokens_decoder.items()
            if added.special and added.content.strip() and token not in texts
        }
        # What follows a cut-off character is read after this, as no decoder's first token.
        self._context = encode_text(tokenizer, COLON)[-1:]
        self._context_length = len(self._decode(self._context))

    def __call__(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        kept = [token for token in map(int, ids) if token not in self._special]
        incomplete = self._incomplete_bytes(kept)
        if not incomplete:
            return self._decode(kept)
        text = ""
        for start, end in pairwise([-1, *incomplete, len(kept)]):
            part = kept[start + 1 : end]
            if start >= 0:
                text += _REPLACEMENT
                text += self._decode([*self._context, *part])[self._context_length :]
            else:
                text = self._decode(part)
        return text

    def _incomplete_bytes(self, ids: list[int]) -> list[int]:
        """Places of byte tokens that are part of no character."""
        found = []
        start = 0
        for is_byte, run in groupby(ids, key=self._bytes.__contains__):
            tokens = list(run)
            if is_byte:
                written = bytes(self._bytes[token] for token in tokens)
                found += [start + place for place in _undecodable(written)]
            start += len(tokens)
        return found

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def _undecodable(written: bytes) -> list[int]:
    """Places of the bytes that are part of no character of UTF-8."""
    found: list[int] = []
    start = 0
    while start < len(written):
        try:
            written[start:].decode()
        except UnicodeDecodeError as error:
            found += range(start + error.start, start + error.end)
            start += error.end
        else:
            break
    return found


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id: ids may have gaps."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def token_texts(tokenizer: Tokenizer, *, speaker: str, n_tokens: int) -> tuple[str, ...]:
    """What each token adds to a transcript; special ones and ids without a token, nothing.

    Some decoders treat the first token differently, so that every token is read after the colon
    behind the name of a `speaker`.
    """
    decode = TextDecoder(tokenizer)
    colon = encode_text(tokenizer, f"{speaker}{COLON}")[-1:]
    start = len(decode(colon))
    size = vocabulary_size(tokenizer)
    texts = [decode([*colon, token])[start:] for token in range(size)]
    return (*texts, *[""] * (n_tokens - size))


def token_bytes(tokenizer: Tokenizer, *, speaker: str, n_tokens: int) -> tuple[bytes, ...]:
    """What each token adds to a transcript, in bytes of UTF-8; the arguments of `token_texts`."""
    texts = token_texts(tokenizer, speaker=speaker, n_tokens=n_tokens)
    pieces = [text.encode() for text in texts]
    for spelt, token in tokenizer.get_vocab().items():
        if _REPLACEMENT not in texts[token]:
            continue
        if found := _BYTE.fullmatch(spelt):
            written = bytes([int(found[1], 16)])
        elif all(sign in _BYTE_OF_SIGN for sign in spelt):
            written = bytes(_BYTE_OF_SIGN[sign] for sign in spelt)
        else:
            continue
        if written.decode(errors="replace") == texts[token]:
            pieces[token] = written
    return tuple(pieces)


def spelt_texts(pieces: Sequence[bytes], tokens: Sequence[int]) -> list[str]:
    """The text of every token of one transcript, such that they add up to the transcript's text.

    A character that is split over tokens belongs to the one that begins it, and the others may have
    no text. A byte that is part of no character is one replacement sign.

    Args:
        pieces: of every token of the vocabulary its bytes (`token_bytes`).
        tokens: the transcript.
    """
    written = [pieces[token] for token in tokens]
    try:
        return [piece.decode() for piece in written]
    except UnicodeDecodeError:
        pass
    whole = b"".join(written)
    owners = [place for place, piece in enumerate(written) for _ in piece]
    stray = frozenset(_undecodable(whole))
    texts = [""] * len(written)
    start = 0
    while start < len(whole):
        if start in stray:
            end, text = start + 1, _REPLACEMENT
        else:
            end = start + _character_length(whole[start])
            text = whole[start:end].decode()
        texts[owners[start]] += text
        start = end
    return texts


def _character_length(lead: int) -> int:
    """Bytes of a character of UTF-8, by its first."""
    return 1 + sum(lead >= least for least in (0xC0, 0xE0, 0xF0))


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text, no special ones added."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def encode_start(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text that others are to follow.

    Special tokens that the tokenizer puts before any text are added, unless the text begins with
    them; those that it puts behind one, which would end it, are not.
    """
    plain = encode_text(tokenizer, text)
    whole: list[int] = list(tokenizer.encode(text, add_special_tokens=True))
    starts = range(len(whole) - len(plain) + 1)
    before = next((k for k in starts if whole[k : k + len(plain)] == plain), 0)
    return plain if plain[:before] == whole[:before] else [*whole[:before], *plain]


def encode_words(tokenizer: Tokenizer, words: str, *, speaker: str) -> tuple[int, ...]:
    """The tokens of a turn's words as they follow a speaker's name and colon; none for no words.

    Raises:
        ModelError: the tokenizer does not write them as tokens of their own.
    """
    if not words:
        return ()
    opening = encode_text(tokenizer, f"{speaker}{COLON}")
    whole = encode_text(tokenizer, f"{speaker}{COLON} {words}")
    if whole[: len(opening)] != opening:
        raise ModelError(
            f"the tokenizer writes {words!r} after {speaker}{COLON} only together with the colon; "
            "choose another phrase for the task's behaviour"
        )
    return tuple(whole[len(opening) :])


def decode_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of a few tokens; `TextDecoder` is faster for many."""
    return TextDecoder(tokenizer)(ids)
