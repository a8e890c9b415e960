"""A hard budget beside a penalty: what is asked for, and what came of it.

Apart from `llm_experiment.guard.grpo`, which needs trl, so that settings are read, and finished
trainings told, without it.
"""

from dataclasses import dataclass

from llm_experiment.config import at_least, positive
from llm_experiment.guard.arguments import check_budget
from theory.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """What holds a policy near its reference; neither for none.

    Attributes:
        budget_nats: a hard budget of each sequence.
        beta: trl's coefficient of its penalty.
    """

    budget_nats: float | None = None
    beta: float = 0.0

    def __post_init__(self) -> None:
        at_least("beta", self.beta, 0.0)
        if self.budget_nats is not None:
            check_budget(budget_nats=self.budget_nats, step_share=1.0)
            if self.beta:
                raise InvalidArgumentError(
                    f"a constraint is a budget or a penalty, got {self.budget_nats} nats and beta "
                    f"{self.beta}"
                )

    @property
    def name(self) -> str:
        """Short, for people and files."""
        if self.budget_nats is not None:
            return f"budget-{self.budget_nats:g}"
        return f"beta-{self.beta:g}"


@dataclass(frozen=True, kw_only=True)
class GRPOSettings:
    """How every policy is trained; names as trl has them."""

    task: str = "classroom"
    """Dialogue task: a module of llm_experiment/dialogue/tasks/."""
    words: tuple[str, ...] = (" great", " good", " nice", " love", " fun", " Great", " Good")
    """Words of praise, as tokens: each earns 1."""
    max_steps: int = 100
    """Steps of the trainer."""
    per_device_train_batch_size: int = 32
    """Sequences of a step."""
    num_generations: int = 8
    """Sequences a prompt."""
    max_completion_length: int = 24
    """Tokens that a sequence has at most."""
    learning_rate: float = 3e-4
    """Of AdamW, constant."""
    n_prompts: int = 512
    """Prompts to train on."""
    n_held_out: int = 256
    """Prompts to evaluate on, with one sequence each."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        least = {
            "max_steps": 1, "per_device_train_batch_size": 2, "num_generations": 2,
            "max_completion_length": 1, "n_prompts": 1, "n_held_out": 2, "seed": 0,
        }  # fmt: skip
        for name, bound in least.items():
            at_least(name, getattr(self, name), bound)
        positive("learning_rate", self.learning_rate)
        if not self.words:
            raise InvalidArgumentError("words must name at least 1 token, got none")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a training.

    Attributes:
        constraint: under which it was.
        returns: what each held-out sequence earned.
        kl_nats: what each really cost.
        most_in_training_nats: the largest cost of a sequence in training.
        n_in_training: how many sequences these were.
    """

    constraint: Constraint
    returns: tuple[float, ...]
    kl_nats: tuple[float, ...]
    most_in_training_nats: float
    n_in_training: int

    @property
    def mean_return(self) -> float:
        """Over held-out sequences."""
        return sum(self.returns) / len(self.returns)

    @property
    def mean_kl_nats(self) -> float:
        """The KL of whole sequences, estimated over held-out ones."""
        return sum(self.kl_nats) / len(self.kl_nats)

    @property
    def most_nats(self) -> float:
        """The dearest sequence, held-out or in training."""
        return max(*self.kl_nats, self.most_in_training_nats)

    @property
    def is_overspent(self) -> bool | None:
        """Whether any sequence cost more than its budget; None without one."""
        budget = self.constraint.budget_nats
        return None if budget is None else self.most_nats > budget
