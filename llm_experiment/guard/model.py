"""A causal language model with a hard KL budget built in, for trainers and `generate` alike.

    model = BudgetedCausalLM.from_models(policy, reference, budget_nats=3.0)
    trainer = GRPOTrainer(model=model, ...)
    model.save_pretrained(folder)

Its logits are the log-probabilities of the policy tilted towards the frozen reference as far as the
rest of the sequence's budget demands (`llm_experiment.guard.spending`), so that no sequence that it
writes spends more than `budget_nats`, whatever the policy's weights are. In training both models
read whole sequences at once and the budgets are a scan over numbers; in generation a cache holds
both models' keys and values and the ledger. Both give the same law.

**Which steps are paid for.** Prompts are free. `budget_mask` says, for each position, whether the
prediction made there is charged. Left out, it follows from `labels`: tokens with a label are the
policy's own, as trainers have it. With neither, every position that is no padding is charged.
`generate` charges what it generates, up to the end of the text.

**Packed sequences.** Without an attention mask, a budget starts anew wherever `position_ids` is 0.

**The output layer.** The tilted logits are linear in the two models' last hidden states,
`W_a (lambda h_a) + W_b ((1 - lambda) h_b)`. So the model's last hidden state is
`[lambda h_a, (1 - lambda) h_b]` and its output layer `[W_a, W_b]`: what trainers compute from these
two alone, to save memory, is right too. Models that do more than one linear layer to their last
hidden state, such as bounding their logits, are refused. Both layers work in float32 at least.

**Laws other than this one** are not bounded: temperatures, top-k, beams and always writing the
likeliest token are refused in `generate`; warp the policy itself if need be.
"""

from dataclasses import dataclass
from typing import Any, Final, Self, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    LogitNormalization,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from llm_experiment.guard.adapters import adapted, adapter_of
from llm_experiment.guard.configuration import MODEL_TYPE, BudgetedConfig
from llm_experiment.guard.spending import (
    open_budget,
    policy_kl_nats,
    policy_weights,
    scan_budgets,
)
from theory.budget import BudgetLedger
from theory.errors import InvalidArgumentError, InvalidShapeError, ModelError

N_PROBE_TOKENS: Final = 8
IGNORED: Final = -100
"""The label of a token that a trainer does not score."""
ROUNDING_SHARE: Final = 2e-5
"""Of a budget, kept for the rounding of logits in single precision: what is drawn is from them."""


@dataclass
class BudgetedModelOutput(BaseModelOutputWithPast):
    """What `BudgetedModel` says of n sequences of t tokens.

    Attributes:
        kl_nats: what the prediction made at each position spends, float64, shape (n, t); 0 where it
            is free.
        remaining_nats: what it might spend at most, shape (n, t); infinite where it is free.
    """

    kl_nats: Tensor | None = None
    remaining_nats: Tensor | None = None


@dataclass
class BudgetedCausalLMOutput(CausalLMOutputWithPast):
    """The same, with log-probabilities as `logits`, shape (n, t, vocab_size)."""

    kl_nats: Tensor | None = None
    remaining_nats: Tensor | None = None


class BudgetCache(DynamicCache):
    """The policy's cache, which also holds the reference's and the ledger.

    Args:
        policy: the policy's configuration.
        reference: the reference's.
        ledger: of the sequences.
    """

    def __init__(
        self, policy: PreTrainedConfig, reference: PreTrainedConfig, ledger: BudgetLedger
    ) -> None:
        super().__init__(config=policy)
        self.reference = DynamicCache(config=reference)
        self.ledger = ledger

    @property
    def is_croppable(self) -> bool:
        """Never: what was spent is not unspent."""
        return False

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise InvalidArgumentError(
            "sequences under a budget are drawn one by one: use no beams and no assistant, which "
            "exchange them or take tokens back"
        )

    reorder_cache = crop = batch_repeat_interleave = batch_select_indices = _refuse


class JoinedHead(nn.Module):
    """The output layers of policy and reference as one, `[W_a, W_b]`; owns no parameter.

    Args:
        policy: the policy's output layer.
        reference: the reference's.
    """

    def __init__(self, policy: nn.Linear, reference: nn.Linear) -> None:
        super().__init__()
        self._parts = (policy, reference)  # a tuple registers nothing

    @property
    def weight(self) -> Tensor:
        """Shape (vocab_size, width of both hidden states and of what goes with biases)."""
        columns = []
        for part in self._parts:
            columns.append(_wide(part.weight))
            if part.bias is not None:
                columns.append(_wide(part.bias)[:, None])
        return torch.cat(columns, dim=1)

    @property
    def bias(self) -> None:
        """Biases are columns of `weight`."""
        return

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits of joined hidden states, shape (..., vocab_size)."""
        return nn.functional.linear(hidden, self.weight)

    def join(self, policy: Tensor, reference: Tensor, weight: Tensor) -> Tensor:
        """`[lambda h_a, (1 - lambda) h_b]`, biases' factors included.

        Args:
            policy: h_a, shape (n, t, width).
            reference: h_b.
            weight: lambda, shape (n, t).
        """
        pieces = []
        for part, hidden, share in zip(
            self._parts, (policy, reference), (weight, 1 - weight), strict=True
        ):
            factor = share[..., None].to(_wide(hidden).dtype)
            pieces.append(factor * _wide(hidden))
            if part.bias is not None:
                pieces.append(factor)
        return torch.cat(pieces, dim=-1)


class BudgetedPreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]  # has no types
    """What both classes of models here have in common."""

    config_class = BudgetedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True


class BudgetedModel(BudgetedPreTrainedModel):  # type: ignore[no-untyped-call]  # the same
    """Both models up to their output layers, and what each step spends.

    Args:
        config: of the whole.
        policy: the policy; a new one of `config.policy_config` if left out.
        reference: the same for the reference; it is frozen.
    """

    config: BudgetedConfig

    def __init__(
        self,
        config: BudgetedConfig,
        policy: PreTrainedModel | None = None,
        reference: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        for given in (policy, reference):
            for module in () if given is None else given.modules():
                vars(module)["_is_hf_initialized"] = True  # an adapter's weights too
        self.policy = policy or adapted(_new_model(config.policy_config, config), config.adapter)
        self.reference = reference or _new_model(config.reference_config, config)
        self.reference.requires_grad_(False).train(False)
        self.post_init()  # type: ignore[no-untyped-call]  # the same

    def get_input_embeddings(self) -> nn.Module:
        """The policy's."""
        return self.policy.get_input_embeddings()

    def train(self, mode: bool = True) -> Self:
        """Set the policy's mode; the reference stays in evaluation mode."""
        super().train(mode)
        self.reference.train(False)
        return self

    def head(self) -> JoinedHead:
        """The output layers of both models."""
        return JoinedHead(output_layer(self.policy), output_layer(self.reference))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        budget_mask: Tensor | None = None,
        **others: Any,
    ) -> BudgetedModelOutput:
        """Joined hidden states and what is spent; see `BudgetedCausalLM.forward`."""
        cache = self._cache(past_key_values, use_cache=use_cache, input_ids=input_ids)
        starts = None
        if position_ids is None and attention_mask is not None:
            positions = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
            position_ids = positions[:, -input_ids.shape[1] :]
        elif position_ids is not None and attention_mask is None and cache is None:
            starts = (position_ids == 0).expand_as(input_ids)
        shared = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "use_cache": cache is not None,
            **others,
        }
        own = self.policy.base_model(past_key_values=cache, **shared).last_hidden_state
        with torch.no_grad():
            other = self.reference.base_model(
                past_key_values=None if cache is None else cache.reference, **shared
            ).last_hidden_state
        charged = _charged(budget_mask, attention_mask, input_ids)
        weight, spent, allowed, ledger = self._spend(own, other, charged, starts, cache)
        if cache is not None:
            cache.ledger = ledger
        return BudgetedModelOutput(
            last_hidden_state=self.head().join(own, other, weight),
            past_key_values=cache,
            kl_nats=spent,
            remaining_nats=allowed,
        )

    def _spend(
        self,
        own: Tensor,
        other: Tensor,
        charged: Tensor,
        starts: Tensor | None,
        cache: "BudgetCache | None",
    ) -> tuple[Tensor, Tensor, Tensor, BudgetLedger]:
        """lambda, what is spent and what might be, each of shape (n, t), and the ledger after."""
        log_a = _log_law(output_layer(self.policy), own[charged])
        with torch.no_grad():
            log_b = _log_law(output_layer(self.reference), other[charged])
        rows_kl = policy_kl_nats(log_a, log_b)
        zeros = torch.zeros(charged.shape, dtype=torch.float64, device=charged.device)
        where = charged.nonzero(as_tuple=True)
        ledger = self._open(charged) if cache is None else cache.ledger
        allowed, spent, ledger = scan_budgets(
            zeros.index_put(where, rows_kl),
            charged,
            ledger,
            step_share=self.config.step_share,
            starts=starts,
        )
        weights = policy_weights(log_a, log_b, rows_kl, allowed[where])
        return (zeros + 1).index_put(where, weights), spent, allowed, ledger

    def _cache(
        self, given: Cache | None, *, use_cache: bool | None, input_ids: Tensor
    ) -> "BudgetCache | None":
        if isinstance(given, BudgetCache):
            return given
        if given is not None and given.get_seq_length():
            raise InvalidArgumentError(
                "past_key_values must be what this model returned, which holds both models' keys "
                f"and the budget, got {type(given).__name__}"
            )
        if given is None and not use_cache:
            return None
        return BudgetCache(self.policy.config, self.reference.config, self._open(input_ids))

    def _open(self, rows: Tensor) -> BudgetLedger:
        """A ledger for each of `rows`."""
        single = _wide(output_layer(self.policy).weight[:0]).dtype == torch.float32
        kept = ROUNDING_SHARE if single else 0.0
        return open_budget((1 - kept) * self.config.budget_nats, len(rows), device=rows.device)


class BudgetedCausalLM(BudgetedPreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]  # the same
    """A policy under a hard KL budget from a frozen reference; see the module's docstring.

    Args:
        config: of both models, and the budget.
        policy: the policy; a new one of `config.policy_config` if left out.
        reference: the same for the reference.
    """

    def __init__(
        self,
        config: BudgetedConfig,
        policy: PreTrainedModel | None = None,
        reference: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        self.loss_type = "ForCausalLM"
        self.model = BudgetedModel(config, policy, reference)
        self.register_forward_pre_hook(_mask_from_labels, with_kwargs=True)
        self.post_init()  # type: ignore[no-untyped-call]  # the same
        self.generation_config.do_sample, self.generation_config.top_k = True, 0

    @classmethod
    def from_models(
        cls,
        policy: PreTrainedModel,
        reference: PreTrainedModel,
        *,
        budget_nats: float,
        step_share: float = 1.0,
    ) -> Self:
        """Wrap two loaded models, which are not copied.

        Args:
            policy: a causal language model, or peft's model of one with an adapter.
            reference: another one of the same vocabulary; it is frozen.
            budget_nats: what a sequence may spend at most.
            step_share: what part of the rest of it one step may spend.

        Raises:
            InvalidBudgetError, InvalidArgumentError: a budget or a share out of range.
            ModelError: one and the same model twice, two vocabularies, or a model whose logits are
                not one linear layer of its last hidden state.
        """
        policy, adapter = adapter_of(policy)
        sizes = [output_layer(model).out_features for model in (policy, reference)]
        if sizes[0] != sizes[1]:
            raise ModelError(
                f"the policy has {sizes[0]} tokens and the reference {sizes[1]}; a KL needs two "
                "models of one vocabulary"
            )
        shared = {id(p) for p in policy.parameters()} & {id(p) for p in reference.parameters()}
        if shared:
            raise ModelError(
                "policy and reference share weights, so that the reference would be trained too; "
                "load the reference a second time"
            )
        for model in (policy, reference):
            check_output_layer(model)
        config = BudgetedConfig(
            policy_config=_described(policy.config),
            reference_config=_described(reference.config),
            budget_nats=budget_nats,
            step_share=step_share,
            adapter=adapter,
            vocab_size=sizes[0],
            dtype=policy.dtype,
        )
        model = cls(config, policy, reference)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(model.generation_config, name, getattr(policy.generation_config, name))
        return model

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """See `PreTrainedModel`; what is trained is what is in a new model."""
        model: Self = super().from_pretrained(*args, **kwargs)
        with torch.device("meta"):
            new = cls(model.model.config)
        for name, weight in model.named_parameters():
            weight.requires_grad_(new.get_parameter(name).requires_grad)
        return model

    @property
    def peft_config(self) -> dict[str, Any]:
        """None: `config.adapter` describes an adapter of the policy.

        Raises:
            AttributeError: always, so that this is no model of peft.
        """
        raise AttributeError("peft_config")

    @peft_config.setter
    def peft_config(self, _: dict[str, Any]) -> None:
        raise ModelError(
            "an adapter must be the policy's alone: make peft's model of the policy first, and "
            "wrap that with BudgetedCausalLM.from_models, without a peft_config for the trainer"
        )

    def get_input_embeddings(self) -> nn.Module:
        """The policy's."""
        embeddings: nn.Module = self.model.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> JoinedHead:
        """Both models' output layers as one."""
        head: JoinedHead = self.model.head()
        return head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        budget_mask: Tensor | None = None,
        **others: Any,
    ) -> BudgetedCausalLMOutput:
        """The law of the next token at every position.

        Args:
            input_ids: tokens, int64, shape (n, t).
            attention_mask: 1 where a token is no padding, which may stand on either side; shape
                (n, t), or with what the cache holds.
            position_ids: shape (n, t); from the mask if left out.
            past_key_values: what this model returned before, or an empty cache.
            labels: tokens to score, or -100, shape (n, t).
            use_cache: whether to return a cache.
            logits_to_keep: of how many last positions logits are wanted, or of which; 0 for all.
            budget_mask: which predictions are charged, bool, shape (n, t); see the module.
            others: for both models.

        Raises:
            InvalidDistributionError: NaN logits.
            InvalidShapeError: a mask of another shape.
        """
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            budget_mask=budget_mask,
            **others,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        log_probs = self.model.head()(output.last_hidden_state[:, kept]).log_softmax(dim=-1)
        loss = None
        if labels is not None:
            loss = self.loss_function(log_probs, labels, vocab_size=log_probs.shape[-1], **others)
        return BudgetedCausalLMOutput(
            loss=loss,
            logits=log_probs,
            past_key_values=output.past_key_values,
            kl_nats=output.kl_nats,
            remaining_nats=output.remaining_nats,
        )

    def prepare_inputs_for_generation(
        self, input_ids: Any, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """See `GenerationMixin`; of the prompt only the last prediction is charged."""
        base: Any = super()
        inputs: dict[str, Any] = base.prepare_inputs_for_generation(input_ids, *args, **kwargs)
        mask = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        mask[:, -1] = True
        return inputs | {"budget_mask": mask}

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `BudgetedModel` makes its own

    def _get_logits_processor(
        self, generation_config: GenerationConfig, *args: Any, **kwargs: Any
    ) -> LogitsProcessorList:
        """The processors of `generate`: none that changes the law.

        Raises:
            InvalidArgumentError: one would, or tokens would not be drawn one by one.
        """
        base: Any = super()
        found: LogitsProcessorList = base._get_logits_processor(generation_config, *args, **kwargs)
        names = [type(one).__name__ for one in found if not isinstance(one, LogitNormalization)]
        if generation_config.num_beams > 1:
            names.append("num_beams > 1")
        if not generation_config.do_sample:
            names.append("do_sample=False")
        if names:
            raise InvalidArgumentError(
                f"{', '.join(names)} would write by another law than the one that the budget "
                "bounds; sample with temperature 1, top_k 0, top_p 1 and one beam, and change the "
                "policy instead"
            )
        return found


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The layer that makes logits.

    Raises:
        ModelError: there is none that is linear.
    """
    layer = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # untyped
    if type(layer) is not nn.Linear:
        raise ModelError(
            f"{type(model).__name__} has {type(layer).__name__} for its output layer; a budget "
            "needs a plain linear one, without adapter or quantisation"
        )
    return layer


@torch.no_grad()
def check_output_layer(model: PreTrainedModel) -> None:
    """Raise unless a model's logits are its output layer of its last hidden state.

    Raises:
        ModelError: they are not, as where they are scaled or bounded.
    """
    layer = output_layer(model)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(layer.out_features, (1, N_PROBE_TOKENS), generator=generator)
    tokens = tokens.to(layer.weight.device)
    was_training = model.training
    model.train(False)
    made = model(input_ids=tokens).logits.float()
    again = layer(model.base_model(input_ids=tokens).last_hidden_state).float()
    model.train(was_training)
    rounding = max(torch.finfo(layer.weight.dtype).eps, torch.finfo(torch.float32).eps)
    if not float((made - again).abs().max()) <= 8 * rounding * float(again.abs().max()):
        raise ModelError(
            f"the logits of {type(model).__name__} are not its output layer of its last hidden "
            "state: it scales or bounds them; use KLBudgetLogitsProcessor, or another model"
        )


def _described(config: PreTrainedConfig) -> dict[str, Any]:
    """What a configuration says, without the folder that it was read from."""
    described: dict[str, Any] = config.to_dict()
    described.pop("_name_or_path", None)
    return described


def _new_model(described: dict[str, Any] | None, whole: BudgetedConfig) -> PreTrainedModel:
    """A model of that description, in the precision and with the attention asked of the whole."""
    config = AutoConfig.for_model(**(described or {}))
    return cast(
        PreTrainedModel,
        AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]  # the same
            config, dtype=whole.dtype, attn_implementation=whole._attn_implementation
        ),
    )


def _wide(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _log_law(layer: nn.Linear, hidden: Tensor) -> Tensor:
    """Log-probabilities, float64, of hidden states of shape (m, width)."""
    bias = None if layer.bias is None else _wide(layer.bias)
    logits = nn.functional.linear(_wide(hidden), _wide(layer.weight), bias)
    return logits.double().log_softmax(dim=-1)


def _charged(
    budget_mask: Tensor | None, attention_mask: Tensor | None, input_ids: Tensor
) -> Tensor:
    """Which predictions are charged, bool, shape (n, t)."""
    if budget_mask is None:
        if attention_mask is None:
            return torch.ones_like(input_ids, dtype=torch.bool)
        return attention_mask[:, -input_ids.shape[1] :].bool()
    if budget_mask.shape != input_ids.shape:
        raise InvalidShapeError(
            f"budget_mask must have the shape of input_ids, {tuple(input_ids.shape)}, got "
            f"{tuple(budget_mask.shape)}"
        )
    return budget_mask.bool()


def _mask_from_labels(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Say which predictions are charged where labels do: trainers may keep those to themselves."""
    labels = kwargs.get("labels")
    if labels is None or kwargs.get("budget_mask") is not None:
        return args, kwargs
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[:, :-1] = labels[:, 1:] != IGNORED
    return args, kwargs | {"budget_mask": mask}


AutoConfig.register(MODEL_TYPE, BudgetedConfig, exist_ok=True)
AutoModelForCausalLM.register(BudgetedConfig, BudgetedCausalLM, exist_ok=True)
