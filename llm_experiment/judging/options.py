"""What is judged of a finished run, by whom and how."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated

import tyro

from llm_experiment.config import at_least
from llm_experiment.judging.endpoint import AskingConfig


class JudgeKind(Enum):
    """Who judges."""

    BUILT_IN = "built-in"
    ENDPOINT = "endpoint"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare transcripts of a finished run pairwise, as in the published Table 1."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run; the result is its judge.json."""
    judge: JudgeKind = JudgeKind.BUILT_IN
    """Who judges: `built-in` compares numbers of the agent's tokens; `endpoint` asks a language
    model, too, which the environment names: OPENAI_MODEL, OPENAI_BASE_URL and OPENAI_API_KEY."""
    budgets_nats: tuple[float, ...] = ()
    """Budgets to compare with the base policy and with each other; the run's two largest if left
    out."""
    n_pairs: int = 300
    """Pairs of transcripts in each comparison, over all seeds."""
    n_tokens: int | None = None
    """Length of the episodes to compare; that of the agents' last training stage if left out."""
    seed: int = 0
    """Seed of the pairs and of who is shown in front."""
    cache: Path | None = None
    """Where a language model's answers are kept; a hidden file in the run's folder if left out."""
    asking: Annotated[AskingConfig, tyro.conf.arg(name="")] = field(default_factory=AskingConfig)
    """How a language model is asked."""

    def __post_init__(self) -> None:
        at_least("n_pairs", self.n_pairs, 1)
        at_least("seed", self.seed, 0)
