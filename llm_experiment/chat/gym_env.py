"""One episode of the chat behind Gymnasium's interface; a step is a step of the agent.

It plays `LockstepChat` with one episode, so that tools which know Gymnasium (checkers, stable-
baselines3's `predict` and `evaluate_policy`) meet the very game that agents are trained in.

The budget holds there too. The environment sees tokens, and what a step costs is a property of
the distribution that the token was drawn from. So it is *bound* to the agent who acts
(`ChatEnv.bind`) and asks it, at every step, for its distribution at the observation that it was
given; or whoever acts says what the next step costs (`ChatEnv.charge`). Under a finite budget a
step that neither way was charged for is refused. Where the base policy misses mass, what acting
costs is charged too, and steps that the budget does not pay for are the demonstrator's: the agent
sees the next one that it can pay for.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.base.protocol import BaseModel
from llm_experiment.chat.lockstep import LockstepChat, Reply, check_chat
from llm_experiment.chat.observation import LARGEST, N_SCALARS, pack_observation
from llm_experiment.chat.turns import TurnParser
from theory.budget import Accounting, BudgetLedger, open_ledger
from theory.divergences import kl_nats as divergence_nats
from theory.errors import InvalidArgumentError, InvalidBudgetError
from theory.missing_mass import acting_cost_nats, may_act

KL_TOLERANCE_NATS: Final = 1e-3
"""How far the KL that an agent reports may be from the one to this environment's base policy: far
more than the rounding of a head in float32 on another device, far less than a wrong base policy."""


class ActedStep(Protocol):
    """The distribution of a step, such as a `StepPolicy`."""

    @property
    def log_probs(self) -> Tensor:
        """`log x`, in nats, shape (1, n_tokens)."""
        ...

    @property
    def kl_nats(self) -> Tensor:
        """`KL(x||b)`, shape (1,)."""
        ...

    def log_ratio_nats(self, tokens: Tensor, /) -> Tensor:
        """`log x - log b` of `tokens`, both of shape (1,)."""
        ...


class Agent(Protocol):
    """Who acts: a function of the observation, such as a `FixedKLPolicy` or `CategoricalAgent`."""

    @property
    def device(self) -> torch.device:
        """Where observations are expected."""
        ...

    def act_on(self, observation: Tensor, /) -> ActedStep:
        """The distribution of the next token at one observation, shape (1, width)."""
        ...


class ChatEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One episode of the chat; a step is one token of the agent and all of its partner's answer.

    The observation is a row of `pack_observation`, its infinities (the log-probability of what is
    impossible, a budget without limit) as the largest numbers of float32, since a `Box` is to be
    finite; the action is a token. Under a finite budget the environment must be bound to the agent
    who acts, or `charge` be called before every `step`. A wrapper that changes observations
    changes the agent: bind one that makes the same change.

    Args:
        base: the base policy, which is also the partner.
        parser: of the base policy's tokenizer.
        prompt_tokens: the starting transcript, int64, shape (p,).
        n_positions: tokens of an episode, the prompt included.
        partner_temperature: at which the partner's tokens are sampled.
        score: the rewards of replies, from their texts to shape (replies,).
        budget_nats: the KL budget of an episode; infinite for none.
        accounting: what a step costs it.
        world: the `World` that this is an episode of, if any; is only kept.

    Raises:
        InvalidArgumentError, InvalidBudgetError: as `LockstepChat` and `open_ledger` do.
    """

    def __init__(
        self,
        base: BaseModel,
        parser: TurnParser,
        prompt_tokens: Tensor,
        *,
        n_positions: int,
        partner_temperature: float,
        score: Callable[[Sequence[str]], NDArray[np.floating[Any]]],
        budget_nats: float,
        accounting: Accounting = Accounting.EXACT,
        world: Any = None,
    ) -> None:
        self.world = world
        check_chat(base, parser, prompt_tokens, n_episodes=1, n_positions=n_positions)
        self._base = base
        self._score = score
        self._new_ledger = partial(
            open_ledger, torch.tensor([budget_nats], dtype=torch.float64), accounting=accounting
        )
        self._ledger = self._new_ledger()
        self._limited = budget_nats < math.inf
        self._agent: Agent | None = None
        self._charged = False
        self._chat: LockstepChat | None = None
        self._new_chat = partial(
            LockstepChat,
            base,
            parser,
            prompt_tokens,
            n_episodes=1,
            n_positions=n_positions,
            partner_temperature=partner_temperature,
        )
        width = base.n_features + N_SCALARS + (0 if base.head else base.n_tokens)
        low, high = np.full((2, width), [[-LARGEST], [LARGEST]], dtype=np.float32)
        low[base.n_features : base.n_features + N_SCALARS] = 0.0
        high[base.n_features] = 1.0
        high[base.n_features + N_SCALARS :] = 0.0
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Discrete(base.n_tokens)

    @property
    def chat(self) -> LockstepChat:
        """The present episode.

        Raises:
            InvalidArgumentError: there is none yet.
        """
        if self._chat is None:
            raise InvalidArgumentError("no episode has started; call reset() first")
        return self._chat

    @property
    def ledger(self) -> BudgetLedger:
        """The present episode's budget, shape (1,)."""
        return self._ledger

    def __getstate__(self) -> dict[str, Any]:
        """All but the episode that is being played, whose randomness cannot be copied."""
        return self.__dict__ | {"_chat": None}

    def bind(self, agent: Agent) -> None:
        """Charge every step from now on for the distribution that `agent` has at its observation.

        It must be `agent` who acts, by drawing from that distribution. Its likeliest token, say, is
        another policy's, which costs more. An environment in another process holds a copy of the
        agent: bind it anew whenever the agent has learnt.
        """
        self._agent = agent

    def charge(self, *, kl_nats: float, log_ratio_nats: float | None = None) -> None:
        """Charge the step that comes next to the budget; see `BudgetLedger.charge`.

        Args:
            kl_nats: KL of the distribution that the action is drawn from to the base policy's; what
                acting costs where the base policy misses mass is added here.
            log_ratio_nats: log-ratio of the action, which realised accounting needs.

        Raises:
            InvalidArgumentError: the environment is bound to an agent, and charges by itself.
            InvalidBudgetError: the step costs more than remains.
        """
        if self._agent is not None:
            raise InvalidArgumentError(
                "this environment is bound to an agent and charges its steps by itself; do not "
                "call charge(), or make an environment that is not bound"
            )
        extra = self._surcharge_nats
        self._ledger = self._ledger.charge(
            kl_nats=self._nats(kl_nats + extra),
            log_ratio_nats=None if log_ratio_nats is None else self._nats(log_ratio_nats + extra),
        )
        self._charged = True

    def action_masks(self) -> NDArray[np.bool_]:
        """Which tokens the base policy might write next, shape (n_tokens,).

        What it never writes no budget pays for. MaskablePPO of sb3-contrib asks for masks by this
        name; they bound no KL, which is still for `bind` or `charge`.
        """
        possible = torch.isfinite(self.chat.base_step.log_probs[0])
        masks: NDArray[np.bool_] = possible.cpu().numpy()
        return masks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A new episode; the same seed gives the same partner."""
        super().reset(seed=seed, options=options)
        generator = torch.Generator(self._base.device)
        generator.manual_seed(int(self.np_random.integers(2**63 - 1)))
        self._chat = self._new_chat(generator=generator)
        self._ledger = self._new_ledger()
        self._charged = False
        self._play_on()
        self._seen = self._observation()
        return self._seen.copy(), {}

    def step(
        self, action: np.int64
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Write a token, and let the partner answer if that hands it the turn.

        Returns:
            Observation, reward, whether the transcript is complete, False, and under `replies`
            in the info the texts of the replies that ended.

        Raises:
            InvalidBudgetError: nobody was charged for the step though the budget is finite, or it
                costs more than remains.
            InvalidArgumentError: the episode is complete or has not started, or the bound agent
                would never write this token.
        """
        chat = self.chat
        token = torch.full((1,), int(action), device=self._base.device)
        if not chat.done:
            self._settle(token)
        replies = chat.advance(token) + self._play_on()
        texts = [reply.text for reply in replies]
        reward = float(self._score(texts).sum()) if texts else 0.0
        self._seen = self._observation()
        return self._seen.copy(), reward, chat.done, False, {"replies": texts}

    def _play_on(self) -> tuple[Reply, ...]:
        """Let others write until it is the agent's turn and it can pay for acting."""
        chat = self.chat
        replies: tuple[Reply, ...] = ()
        nothing = torch.zeros(1, dtype=torch.int64, device=self._base.device)
        while not (chat.done or (bool(chat.agent_acts) and self._able)):
            replies += chat.advance(nothing, asks=torch.ones_like(nothing, dtype=torch.bool))
        return replies

    @property
    def _able(self) -> bool:
        """Whether the budget pays for acting where the base policy misses mass."""
        return bool(
            may_act(
                self.chat.base_step.missing_mass, self._ledger.remaining_nats.to(self._base.device)
            )
        )

    @property
    def _surcharge_nats(self) -> float:
        """What acting costs at the present step besides the KL to the normalised law."""
        if self._chat is None:  # nothing is known of a step before the first
            return 0.0
        return float(acting_cost_nats(self._chat.base_step.missing_mass))

    def _settle(self, token: Tensor) -> None:
        """Have the step paid for before it is taken."""
        if self._agent is not None:
            self._charge_agent(self._agent, token)
        elif self._limited and not self._charged:
            raise InvalidBudgetError(
                f"under a budget of {float(self._ledger.initial_nats)} nats every step must be "
                "charged, and nobody was for this one; call env.bind(agent) once with the agent "
                "who acts, or env.charge(kl_nats=...) before every step"
            )
        self._charged = False

    def _charge_agent(self, agent: Agent, token: Tensor) -> None:
        """Charge the bound agent's step at the observation that it was given."""
        with torch.no_grad():
            step = agent.act_on(torch.from_numpy(self._seen)[None].to(agent.device))
        log_x = step.log_probs.detach().double().to(self._base.device)
        log_b = self.chat.base_step.log_probs.double().log_softmax(dim=-1)
        if not bool(torch.isfinite(log_x[0, token])):
            raise InvalidArgumentError(
                f"the agent that this environment is bound to never writes token {int(token)} "
                "here; bind the agent who acts"
            )
        kl, expected = float(step.kl_nats), float(divergence_nats(log_x, log_b))
        if not (kl == expected or abs(kl - expected) <= KL_TOLERANCE_NATS):
            raise InvalidArgumentError(
                f"the bound agent's step must report its KL to this environment's base policy, "
                f"{expected:.6g} nats, got {kl:.6g}; bind an agent of this base policy"
            )
        ratio = float(step.log_ratio_nats(token.to(step.log_probs.device)))
        extra = self._surcharge_nats
        self._ledger = self._ledger.charge(
            kl_nats=self._nats(kl + extra), log_ratio_nats=self._nats(ratio + extra)
        )

    def _observation(self) -> NDArray[np.float32]:
        packed = pack_observation(
            self.chat.base_step,
            fraction_left=self.chat.fraction_left,
            budget_nats=self._payable_nats,
            head=self._base.head,
        )
        return packed[0].clamp(-LARGEST, LARGEST).cpu().numpy()

    @property
    def _payable_nats(self) -> Tensor:
        """What the agent may spend beyond the surcharge of the present step, shape (1,)."""
        remaining: Tensor = self._ledger.remaining_nats
        if self.chat.done or not self._able:
            return remaining
        left: Tensor = (remaining - self._surcharge_nats).clamp(min=0.0)
        return left

    @staticmethod
    def _nats(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)
