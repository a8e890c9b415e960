"""Training of the models that are shipped: a small Mixtral and a small DistilBERT.

Both are of the published experiment's architectures and are saved as it loads its own: weights in
safetensors, a configuration, a tokenizer. So whatever takes a hub id takes these folders.

The language model learns from transcripts of a known `DialogueProcess`, each seen once. Its
expected loss is the process's entropy plus `KL(tau||LM)`, per token; held-out transcripts give
the loss, the process's exact filter gives the entropy on the same transcripts, and the
difference of the two estimates the divergence alone.

The reward model learns P(POSITIVE | reply), which the task states for each mood, from replies
and their exact probabilities: the expected cross-entropy over labels, whose minimum is the truth.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from llm_experiment.base.loading import bars_on_terminals
from llm_experiment.base.shipped import (
    LANGUAGE_MODEL,
    MAX_TOKENS,
    REWARD_MODEL,
    LanguageModelRecipe,
    RewardModelRecipe,
)
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import LABELS, PAD, POSITIVE, SPECIAL_TOKENS, UNKNOWN
from mightnt.results import replacing_folder, write_json
from mightnt.statistics import CONFIDENCE, normal_interval
from theory.errors import ModelError

MANIFEST: Final = "manifest.json"

_BEGIN: Final = "<s>"
_END: Final = "</s>"
_WARMUP_SHARE: Final = 0.05
_MAX_GRADIENT_NORM: Final = 1.0
_WEIGHT_DECAY: Final = 0.01
_N_REPORTS: Final = 20


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One report during training.

    Attributes:
        step: optimiser steps done.
        n_steps: of so many.
        loss_nats: training loss, averaged since the last report.
        seconds: since training began.
    """

    step: int
    n_steps: int
    loss_nats: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over independent dialogues with a normal confidence interval.

    Attributes:
        mean: over the dialogues.
        low: lower end of the interval.
        high: its upper end.
        confidence: of the interval.
        n_dialogues: how many there were.
    """

    mean: float
    low: float
    high: float
    confidence: float
    n_dialogues: int


@dataclass(frozen=True, kw_only=True)
class LanguageModelQuality:
    """The language model on transcripts that it has not seen, in nats a token.

    Attributes:
        loss: mean of `-log LM(x_t | x_{<t})`.
        floor: mean of `-log tau(x_t | x_{<t})` on the same transcripts.
        excess: mean of their difference, an estimate of `KL(tau||LM)` a token.
    """

    loss: Estimate
    floor: Estimate
    excess: Estimate


@dataclass(frozen=True, kw_only=True)
class RewardModelQuality:
    """The reward model on replies that it has not seen.

    Attributes:
        mean_error: mean of `|P(POSITIVE) - truth|`.
        worst_error: the largest.
    """

    mean_error: float
    worst_error: float


# --------------------------------------------------------------------- tokenizers


def transcript_tokenizer(process: DialogueProcess) -> PreTrainedTokenizerFast:
    """A tokenizer whose ids are the process's tokens; unknown words become `<unk>`."""
    return _wrap(_word_level(process.vocabulary))


def reply_tokenizer(process: DialogueProcess) -> PreTrainedTokenizerFast:
    """The same with a token before and one after, of which a classifier reads the first."""
    tokenizer = _word_level((*process.vocabulary, _BEGIN, _END))
    # A reply may come with or without the blank before its first word.
    tokenizer.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex(r"^ *(?=\w)"), " ")
    tokenizer.add_special_tokens([_BEGIN, _END])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{_BEGIN} $A {_END}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (_BEGIN, _END)],
    )
    return _wrap(tokenizer, cls_token=_BEGIN, sep_token=_END)


def _word_level(vocabulary: Sequence[str]) -> tokenizers.Tokenizer:
    ids = {token: x for x, token in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    # Longest first, so that no word is taken for the beginning of a longer one.
    words = sorted(set(vocabulary) - set(SPECIAL_TOKENS), key=lambda word: (-len(word), word))
    pattern = tokenizers.Regex("|".join(_escape(word) for word in words))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.decoder = tokenizers.decoders.Fuse()  # tokens hold their own blanks
    return tokenizer


def _escape(word: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in word)


def _wrap(tokenizer: tokenizers.Tokenizer, **special_tokens: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers' own
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
        **special_tokens,
    )


# ----------------------------------------------------------------- language model


def new_language_model(process: DialogueProcess, *, seed: int) -> MixtralForCausalLM:
    """An untrained Mixtral for the process's vocabulary, about 350,000 parameters."""
    config = MixtralConfig(
        vocab_size=len(process.vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=MAX_TOKENS,
        # The library's default is for contexts of 100,000 tokens; shorter waves tell near tokens
        # apart, so that whose turn it is gets learnt in half the time.
        rope_parameters={"rope_type": "default", "rope_theta": 1e3},
        pad_token_id=process.vocabulary.index(PAD),
        bos_token_id=None,
        eos_token_id=None,
    )
    with _seeded(seed):
        model = MixtralForCausalLM(config)
    model.set_experts_implementation("eager")  # on a CPU the fastest to train
    return model


def train_language_model(
    process: DialogueProcess,
    recipe: LanguageModelRecipe,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> MixtralForCausalLM:
    """A Mixtral trained on transcripts of `process`, ready for use (in evaluation mode).

    Args:
        process: what it learns.
        recipe: how.
        on_progress: told about twenty times.
    """
    model = new_language_model(process, seed=recipe.seed)
    rng = np.random.default_rng([recipe.seed, 0])

    def loss() -> Tensor:
        batch = process.sample(rng, recipe.batch_size, recipe.sequence_length)
        tokens = torch.from_numpy(batch)
        logits = model(input_ids=tokens, use_cache=False).logits
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    minimise(
        model,
        loss,
        n_steps=recipe.n_steps,
        learning_rate=recipe.learning_rate,
        on_progress=on_progress,
    )
    return model


def language_model_quality(
    model: PreTrainedModel, process: DialogueProcess, recipe: LanguageModelRecipe
) -> LanguageModelQuality:
    """Loss, floor and their difference on held-out transcripts (a seed of their own)."""
    rng = np.random.default_rng([recipe.seed, 1])
    transcripts = process.sample(rng, recipe.n_heldout, recipe.sequence_length)
    losses = -language_model_log_likelihoods(model, transcripts)
    floors = -process.log_likelihoods(transcripts)[:, 1:]
    return LanguageModelQuality(
        loss=mean_over_dialogues(losses.mean(axis=1)),
        floor=mean_over_dialogues(floors.mean(axis=1)),
        excess=mean_over_dialogues((losses - floors).mean(axis=1)),
    )


def language_model_log_likelihoods(
    model: PreTrainedModel, transcripts: np.ndarray[Any, Any], *, batch_size: int = 64
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """`log LM(x_t | x_{<t})` in nats of every token but the first.

    Args:
        model: a causal language model.
        transcripts: shape (n, tokens).
        batch_size: transcripts of a forward.

    Returns:
        Shape (n, tokens - 1).
    """
    batches = []
    with torch.inference_mode():
        for start in range(0, len(transcripts), batch_size):
            tokens = torch.from_numpy(transcripts[start : start + batch_size]).to(model.device)
            log_probs = model(input_ids=tokens, use_cache=False).logits.log_softmax(dim=-1)
            taken = log_probs[:, :-1].gather(2, tokens[:, 1:, None])[..., 0]
            batches.append(taken.double().cpu().numpy())
    return np.concatenate(batches)


def mean_over_dialogues(values: NDArray[np.float64], *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of one value a dialogue, shape (n,), with its normal confidence interval."""
    interval = normal_interval(values.tolist(), confidence=confidence)
    return Estimate(
        mean=float(values.mean()),
        low=interval.low,
        high=interval.high,
        confidence=confidence,
        n_dialogues=len(values),
    )


# ------------------------------------------------------------------- reward model


def new_reward_model(
    tokenizer: PreTrainedTokenizerFast, *, seed: int
) -> DistilBertForSequenceClassification:
    """An untrained DistilBERT classifier of one layer with SST-2's labels."""
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=32,
        n_layers=1,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=MAX_TOKENS,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    with _seeded(seed):
        return DistilBertForSequenceClassification(config)


def train_reward_model(
    process: DialogueProcess,
    recipe: RewardModelRecipe,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> DistilBertForSequenceClassification:
    """A classifier that knows `DialogueTask.positive`, in evaluation mode."""
    tokenizer = reply_tokenizer(process)
    model = new_reward_model(tokenizer, seed=recipe.seed)
    rng = np.random.default_rng([recipe.seed, 0])

    def loss() -> Tensor:
        texts, positive = process.sample_replies(rng, recipe.batch_size)
        encoded = tokenizer(texts, padding=True, return_tensors="pt")
        target = torch.from_numpy(np.stack([1 - positive, positive], axis=1)).float()
        return functional.cross_entropy(model(**encoded).logits, target)

    minimise(
        model,
        loss,
        n_steps=recipe.n_steps,
        learning_rate=recipe.learning_rate,
        on_progress=on_progress,
    )
    return model


def reward_model_quality(
    model: PreTrainedModel, process: DialogueProcess, recipe: RewardModelRecipe
) -> RewardModelQuality:
    """Errors of P(POSITIVE) on held-out replies (a seed of their own)."""
    rng = np.random.default_rng([recipe.seed, 1])
    texts, positive = process.sample_replies(rng, recipe.n_heldout)
    encoded = reply_tokenizer(process)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        probabilities = model(**encoded).logits.softmax(dim=-1)[:, LABELS.index(POSITIVE)]
    errors = np.abs(probabilities.double().numpy() - positive)
    return RewardModelQuality(mean_error=float(errors.mean()), worst_error=float(errors.max()))


# --------------------------------------------------------------------- files


def save_models(
    folder: Path,
    process: DialogueProcess,
    language_model: PreTrainedModel,
    reward_model: PreTrainedModel,
    manifest: dict[str, Any],
) -> None:
    """Write both models with their tokenizers and a manifest, as a whole or not at all.

    Raises:
        ResultsError: the folder cannot be written; what stood there before is untouched.
    """
    with replacing_folder(folder) as new:
        for name, model, tokenizer in (
            (LANGUAGE_MODEL, language_model, transcript_tokenizer(process)),
            (REWARD_MODEL, reward_model, reply_tokenizer(process)),
        ):
            save_model(new / name, model, tokenizer)
        write_json(new / MANIFEST, manifest)


def train_into(
    folder: Path, process: DialogueProcess, recipe: LanguageModelRecipe
) -> tuple[MixtralForCausalLM, LanguageModelQuality]:
    """A trained language model, saved with its tokenizer in `folder`, and how good it is.

    One thread: one order of summation, so the same weights every time.

    Raises:
        ResultsError: the folder cannot be written.
    """
    torch.set_num_threads(1)
    disable_progress_bar()  # type: ignore[no-untyped-call]  # the library's own, for saving
    model = train_language_model(process, recipe)
    quality = language_model_quality(model, process, recipe)
    with replacing_folder(folder) as new:
        save_model(new / LANGUAGE_MODEL, model, transcript_tokenizer(process))
    return model, quality


def save_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a model with its tokenizer, as transformers reads them."""
    with bars_on_terminals():
        model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # the library lets its owner only read
    tokenizer.save_pretrained(folder)


# ------------------------------------------------------------------------- common


def minimise(
    model: PreTrainedModel,
    loss: Callable[[], Tensor],
    *,
    n_steps: int,
    learning_rate: float,
    on_progress: Callable[[Progress], None],
) -> None:
    """Lower a loss by AdamW with warm-up and cosine decay.

    Args:
        model: learns; is left in evaluation mode.
        loss: of a batch that it draws itself.
        n_steps: of the optimiser.
        learning_rate: its peak.
        on_progress: told about twenty times.

    Raises:
        ModelError: the loss is no number any more.
    """
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": _WEIGHT_DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=learning_rate,
        betas=(0.9, 0.95),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _learning_rate_share(step, n_steps)
    )
    began = time.monotonic()
    recent: list[float] = []
    model.train()
    for step in range(1, n_steps + 1):
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        recent.append(value.item())
        if not math.isfinite(recent[-1]):
            raise ModelError(
                f"training diverged: the loss is {recent[-1]} at step {step} of {n_steps}; lower "
                f"the learning rate, {learning_rate:g}"
            )
        if step * _N_REPORTS // n_steps > (step - 1) * _N_REPORTS // n_steps:
            on_progress(
                Progress(
                    step=step,
                    n_steps=n_steps,
                    loss_nats=float(np.mean(recent)),
                    seconds=time.monotonic() - began,
                )
            )
            recent.clear()
    model.train(mode=False)


def _learning_rate_share(step: int, n_steps: int) -> float:
    warmup = max(1, round(_WARMUP_SHARE * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Transformers draws first weights from torch's global generator: lend it a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
