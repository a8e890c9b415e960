"""Models without training: the published architectures at a chosen size, weights drawn at random.

They need no hub and say nothing, but they cost what trained ones cost. The tokenizer reads bytes
and a few pairs of them; the rest of the vocabulary, as large as that of a trained model, is tokens
without text.
"""

from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    MixtralConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from llm_experiment.base.loading import bars_on_terminals, compute_dtype, settle
from llm_experiment.config import PUBLISHED_PROMPT, Precision
from llm_experiment.dialogue.task import NEGATIVE, POSITIVE
from llm_experiment.feasibility.memory import Shapes
from llm_experiment.feasibility.sizes import RandomSize
from theory.errors import ModelError

LANGUAGE_MODEL: Final = "language_model"
REWARD_MODEL: Final = "reward_model"
_PAD: Final = "[PAD]"
_N_MERGED: Final = 128
"""Tokens of the tokenizer that are more than a byte."""


def random_shapes(size: RandomSize) -> Shapes:
    """The shapes of the models of a size."""
    reward = DistilBertConfig(
        id2label={0: NEGATIVE, 1: POSITIVE}, label2id={NEGATIVE: 0, POSITIVE: 1}, pad_token_id=0
    )
    if size is not RandomSize.MIXTRAL_8X7B:  # else the sizes of DistilBERT's base
        reward.dim, reward.hidden_dim, reward.n_heads, reward.n_layers = 64, 128, 4, 2
    match size:
        case RandomSize.TINY:
            model = MixtralConfig(
                vocab_size=1024,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                num_local_experts=4,
                max_position_embeddings=4096,
            )
        case RandomSize.SMALL:
            model = MixtralConfig(
                hidden_size=256,
                intermediate_size=896,
                num_hidden_layers=4,
                num_attention_heads=8,
                num_key_value_heads=2,
                max_position_embeddings=4096,
            )
        case RandomSize.MIXTRAL_8X7B:
            model = MixtralConfig()  # the library's defaults are this model's sizes
    return Shapes(language_model=model, reward_model=reward)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and the pairs of them that are commonest in the published starting transcript."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1 + len(alphabet) + _N_MERGED,
        special_tokens=[_PAD],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PUBLISHED_PROMPT], trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call] # untyped
        tokenizer_object=tokenizer, pad_token=_PAD, model_max_length=512
    )


def save_random_models(shapes: Shapes, folder: Path, *, seed: int) -> tuple[Path, Path]:
    """Write models with random weights, and tokenizers, as trained ones are written.

    Args:
        shapes: what to write.
        folder: gets a folder for each model.
        seed: of the weights.

    Returns:
        The folders of the language model and of the reward model.
    """
    language_model, reward_model = folder / LANGUAGE_MODEL, folder / REWARD_MODEL
    model = _random_model(shapes, torch.device("cpu"), Precision.FLOAT32, seed)
    with bars_on_terminals():
        model.save_pretrained(language_model)
    byte_tokenizer().save_pretrained(language_model)
    save_random_reward_model(shapes, reward_model, seed=seed)
    return language_model, reward_model


def save_random_reward_model(shapes: Shapes, folder: Path, *, seed: int) -> None:
    """Write a sentiment classifier with random weights, and its tokenizer, into `folder`."""
    with torch.random.fork_rng(), bars_on_terminals():
        torch.manual_seed(seed)
        AutoModelForSequenceClassification.from_config(shapes.reward_model).save_pretrained(folder)  # type: ignore[no-untyped-call] # untyped
    byte_tokenizer().save_pretrained(folder)


def random_language_model(
    shapes: Shapes, devices: tuple[torch.device, ...], precision: Precision, *, seed: int
) -> PreTrainedModel:
    """A language model whose random weights are drawn where they are to be.

    Args:
        shapes: which one.
        devices: one.
        precision: of its weights.
        seed: of the weights.

    Raises:
        ModelError: several devices, or a missing library.
    """
    if len(devices) > 1:
        raise ModelError(
            f"random weights are drawn on one device, got {len(devices)}; name one, such as cuda:0"
        )
    host = torch.device("cpu")
    drawn_on = host if precision is Precision.NF4 else devices[0]
    return settle(_random_model(shapes, drawn_on, precision, seed), devices, precision)


def _random_model(
    shapes: Shapes, device: torch.device, precision: Precision, seed: int
) -> PreTrainedModel:
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), device:
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call] # untyped
            shapes.language_model, dtype=compute_dtype(precision)
        )
    return model
