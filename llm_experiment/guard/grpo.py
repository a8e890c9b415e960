"""A hard budget and a penalty in the same trainer: GRPO of trl, as it comes.

The policy is a shipped language model, and the reference is that model as it was. It answers the
classroom's Student, and earns 1 for each word of praise in its turn. It is trained either inside
`BudgetedCausalLM`, without a penalty, or as it is, with trl's penalty `beta` on an estimate of the
KL. What a turn really costs is measured in both cases alike (`llm_experiment.guard.measured`), by a
second reward function of weight 0, which trl logs as `rewards/kl_nats`.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

from llm_experiment.base.shipped import language_model_folder
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.guard.measured import answers_kl_nats
from llm_experiment.guard.model import BudgetedCausalLM
from llm_experiment.guard.study import Constraint, GRPOSettings, Outcome

END_OF_TURN: Final = "\n"
DIALOGUE_TOKENS: Final = 96
"""Of the dialogues whose beginnings are prompts."""
LOGGING_DIR: Final = "TENSORBOARD_LOGGING_DIR"
"""The variable by which transformers' own callback is told of its folder."""

RewardFunction = Callable[..., list[float]]


@dataclass(frozen=True, kw_only=True)
class Classroom:
    """What all trainings share.

    Attributes:
        tokenizer: of the models; a line break ends a turn.
        reference: the shipped model.
        prompts: beginnings of dialogues that leave the turn to the Teacher, for training.
        held_out: others, for evaluation.
        praise: the tokens that earn.
    """

    tokenizer: PreTrainedTokenizerBase
    reference: PreTrainedModel
    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    praise: frozenset[int]

    def reward(self, answer: Sequence[int]) -> float:
        """Words of praise in a turn."""
        return float(sum(token in self.praise for token in answer))

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Prompts as token ids."""
        return [list(self.tokenizer(prompt).input_ids) for prompt in prompts]


def load_classroom(settings: GRPOSettings) -> Classroom:
    """The shipped model, its tokenizer, and prompts.

    Raises:
        InvalidArgumentError: a word that is no token.
    """
    process = DialogueProcess(load_task(settings.task))
    tokenizer = AutoTokenizer.from_pretrained(language_model_folder(settings.task))
    tokenizer.eos_token = END_OF_TURN
    rng = np.random.default_rng(settings.seed)
    n_prompts = settings.n_prompts + settings.n_held_out
    prompts = list(_prompts(process, rng, n_prompts))
    with _quiet():
        reference = _shipped(settings.task)
    return Classroom(
        tokenizer=tokenizer,
        reference=reference,
        prompts=tuple(prompts[: settings.n_prompts]),
        held_out=tuple(prompts[settings.n_prompts :]),
        praise=frozenset(process.vocabulary.index(word) for word in settings.words),
    )


def train_and_measure(
    constraint: Constraint,
    settings: GRPOSettings,
    classroom: Classroom,
    *,
    folder: Path,
    on_step: Callable[[], None],
) -> Outcome:
    """Train under one constraint, and measure what came of it.

    Args:
        constraint: the budget, or the penalty.
        settings: of all trainings.
        classroom: what they share.
        folder: for TensorBoard's files.
        on_step: called after every step of the trainer.
    """
    seen: list[float] = []
    with _quiet(), _environment(LOGGING_DIR, str(folder)):
        model = _shipped(settings.task)
        if constraint.budget_nats is not None:
            model = BudgetedCausalLM.from_models(
                model, _shipped(settings.task), budget_nats=constraint.budget_nats
            )
        _train(model, constraint, settings, classroom, folder=folder, on_step=on_step, seen=seen)
    model.train(False)
    answers = _answers(model, classroom, settings)
    spent = answers_kl_nats(
        model, classroom.reference, classroom.encode(classroom.held_out), answers
    )
    return Outcome(
        constraint=constraint,
        returns=tuple(classroom.reward(answer) for answer in answers),
        kl_nats=tuple(spent.tolist()),
        most_in_training_nats=max(seen, default=0.0),
        n_in_training=len(seen),
    )


def _train(
    model: PreTrainedModel,
    constraint: Constraint,
    settings: GRPOSettings,
    classroom: Classroom,
    *,
    folder: Path,
    on_step: Callable[[], None],
    seen: list[float],
) -> None:
    """Train `model`; what its answers in training cost is added to `seen`."""

    def praise(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [classroom.reward(answer) for answer in completion_ids]

    def kl_nats(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        costs = answers_kl_nats(
            model, classroom.reference, classroom.encode(prompts), completion_ids
        )
        seen.extend(costs.tolist())
        return costs.tolist()

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            on_step()

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[praise, kl_nats],
        args=GRPOConfig(
            output_dir=str(folder),
            beta=constraint.beta,
            reward_weights=[1.0, 0.0],
            learning_rate=settings.learning_rate,
            max_steps=settings.max_steps,
            num_generations=settings.num_generations,
            per_device_train_batch_size=settings.per_device_train_batch_size,
            max_completion_length=settings.max_completion_length,
            seed=settings.seed,
            lr_scheduler_type="constant",
            logging_steps=1,
            report_to=["tensorboard"],
            save_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            activation_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": list(classroom.prompts)}),
        processing_class=classroom.tokenizer,
        callbacks=[Steps()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


@torch.no_grad()
def _answers(
    model: PreTrainedModel, classroom: Classroom, settings: GRPOSettings
) -> list[list[int]]:
    """An answer to every prompt that is held out, with its end."""
    tokenizer = classroom.tokenizer
    torch.manual_seed(settings.seed)
    batch = tokenizer(
        list(classroom.held_out), padding=True, padding_side="left", return_tensors="pt"
    ).to(model.device)
    generate: Any = model.generate
    texts = generate(
        batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=settings.max_completion_length,
        do_sample=True,
        top_k=0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    answers = []
    for row in texts[:, batch["input_ids"].shape[1] :].tolist():
        ended = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else None
        answers.append(row[:ended])
    return answers


def _prompts(process: DialogueProcess, rng: np.random.Generator, n: int) -> Iterator[str]:
    """Beginnings of dialogues, up to where the agent is to answer for the second time."""
    agent = f"{process.task.agent}:"
    while n:
        for tokens in process.sample(rng, n, DIALOGUE_TOKENS):
            parts = process.decode(tokens).split(agent)
            if n and len(parts) > 2:
                n -= 1
                yield agent.join([*parts[:2], ""])


def _shipped(task: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(language_model_folder(task))
    model.train(False)
    return model


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' bars, advice, and warnings of each other."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # has no types
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the same
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # the same
