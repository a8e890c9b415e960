"""Adapters of peft inside a model: taken from its wrapper, described, and put in again.

peft adds its layers into the model that it wraps. That model, without the wrapper, is what
`BudgetedCausalLM` holds; what peft's configuration says is saved with it.
"""

from enum import Enum
from typing import Any, cast

from transformers import PreTrainedModel

from theory.errors import ModelError


def adapter_of(policy: Any) -> tuple[PreTrainedModel, dict[str, Any] | None]:
    """The model inside peft's wrapper and what describes its adapter; any other as it is, and None.

    Raises:
        ModelError: several adapters, or one that is more than layers of the model.
    """
    configs = getattr(policy, "peft_config", None)
    if configs is None:
        return policy, None
    if len(configs) != 1:
        raise ModelError(
            f"the policy has the adapters {', '.join(configs)}; merge or delete all but one"
        )
    (name, config), *_ = configs.items()
    if config.is_prompt_learning or name != "default":
        raise ModelError(
            f"the policy's adapter '{name}' is {config.peft_type.value}; a budget takes one that "
            "changes layers, such as LoRA, under peft's default name"
        )
    inside = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    described = {key: _plain(value) for key, value in config.to_dict().items()}
    return inside, described


def adapted(model: PreTrainedModel, adapter: dict[str, Any] | None) -> PreTrainedModel:
    """`model` with an adapter of that description added into it, or as it is if there is none."""
    if adapter is None:
        return model
    from peft import PeftConfig, inject_adapter_in_model  # noqa: PLC0415  # an extra

    config = PeftConfig.from_peft_type(**adapter)
    return cast(PreTrainedModel, inject_adapter_in_model(config, model))


def _plain(value: Any) -> Any:
    """A value of peft's configuration as JSON has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set):
        return sorted(value)
    return value
