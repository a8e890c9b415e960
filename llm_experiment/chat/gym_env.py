"""One episode of the chat behind Gymnasium's interface; a step is a step of the agent.

It plays `LockstepChat` with one episode, so that tools which know Gymnasium (checkers, stable-
baselines3's `predict` and `evaluate_policy`) meet the very game that agents are trained in.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from llm_experiment.base.protocol import BaseModel
from llm_experiment.chat.lockstep import LockstepChat, check_chat
from llm_experiment.chat.observation import LARGEST, N_SCALARS, pack_observation
from llm_experiment.chat.turns import TurnParser
from theory.budget import Accounting, BudgetLedger, open_ledger
from theory.errors import InvalidArgumentError


class ChatEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One episode of the chat; a step is one token of the agent and all of its partner's answer.

    The observation is a row of `pack_observation`, its infinities (the log-probability of what is
    impossible, a budget without limit) as the largest numbers of float32, since a `Box` is to be
    finite; the action is a token. The environment cannot
    know what a step costs the budget, since only the agent knows the distribution that it drew
    from: the agent calls `charge` before `step`. A step that nobody charged costs nothing.

    Args:
        base: the base policy, which is also the partner.
        parser: of the base policy's tokenizer.
        prompt_tokens: the starting transcript, int64, shape (p,).
        n_positions: tokens of an episode, the prompt included.
        partner_temperature: at which the partner's tokens are sampled.
        score: the rewards of replies, from their texts to shape (replies,).
        budget_nats: the KL budget of an episode; infinite for none.
        accounting: what a step costs it.

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
    ) -> None:
        check_chat(base, parser, prompt_tokens, n_episodes=1, n_positions=n_positions)
        self._base = base
        self._score = score
        self._new_ledger = partial(
            open_ledger, torch.tensor([budget_nats], dtype=torch.float64), accounting=accounting
        )
        self._ledger = self._new_ledger()
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

    def charge(self, *, kl_nats: float, log_ratio_nats: float | None = None) -> None:
        """Charge the step that comes next to the budget; see `BudgetLedger.charge`.

        Args:
            kl_nats: KL of the distribution that the action is drawn from to the base policy's.
            log_ratio_nats: log-ratio of the action, which realised accounting needs.
        """
        self._ledger = self._ledger.charge(
            kl_nats=self._nats(kl_nats),
            log_ratio_nats=None if log_ratio_nats is None else self._nats(log_ratio_nats),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """A new episode; the same seed gives the same partner."""
        super().reset(seed=seed, options=options)
        generator = torch.Generator(self._base.device)
        generator.manual_seed(int(self.np_random.integers(2**63 - 1)))
        self._chat = self._new_chat(generator=generator)
        self._ledger = self._new_ledger()
        return self._observation(), {}

    def step(
        self, action: np.int64
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Write a token, and let the partner answer if that hands it the turn.

        Returns:
            Observation, reward, whether the transcript is complete, False, and under `replies`
            in the info the texts of the replies that ended.
        """
        chat = self.chat
        token = torch.full((1,), int(action), device=self._base.device)
        replies = chat.advance(token)
        while not (chat.done or bool(chat.agent_acts)):
            replies += chat.advance(token)
        texts = [reply.text for reply in replies]
        reward = float(self._score(texts).sum()) if texts else 0.0
        return self._observation(), reward, chat.done, False, {"replies": texts}

    def _observation(self) -> NDArray[np.float32]:
        packed = pack_observation(
            self.chat.base_step,
            fraction_left=self.chat.fraction_left,
            budget_nats=self._ledger.remaining_nats,
            head=self._base.head,
        )
        return packed[0].clamp(-LARGEST, LARGEST).cpu().numpy()

    @staticmethod
    def _nats(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)
