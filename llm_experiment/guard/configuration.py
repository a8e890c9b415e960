"""The configuration of `llm_experiment.guard.model.BudgetedCausalLM`."""

from typing import Any, Final

from transformers import PreTrainedConfig

from llm_experiment.guard.arguments import check_budget

MODEL_TYPE: Final = "kl_budgeted"


class BudgetedConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]  # has no types
    """A policy, a frozen reference, and the budget of a sequence.

    Attributes:
        policy_config: what the policy's own configuration says.
        reference_config: what the reference's says.
        budget_nats: what a sequence may spend at most, a finite number >= 0.
        step_share: what part of the rest of it one step may spend, in (0, 1].
        adapter: what peft's configuration of the policy's adapter says, None without one.
        vocab_size: of both models.
    """

    model_type = MODEL_TYPE

    policy_config: dict[str, Any] | None = None
    reference_config: dict[str, Any] | None = None
    budget_nats: float = 0.0
    step_share: float = 1.0
    adapter: dict[str, Any] | None = None
    vocab_size: int = 0
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]  # the same
        check_budget(budget_nats=self.budget_nats, step_share=self.step_share)
