"""A hard KL budget in `generate` of transformers: a logits processor.

    processor = KLBudgetLogitsProcessor(
        reference, budget_nats=3.0, attention_mask=inputs.attention_mask, eos_token_id=eos
    )
    policy.generate(**inputs, do_sample=True, logits_processor=[processor])
    processor.spent_nats

The model that generates is the policy. At every step the processor asks the reference too, tilts
the policy towards it as far as the rest of the text's budget demands
(`llm_experiment.guard.spending`) and *draws the token itself*: in the logits that it returns only
the token drawn is possible. What comes after it (temperature, top-k and top-p, which `generate`
applies last, or no sampling at all) can then not change the law that was paid for. What comes
before it, such as a penalty on repetitions, changes the policy, and that is paid for. Warpers that
are wanted go into `policy_processors`. Processors of the reference, such as vetoes, go into
`reference_processors`: the budget is then one to the reference as they leave it, and what they make
impossible stays so.

Texts are independent of each other and never exchanged, which beams would do; those are refused, as
is whatever else chooses other tokens than those drawn. Streamers work as ever.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from llm_experiment.chat.lockstep import sample_tokens
from llm_experiment.guard.arguments import check_budget
from llm_experiment.guard.spending import (
    LEAST_NATS,
    SAFETY,
    check_logits,
    open_budget,
)
from theory.budget import BudgetLedger
from theory.errors import InvalidArgumentError, InvalidShapeError, ModelError
from theory.projections import geometric_projection

NOT_AS_DRAWN: Final = (
    "texts must go on with the tokens that the KLBudgetLogitsProcessor drew: use one for one call "
    "of generate, as the last of its logits_processor, name eos_token_id, and use no beams and no "
    "assistant, which choose tokens otherwise, so that no budget bounds them"
)


class CachedReference:
    """A frozen model that reads texts on, with a cache of its own.

    Args:
        model: the reference; is left as it is, and called in whichever mode it is in.
        attention_mask: which tokens of the prompts are no padding, shape (n, t); None if all.
    """

    def __init__(self, model: PreTrainedModel, attention_mask: Tensor | None) -> None:
        self._model = model
        self._mask = attention_mask
        self._cache = DynamicCache(config=model.config)
        known = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in known
        self._keeps_logits = "logits_to_keep" in known

    @torch.no_grad()
    def next_logits(self, input_ids: Tensor) -> Tensor:
        """Logits of the next token, shape (n, n_tokens), given whole texts of shape (n, t)."""
        mask = self._extended_mask(input_ids)
        new = input_ids[:, self._cache.get_seq_length() :]
        more: dict[str, Any] = {}
        if self._takes_positions:
            positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
            more["position_ids"] = positions[:, -new.shape[1] :]
        if self._keeps_logits:
            more["logits_to_keep"] = 1
        output = self._model(
            input_ids=new,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **more,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _extended_mask(self, input_ids: Tensor) -> Tensor:
        """The mask of whole texts: what was generated is no padding."""
        n, length = input_ids.shape
        if self._mask is None:
            self._mask = torch.ones_like(input_ids)
        mask = self._mask.to(input_ids)
        if n % len(mask) or mask.shape[1] > length:
            raise InvalidShapeError(
                f"attention_mask must be that of the prompts, of which there are {n} texts of up "
                f"to {length} tokens, got shape {tuple(mask.shape)}"
            )
        mask = mask.repeat_interleave(n // len(mask), dim=0)  # several texts a prompt
        return torch.cat([mask, mask.new_ones(n, length - mask.shape[1])], dim=1)


class KLBudgetLogitsProcessor(LogitsProcessor):
    """A KL budget for each text of one call of `generate`; see the module's docstring.

    Args:
        reference: the model from which the KL is measured, of the policy's vocabulary, in
            evaluation mode and on the policy's device.
        budget_nats: what a text may spend at most, a finite number >= 0.
        attention_mask: the one that `generate` is given, shape (n, t); None if prompts are not
            padded.
        eos_token_id: the tokens that end a text, as for `generate`; None if none does. What comes
            after them is not charged.
        pad_token_id: what `generate` writes after texts that end otherwise, as by a stop string;
            one step after the end is charged then.
        step_share: what part of the rest of the budget one step may spend, in (0, 1].
        policy_processors: applied to the policy's logits before they are projected.
        reference_processors: applied to those of the reference.
        generator: of the draws, on the device of the logits; torch's own one if None.

    Raises:
        InvalidBudgetError, InvalidArgumentError: a budget or a share out of range.
    """

    def __init__(
        self,
        reference: PreTrainedModel,
        *,
        budget_nats: float,
        attention_mask: Tensor | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        step_share: float = 1.0,
        policy_processors: Sequence[LogitsProcessor] = (),
        reference_processors: Sequence[LogitsProcessor] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        check_budget(budget_nats=budget_nats, step_share=step_share)
        if reference.training:
            raise ModelError("the reference is in training mode; call its eval() first")
        ends = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id or ())
        self._reference = CachedReference(reference, attention_mask)
        self._budget_nats = budget_nats
        self._step_share = step_share
        self._ends = torch.tensor(ends, dtype=torch.int64)
        self._pad = pad_token_id
        self._policy_processors = LogitsProcessorList(policy_processors)
        self._reference_processors = LogitsProcessorList(reference_processors)
        self._generator = generator
        self._texts: _Texts | None = None
        self._memory: Tensor | None = (
            None  # new memory at every step would cost as much as the work
        )
        self._kl_nats: list[Tensor] = []

    @property
    def ledger(self) -> BudgetLedger:
        """The budgets of the texts.

        Raises:
            InvalidArgumentError: nothing was generated yet.
        """
        return self._known.ledger

    @property
    def spent_nats(self) -> Tensor:
        """The KL that each text spent, float64, shape (n,); errors as for `ledger`."""
        spent: Tensor = self._known.ledger.spent_nats
        return spent

    @property
    def kl_nats(self) -> Tensor:
        """The KL of every step, float64, shape (n, steps), 0 after a text's end."""
        _ = self._known
        return torch.stack(self._kl_nats, dim=1)

    @property
    def log_law(self) -> Tensor:
        """The log-probabilities that the last token was drawn from, shape (n, n_tokens)."""
        return self._known.log_law

    @property
    def _known(self) -> "_Texts":
        if self._texts is None:
            raise InvalidArgumentError("there is no budget to read before generate was called")
        return self._texts

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Logits under which only the token drawn is possible; see `LogitsProcessor`.

        Args:
            input_ids: the texts so far, int64, shape (n, t).
            scores: the policy's logits of the next token, shape (n, n_tokens).

        Raises:
            InvalidArgumentError: texts that do not go on with the tokens drawn.
            ModelError: the reference has another vocabulary.
            InvalidDistributionError: logits that are NaN, infinite, or -inf throughout.
            InvalidShapeError: an attention mask that is not the prompts'.
        """
        ledger, finished = self._go_on(input_ids)
        reference = self._reference.next_logits(input_ids).to(scores)
        if reference.shape != scores.shape:
            raise ModelError(
                f"the policy has {scores.shape[-1]} tokens and the reference "
                f"{reference.shape[-1]}; a KL needs two models of one vocabulary"
            )
        reference = self._reference_processors(input_ids, reference)
        check_logits(reference)
        policy = self._policy_processors(input_ids, scores)
        if self._memory is None or self._memory.shape[1:] != scores.shape:
            self._memory = scores.new_empty((2, *scores.shape), dtype=torch.float64)
        a, b = self._memory[0].copy_(policy), self._memory[1].copy_(reference)
        log_x, spends = _law_within(a, b, self._step_share * ledger.remaining_nats)
        spends = spends.where(~finished, 0.0)
        drawn = sample_tokens(log_x, generator=self._generator, normalised=True, memory=a)
        self._kl_nats.append(spends)
        self._texts = _Texts(
            read=input_ids.clone(),
            drawn=drawn,
            finished=finished,
            ledger=ledger.charge(kl_nats=spends),
            log_law=log_x,
        )
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)

    def _go_on(self, input_ids: Tensor) -> tuple[BudgetLedger, Tensor]:
        """The budgets, and which texts have ended, shape (n,), after a look at how they went on."""
        if self._texts is None:
            ledger = open_budget(self._budget_nats, len(input_ids), device=input_ids.device)
            return ledger, torch.zeros_like(input_ids[:, 0], dtype=torch.bool)
        before, chosen = self._texts, input_ids[:, -1]
        as_drawn, finished = chosen == before.drawn, before.finished
        if self._pad is not None:
            finished = finished | (~as_drawn & (chosen == self._pad))
        if not torch.equal(input_ids[:, :-1], before.read) or not bool((finished | as_drawn).all()):
            raise InvalidArgumentError(NOT_AS_DRAWN)
        return before.ledger, finished | torch.isin(chosen, self._ends.to(chosen.device))


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """Where n texts stand after a step.

    Attributes:
        read: their tokens before it, shape (n, t).
        drawn: the token drawn for each, shape (n,).
        finished: which had ended before it, shape (n,).
        ledger: their budgets.
        log_law: what the tokens were drawn from, shape (n, n_tokens).
    """

    read: Tensor
    drawn: Tensor
    finished: Tensor
    ledger: BudgetLedger
    log_law: Tensor


def _law_within(policy: Tensor, reference: Tensor, allowance_nats: Tensor) -> tuple[Tensor, Tensor]:
    """The law of every row, log x of shape (n, n_tokens), and what it spends, shape (n,).

    Args:
        policy: logits, float64, shape (n, n_tokens).
        reference: logits, likewise.
        allowance_nats: what a row may spend, float64, shape (n,).
    """
    left = allowance_nats > LEAST_NATS
    if not bool(left.any()):
        return reference.log_softmax(dim=-1), torch.zeros_like(allowance_nats)
    check_logits(policy, where=left)
    # The projection normalises its rows, and leaves a what b may say.
    found = geometric_projection(
        policy, reference, SAFETY * allowance_nats.where(left, 0.0), unchecked=True
    )
    return found.log_x, found.kl_nats
