"""Vetoes in `generate` of transformers: a logits processor.

    model = AutoModelForCausalLM.from_pretrained(name)
    parser = TurnParser.from_tokenizer(tokenizer, rules, n_tokens=model.config.vocab_size)
    processor = VetoLogitsProcessor(read_veto_set(path), parser, pad_token=..., stop_token=...)
    model.generate(**prompts, do_sample=True, logits_processor=[processor])
    processor.help

Prompts are transcripts that leave the turn to the agent. In its turn, what is vetoed gets the
logit -inf; if the model goes on to write its partner's turn, that is left alone. What is missing,
theta, is a call for help. Where it is at most a limit, the rest is divided by its mass, as any
sampler does; where it is more, the text ends there with a token of the caller's choice. A text that
was ended so (`HelpCount.stopped`) is no turn of the agent: somebody else has to go on. With no such
token, an error says so.

Sampling and greedy search read on from where they were. Beam search exchanges texts between rows;
it is refused, because a text that was ended for help is no candidate to be compared with others.
"""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from llm_experiment.chat.features import FeatureState
from llm_experiment.chat.turns import TurnParser
from llm_experiment.chat.veto_set import VetoSet
from theory.arguments import check_probability
from theory.errors import InvalidArgumentError, InvalidDistributionError
from theory.missing_mass import RENORMALISE_LIMIT


@dataclass(frozen=True, kw_only=True)
class HelpCount:
    """How often each of n texts called for help.

    Attributes:
        steps: tokens that the agent was to write, int64, shape (n,).
        missing: the sum over them of the mass that was missing, float64, shape (n,).
        most: the largest of these masses, float64, shape (n,).
        stopped: which texts were ended because too much was missing, bool, shape (n,).
    """

    steps: Tensor
    missing: Tensor
    most: Tensor
    stopped: Tensor

    @property
    def help_per_step(self) -> float:
        """The mean mass that was missing; 0 without a step."""
        steps = int(self.steps.sum())
        return float(self.missing.sum()) / steps if steps else 0.0


class VetoLogitsProcessor(LogitsProcessor):
    """Vetoes for one call of `generate`.

    Args:
        vetoes: what is vetoed.
        parser: of the model's tokenizer; is moved to the device of the first scores.
        pad_token: stands before shorter prompts of a batch; None if prompts are not padded.
        stop_token: ends a text where too much is missing, such as the end of text; None raises an
            error there.
        limit: the most that may be missing where the rest is divided by its mass; with 1, the text
            ends only where nothing is left.

    Raises:
        ModelError: vetoes that were made for another tokenizer or other names.
        InvalidArgumentError: a limit outside [0, 1], or a stop token outside the vocabulary.
    """

    def __init__(
        self,
        vetoes: VetoSet,
        parser: TurnParser,
        *,
        pad_token: int | None,
        stop_token: int | None,
        limit: float = RENORMALISE_LIMIT,
    ) -> None:
        check_probability(limit=limit)
        if stop_token is not None and not 0 <= stop_token < parser.n_tokens:
            raise InvalidArgumentError(
                f"stop_token must lie in 0..{parser.n_tokens - 1}, got {stop_token}"
            )
        self._compiled = vetoes.compile(parser)
        self._vetoes = vetoes
        self._parser = parser
        self._pad_token = pad_token
        self._stop_token = stop_token
        self._limit = limit
        self._state: FeatureState | None = None
        self._read: Tensor | None = None
        self._started: Tensor | None = None
        self._help: HelpCount | None = None

    @property
    def help(self) -> HelpCount:
        """How often the texts called for help.

        Raises:
            InvalidArgumentError: nothing was generated yet.
        """
        if self._help is None:
            raise InvalidArgumentError("there is no help to count before generate was called")
        return self._help

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The logits of the next token without what is vetoed; see `LogitsProcessor`.

        Args:
            input_ids: the texts so far, int64, shape (n, t).
            scores: logits or log-probabilities of the next token, shape (n, n_tokens).

        Raises:
            InvalidArgumentError: a first call with a prompt that does not leave the turn to the
                agent; texts that do not go on from those of the last call; logits of another
                vocabulary.
            InvalidDistributionError: more is missing than the limit and there is no stop token.
        """
        if scores.shape[-1] != self._parser.n_tokens:
            raise InvalidArgumentError(
                f"the parser knows {self._parser.n_tokens} tokens and the model gives logits of "
                f"{scores.shape[-1]}; make the parser with the model's size of vocabulary"
            )
        state = self._go_on(input_ids)
        log_b = scores.double().log_softmax(dim=-1)
        log_factors = self._compiled.log_factors(state)
        acts = self._compiled.reader.agent_acts(state) & ~self.help.stopped
        log_factors = torch.where(acts[:, None], log_factors, 0.0)
        theta = (log_b.exp() * (1 - log_factors.double().exp())).sum(dim=-1).clamp(0.0, 1.0)
        nothing_left = torch.isneginf(log_b + log_factors).all(dim=-1)
        stop = acts & ((theta > self._limit) | nothing_left)
        if self._stop_token is None and bool(stop.any()):
            raise InvalidDistributionError(
                f"a law that misses {float(theta.max()):.3g} of its mass cannot stand for what is "
                f"left of it (limit {self._limit:g}); name a stop_token, and let the demonstrator "
                "go on there"
            )
        self._count(acts, theta, stop)
        vetoed = scores + log_factors.to(scores.dtype)
        return self._ended(vetoed, stop)

    def _ended(self, scores: Tensor, stop: Tensor) -> Tensor:
        """Logits under which the texts that stop can only end."""
        if self._stop_token is None:
            return scores
        only = torch.full_like(scores, -torch.inf)
        only[:, self._stop_token] = 0.0
        return torch.where(stop[:, None], only, scores)

    def _count(self, acts: Tensor, theta: Tensor, stop: Tensor) -> None:
        missing = torch.where(acts, theta, 0.0)
        self._help = HelpCount(
            steps=self.help.steps + acts,
            missing=self.help.missing + missing,
            most=torch.maximum(self.help.most, missing),
            stopped=self.help.stopped | stop,
        )

    def _go_on(self, input_ids: Tensor) -> FeatureState:
        """Read what is new in the texts."""
        reader = self._compiled.reader
        if self._state is None or self._read is None or self._started is None:
            self._parser.to(input_ids.device)
            self._compiled = self._vetoes.compile(self._parser, input_ids.device)
            reader = self._compiled.reader
            self._read = input_ids[:, :0]
            self._state = reader.begin(len(input_ids))
            self._started = torch.zeros_like(input_ids[:, 0], dtype=torch.bool)
            first = True
        else:
            first = False
        known = self._read.shape[1]
        if not torch.equal(input_ids[:, :known], self._read) or input_ids.shape[1] == known:
            raise InvalidArgumentError(
                "texts must go on from those of the last call: use one VetoLogitsProcessor for one "
                "call of generate, and no beams, which exchange texts between rows"
            )
        for tokens in input_ids[:, known:].T:
            if self._pad_token is not None:
                self._started = self._started | (tokens != self._pad_token)
            else:
                self._started = torch.ones_like(self._started)
            self._state = _keep(~self._started, self._state, reader.advance(self._state, tokens))
        self._read = input_ids.clone()
        if first:
            self._check_turn(reader.agent_acts(self._state))
            zeros = torch.zeros(len(input_ids), dtype=torch.float64, device=input_ids.device)
            self._help = HelpCount(
                steps=zeros.long(), missing=zeros, most=zeros, stopped=zeros.bool()
            )
        return self._state

    def _check_turn(self, acts: Tensor) -> None:
        if not bool(acts.all()):
            row = int((~acts).nonzero()[0])
            raise InvalidArgumentError(
                f"prompt {row} must leave the turn to the agent; end it with "
                f"'{self._parser.rules.agent}:'"
            )


def _keep(frozen: Tensor, old: Any, new: Any) -> Any:
    """`old` in the rows that are frozen, `new` in the others; tensors or dataclasses of them."""
    if isinstance(new, Tensor):
        return torch.where(frozen.reshape(-1, *[1] * (new.ndim - 1)), old, new)
    if is_dataclass(new) and not isinstance(new, type):
        parts = {
            f.name: _keep(frozen, getattr(old, f.name), getattr(new, f.name)) for f in fields(new)
        }
        return replace(new, **parts)
    return new
