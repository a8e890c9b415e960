"""A base policy that misses mass, and what becomes of it: the ways of `theory.missing_mass.Help`.

- `ASK`: nothing is filled. Steps carry the demonstrator's law, for those who must ask.
- `DEMONSTRATOR`: the demonstrator's law fills what is missing, `nu + theta mu`.
- `STOP`: nothing is filled, and there is nobody to ask: who cannot pay ends the episode.
- `RENORMALISE`: rows that miss no more than a limit are taken as they are, normalised. In other
  rows nothing is filled: they are asked for, or stop where there is nobody to ask.

The demonstrator is a base policy too, such as the exact process (`llm_experiment.base.process`).
A transcript that it could never have met, because the imitator wrote some of it, leaves an exact
process nothing to say. Then it says what it would say first if it had just been given the turn.
"""

import torch
from torch import Tensor

from llm_experiment.base.protocol import (
    BaseModel,
    BaseStep,
    ChangedBase,
    Session,
    filled_log_probs,
)
from theory.arguments import as_member, check_probability
from theory.errors import InvalidArgumentError
from theory.missing_mass import RENORMALISE_LIMIT, Help


class HelpedBase(ChangedBase):
    """A base policy with somebody to fill, or to answer for, what it misses.

    Args:
        base: what misses mass.
        way: what becomes of it.
        demonstrator: whom to ask; needed by `ASK` and `DEMONSTRATOR`, and used by `RENORMALISE`.
        opening: a transcript at whose end the demonstrator has just been given the turn, ids,
            int64, shape (p,), p >= 1; needed with a demonstrator.
        limit: the most that may be missing from a row that is renormalised.

    Raises:
        InvalidArgumentError: nobody to ask where somebody is needed, or a demonstrator of another
            vocabulary.
    """

    def __init__(
        self,
        base: BaseModel,
        way: Help,
        *,
        demonstrator: BaseModel | None = None,
        opening: Tensor | None = None,
        limit: float = RENORMALISE_LIMIT,
    ) -> None:
        super().__init__(base)
        self._way = as_member(Help, way, name="way")
        check_probability(limit=limit)
        if self._way is Help.STOP:
            demonstrator = None
        if demonstrator is None and self._way in (Help.ASK, Help.DEMONSTRATOR):
            raise InvalidArgumentError(
                f"help {self._way.value} needs a demonstrator who can be asked; choose help stop "
                "or renormalise where there is none"
            )
        if demonstrator is not None and demonstrator.n_tokens != base.n_tokens:
            raise InvalidArgumentError(
                f"the demonstrator has {demonstrator.n_tokens} tokens and the base policy "
                f"{base.n_tokens}; they must share a vocabulary"
            )
        self._demonstrator = demonstrator
        self._limit = limit
        self._first_words: Tensor | None = None
        if demonstrator is not None:
            if opening is None:
                raise InvalidArgumentError("opening must be given with a demonstrator")
            _, step = demonstrator.begin(opening, n_episodes=1, n_positions=len(opening) + 1)
            self._first_words = step.log_probs

    @property
    def demonstrator_device(self) -> torch.device:
        """Where the demonstrator is; the base policy's own place if there is none."""
        return self.device if self._demonstrator is None else self._demonstrator.device

    def begin(
        self, prompt_tokens: Tensor, *, n_episodes: int, n_positions: int
    ) -> tuple["HelpedSession", BaseStep]:
        """Start episodes that share a prompt; see `BaseModel.begin`."""
        start = {"n_episodes": n_episodes, "n_positions": n_positions}
        session, step = self._base.begin(prompt_tokens, **start)
        asked, answer = None, None
        if self._demonstrator is not None:
            asked, answer = self._demonstrator.begin(
                prompt_tokens.to(self._demonstrator.device), **start
            )
        return HelpedSession(self, session, asked), self.help(step, answer)

    def help(self, step: BaseStep, answer: BaseStep | None) -> BaseStep:
        """The step with what it misses filled, or with whom to ask.

        Args:
            step: of the base policy.
            answer: of the demonstrator, None if there is none.
        """
        law = None if answer is None else self._law(answer, step.log_probs.device)
        theta = step.missing_mass
        log_probs, missing = step.log_probs, theta
        if self._way is Help.DEMONSTRATOR and law is not None:
            log_probs = filled_log_probs(step, law)
            missing = torch.zeros_like(theta)
        elif self._way is Help.RENORMALISE:
            missing = torch.where(theta <= self._limit, torch.zeros_like(theta), theta)
        return BaseStep(
            log_probs=log_probs,
            features=step.features,
            missing_mass=missing,
            help_mass=theta - missing,
            demonstrator_log_probs=law,
        )

    def _law(self, answer: BaseStep, device: torch.device) -> Tensor:
        """What the demonstrator does next, (n, n_tokens)."""
        if self._first_words is None:
            raise InvalidArgumentError("there is nobody to ask")
        silent = answer.missing_mass >= 1
        law = torch.where(silent[:, None], self._first_words, answer.log_probs)
        return law.to(device)


class HelpedSession:
    """Episodes under a base policy that is helped."""

    def __init__(self, helped: HelpedBase, session: Session, asked: Session | None) -> None:
        self._helped = helped
        self._session = session
        self._asked = asked

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode; see `Session.append`."""
        step = self._session.append(tokens, agent_wrote=agent_wrote)
        answer = None
        if self._asked is not None:
            answer = self._asked.append(
                tokens.to(self._helped.demonstrator_device), agent_wrote=agent_wrote
            )
        return self._helped.help(step, answer)
