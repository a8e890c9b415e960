"""All that an audit's numbers depend on; it needs no learning library."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_experiment.config import PROCESS, TINY, Lines, Precision, at_least
from llm_experiment.dialogue.task import load_task
from theory.errors import InvalidArgumentError

DEFAULT_PHRASES: Final = ("Yes.",)


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Two models, prompts, and what is measured of them."""

    base_model: str
    """The reference: any language model that `llm_experiment.run` takes, such as a local folder, a
    Hugging Face hub id, or `tiny`, the shipped model."""
    policy: str | None = None
    """The policy to hold against it: a fine-tuned copy, named likewise."""
    prompts: Path
    """File of JSON lines: {"prompt": ...} or {"messages": [...]}, one prompt a line."""
    end_text: Lines | None = None
    """What ends an answer to a plain prompt, such as \\n; the tokenizer's end of text if left out.
    The end of a chat's answer is known from its template."""
    phrases: tuple[str, ...] = DEFAULT_PHRASES
    """Answers of your own to price; the first is also repeated without end."""
    patterns: tuple[str, ...] = ()
    """Regular expressions to price: answers that begin with a match, or, with $ behind, that are
    one."""
    behaviours: tuple[str, ...] = ()
    """Scripts of your own as module:name, each a Behaviour or several."""
    n_times: int = 4
    """How often each script answers, the prompt's follow-up in between."""
    n_tokens: int = 128
    """Longest answer in tokens; longer ones are cut."""
    pattern_tokens: int = 16
    """Step limit of patterns: tokens within which they have to match."""
    n_walks: int = 4
    """Forced walks for each pattern and prompt, at least 2: the likeliest, and drawn ones."""
    n_samples: int = 1
    """Answers of the policy to each prompt."""
    batch_size: int = 32
    """Texts that a model reads at a time: memory grows with it."""
    device: str = "cpu"
    """Torch device of both models, such as `cpu` or `cuda:0`; several GPUs as `cuda:0,cuda:1`, or
    `auto` for all."""
    dtype: Precision = Precision.FLOAT32
    """How the models' weights are stored; `nf4` with the extra `quantised`."""
    task: str = "classroom"
    """Which of the `tiny` models."""
    seed: int = 0
    """Seed of the answers and of the walks."""

    def __post_init__(self) -> None:
        if not self.phrases or not all(phrase.strip() for phrase in self.phrases):
            raise InvalidArgumentError(f"phrases must be at least 1 text, got {self.phrases}")
        for name in ("n_times", "n_tokens", "pattern_tokens", "n_samples", "batch_size"):
            at_least(name, getattr(self, name), 1)
        at_least("n_walks", self.n_walks, 2)
        at_least("seed", self.seed, 0)
        if PROCESS in (self.base_model, self.policy):
            raise InvalidArgumentError(
                f"{PROCESS} is no language model to audit; name {TINY}, which learnt from it"
            )
        load_task(self.task)
