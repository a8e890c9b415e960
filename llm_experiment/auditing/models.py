"""The two models of an audit: the base model and, if there is one, a policy fine-tuned from it.

Their KL has a meaning only if token for token they speak of the same things. What shows that they
do not is refused: another vocabulary, another architecture, or embeddings that have nothing to do
with each other.

A policy may be a folder with an adapter of peft (LoRA, say): it is put into a copy of the base
model, whatever its configuration says that it was trained in. It is not merged, so that no weight
is rounded anew.
"""

import importlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_experiment.auditing.settings import AuditSettings
from llm_experiment.base.loading import (
    load_language_model,
    load_tokenizer,
    require,
)
from llm_experiment.base.shipped import model_names
from llm_experiment.config import WorldConfig
from llm_experiment.guard.adapters import adapter_of
from llm_experiment.records.folder import fingerprints, hash_file
from theory.errors import ModelError

LEAST_SIMILARITY: Final = 0.5
"""Cosine of two models' embeddings, each as one vector: 1 for a copy, 0 for models that were
trained apart, whose coordinates mean different things. Fine-tuning moves them by a few percent."""
_SHAPE: Final = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
_UNLIMITED: Final = 2**31
_NOT_READ: Final = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError)
_ROWS: Final = 8192
"""Rows of embeddings that are compared at a time."""
_ADAPTER: Final = "adapter_config.json"
_ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
_TOKENIZER: Final = "tokenizer_config.json"


@dataclass(frozen=True, kw_only=True)
class Models:
    """What an audit reads with.

    Attributes:
        base: the base model b.
        policy: pi; None if only the base model is audited.
        tokenizer: of both; its chat template is the policy's, if that has one.
        n_tokens: size of the vocabulary.
        n_positions: tokens that both read at most.
    """

    base: PreTrainedModel
    policy: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase
    n_tokens: int
    n_positions: int


def names_of(settings: AuditSettings) -> tuple[str, str | None]:
    """Folder or hub id of the base model and of the policy.

    Raises:
        ModelError: a model that is shipped or packaged and not there.
    """
    policy = settings.policy
    return _name_of(settings.base_model, settings), policy and _name_of(policy, settings)


def _name_of(name: str, settings: AuditSettings) -> str:
    return model_names(WorldConfig(base_model=name, task=settings.task))[0]


def model_fingerprints(settings: AuditSettings) -> dict[str, str]:
    """What identifies the models' weights, as far as they lie in folders."""
    names = [name for name in names_of(settings) if name is not None]
    found = fingerprints(*map(Path, names))
    for folder in filter(None, map(adapter_folder, names)):
        found[f"{folder.name}/{_ADAPTER}"] = hash_file(folder / _ADAPTER)
    return found


def load_models(settings: AuditSettings) -> Models:
    """The models that settings name.

    Raises:
        ModelError: in one line: one cannot be loaded, or the policy does not fit the base model.
    """
    base_name, policy_name = names_of(settings)
    tokenizer = load_tokenizer(base_name)
    policy = None
    adapter = None if policy_name is None else adapter_folder(policy_name)
    if policy_name is not None and (adapter is None or (adapter / _TOKENIZER).is_file()):
        own = load_tokenizer(policy_name)
        check_same_tokens(tokenizer, own, names=(base_name, policy_name))
        own.chat_template = own.chat_template or tokenizer.chat_template
        tokenizer = own
    base = load_language_model(base_name, device=settings.device, precision=settings.dtype).model
    if policy_name is not None:
        policy = load_language_model(
            policy_name if adapter is None else base_name,
            device=settings.device,
            precision=settings.dtype,
        ).model
        if adapter is not None:
            policy = with_adapter(policy, adapter)
        check_fine_tuned(base, policy, names=(base_name, policy_name))
    limits = [
        getattr(_text_config(model), "max_position_embeddings", None) or _UNLIMITED
        for model in (base, policy)
        if model is not None
    ]
    return Models(
        base=base,
        policy=policy,
        tokenizer=tokenizer,
        n_tokens=_text_config(base).vocab_size,
        n_positions=min(limits),
    )


def adapter_folder(name: str) -> Path | None:
    """The folder `name`, if it holds an adapter of peft; else None."""
    folder = Path(name)
    return folder if (folder / _ADAPTER).is_file() else None


def with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """`model` with an adapter of peft in its layers, in evaluation mode.

    Args:
        model: is changed.
        folder: of the adapter, in safetensors.

    Raises:
        ModelError: in one line: peft is missing, or an adapter that cannot be read, is none of
            layers, or does not fit the model.
    """
    require("peft", extra="trl", purpose="a policy that is an adapter")
    if not (folder / _ADAPTER_WEIGHTS).is_file():
        raise ModelError(
            f"cannot load the adapter {folder}: it has no {_ADAPTER_WEIGHTS}; save it anew with "
            "save_pretrained of peft"
        )
    peft: Any = importlib.import_module("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        # Else a part of an adapter would pass for the whole, and what is missing for zero.
        warnings.filterwarnings("error", message=".*missing adapter keys")
        try:
            wrapped: Any = peft.PeftModel.from_pretrained(model, folder)
        except (*_NOT_READ, SafetensorError, Warning) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            said = next((line for line in lines if "size mismatch" in line), lines[0])
            raise ModelError(
                f"cannot put the adapter {folder} into the base model: {said.strip():.300}; name "
                "a whole adapter, and with --base-model the model that it was trained in"
            ) from error
    adapted, _ = adapter_of(wrapped)
    adapted.train(mode=False)
    return adapted


def check_same_tokens(
    base: PreTrainedTokenizerBase, policy: PreTrainedTokenizerBase, *, names: tuple[str, str]
) -> None:
    """Raise unless both tokenizers have the same tokens under the same numbers.

    Raises:
        ModelError: the first token that they do not share.
    """
    ours, theirs = base.get_vocab(), policy.get_vocab()
    different = min(
        (token for token in {*ours, *theirs} if ours.get(token) != theirs.get(token)), default=None
    )
    if different is not None:
        raise ModelError(
            f"{names[0]} and {names[1]} have different vocabularies: token {different!r} is "
            f"{ours.get(different)} in one and {theirs.get(different)} in the other, so that the "
            "KL between them means nothing; name a policy fine-tuned from the base model"
        )


def check_fine_tuned(
    base: PreTrainedModel, policy: PreTrainedModel, *, names: tuple[str, str]
) -> None:
    """Raise if the policy cannot be a fine-tuned copy of the base model.

    Raises:
        ModelError: another architecture, size or vocabulary, or embeddings that are unrelated.
    """
    for name in _SHAPE:
        ours, theirs = (getattr(_text_config(model), name, None) for model in (base, policy))
        if ours != theirs:
            raise ModelError(
                f"{names[1]} is not a fine-tuned {names[0]}: its {name} is {theirs} and not "
                f"{ours}; name a policy that began as the base model"
            )
    similarity = _cosine(_embeddings(base), _embeddings(policy))
    if similarity < LEAST_SIMILARITY:
        raise ModelError(
            f"{names[1]} is not a fine-tuned {names[0]}: the cosine of their embeddings is "
            f"{similarity:.2f}, where a fine-tuned copy has nearly 1; name a policy that began as "
            "the base model"
        )


def _embeddings(model: PreTrainedModel) -> Tensor:
    """The input embeddings, shape (n_tokens, width)."""
    layer: Any = model.get_input_embeddings()
    weight: Tensor = layer.weight.detach()
    return weight


def _cosine(first: Tensor, second: Tensor) -> float:
    """Cosine of two matrices, each as one vector; some rows at a time, for they may be large."""
    products = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(first), _ROWS):
        rows = slice(start, start + _ROWS)
        a, b = (m[rows].to(device="cpu", dtype=torch.float64).flatten() for m in (first, second))
        products += torch.stack([a @ b, a @ a, b @ b])
    both, ours, theirs = products.tolist()
    return float(both / math.sqrt(ours * theirs))


def _text_config(model: PreTrainedModel) -> Any:
    return model.config.get_text_config(decoder=True)
