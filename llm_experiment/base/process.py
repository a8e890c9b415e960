"""The demonstrator itself, exactly, in the place of a language model: a process with known law.

With it as base policy (`--base-model process`) the KL to the base policy is the KL to the
demonstrator. What an agent then does within a budget is not owed to errors of imitation: it never
does what the demonstrator would never do.
"""

import numpy as np
import torch
from torch import Tensor

from llm_experiment.base.protocol import BaseStep, check_start, step_from_semi_distribution
from llm_experiment.dialogue.process import DialogueProcess, FilterState
from theory.errors import InvalidArgumentError


class ProcessBase:
    """A dialogue process as base policy.

    The features are the predicted probabilities, the posterior of the other speaker's style at
    the start of the turn, and whether each speaker's last turn was empty. A transcript that the
    process could not have written predicts nothing: uniform, with all of the mass missing.

    Args:
        process: what the demonstrator does.
    """

    def __init__(self, process: DialogueProcess) -> None:
        self._process = process

    @property
    def n_tokens(self) -> int:
        """Size of the process's vocabulary."""
        return len(self._process.vocabulary)

    @property
    def n_features(self) -> int:
        """Tokens, styles and two speakers."""
        return self.n_tokens + len(self._process.task.styles) + 2

    @property
    def device(self) -> torch.device:
        """The processor: the filter is NumPy's."""
        return torch.device("cpu")

    @property
    def head(self) -> None:
        """None: a small vocabulary is carried in observations."""

    def begin(
        self, prompt_tokens: Tensor, *, n_episodes: int, n_positions: int
    ) -> tuple["ProcessSession", BaseStep]:
        """Start episodes that share a prompt; see `BaseModel.begin`."""
        check_start(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions, n_tokens=self.n_tokens
        )
        state = self._process.read(np.tile(prompt_tokens.numpy(), (n_episodes, 1)))
        session = ProcessSession(self._process, state)
        return session, session.prediction()


class ProcessSession:
    """Episodes under the exact process."""

    def __init__(self, process: DialogueProcess, state: FilterState) -> None:
        self._process = process
        self._state = state

    def append(self, tokens: Tensor, *, agent_wrote: Tensor | None = None) -> BaseStep:
        """The prediction after one more token of every episode; see `Session.append`."""
        del agent_wrote  # the process is what it is
        self._state = self._process.append(self._state, tokens.numpy())
        return self.prediction()

    def prediction(self) -> BaseStep:
        """What the process says next."""
        log_probs = torch.from_numpy(self._process.log_probs(self._state))
        other_style = torch.from_numpy(self._state.turn.sum(axis=1))
        silent = torch.from_numpy(self._state.silent)
        features = torch.cat([log_probs.exp(), other_style, silent], dim=-1)
        return step_from_semi_distribution(log_probs, features)


def check_possible(process: DialogueProcess, prompt_tokens: Tensor) -> None:
    """Raise unless a process could have written a prompt; otherwise it predicts nothing after it.

    Args:
        process: of the prompt's vocabulary.
        prompt_tokens: int64, shape (p,).

    Raises:
        InvalidArgumentError: it could not.
    """
    if not process.read(prompt_tokens.numpy()[None]).possible[0]:
        raise InvalidArgumentError(
            f"the process of task {process.task.name!r} never writes this prompt, so that it has "
            "nothing to say after it; use the task's own prompt, or base_model tiny"
        )
