"""Dialogues that are written down, and base policies that play them or make up their own."""

import re

import numpy as np
import torch
from torch import Tensor

from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.protocol import BaseStep, check_start
from llm_experiment.base.training import new_language_model, transcript_tokenizer
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task

PROCESS = DialogueProcess(load_task("classroom"))
TOKENIZER = transcript_tokenizer(PROCESS)
N_TOKENS = len(PROCESS.vocabulary)
PROMPT = "Student: Hello?\nTeacher:"
SCREENPLAYS = (
    # A reply, an empty turn answered by an empty turn, and a reply that the end cuts short.
    " Yes?\nStudent: No.\nTeacher:\nStudent:\nTeacher: So\nStudent: Maybe.",
    # Names inside lines, typed by either; an opening of the own name; the end is in a name.
    " SoStudent: Yes.\nStudent: SoTeacher: So\nStudent: Okay.\nTeacher: Now\nTeacher: Okay",
    # The agent never hands over the turn.
    " So so so so so so so so so so so so so so so so so so so so so so so so",
)


def tokens_of(text: str) -> Tensor:
    """Names are tokens of their own, wherever they stand."""
    parts = re.split("(Teacher|Student)", text)
    return torch.from_numpy(np.concatenate([PROCESS.encode(part) for part in parts if part]))


def parser(**rules) -> TurnParser:
    return TurnParser.from_tokenizer(TOKENIZER, TurnRules(**rules), n_tokens=N_TOKENS)


def screenplay() -> Tensor:
    """Full transcripts, cut to one length, shape (3, tokens)."""
    rows = [tokens_of(PROMPT + text) for text in SCREENPLAYS]
    length = min(map(len, rows))
    return torch.stack([row[:length] for row in rows])


class Playback:
    """A base policy that is certain of every token of given transcripts, (n, tokens)."""

    def __init__(self, transcripts: Tensor) -> None:
        self.transcripts = transcripts
        self.n_tokens = N_TOKENS
        self.n_features = 2
        self.head = None
        self.device = torch.device("cpu")
        self.agent_wrote: list[list[bool]] = []

    def begin(self, prompt_tokens, *, n_episodes, n_positions):
        check_start(
            prompt_tokens, n_episodes=n_episodes, n_positions=n_positions, n_tokens=N_TOKENS
        )
        self.position = len(prompt_tokens)
        return self, self._step()

    def append(self, tokens, *, agent_wrote=None):
        self.agent_wrote.append(agent_wrote.tolist())
        self.position += 1
        return self._step()

    def _step(self) -> BaseStep:
        n, length = self.transcripts.shape
        log_probs = torch.full((n, N_TOKENS), -torch.inf)
        log_probs[torch.arange(n), self.transcripts[:, min(self.position, length - 1)]] = 0.0
        return BaseStep(
            log_probs=log_probs,
            features=torch.full((n, 2), float(self.position)),
            missing_mass=torch.zeros(n),
        )


def untrained_model() -> HuggingFaceBase:
    return HuggingFaceBase(new_language_model(PROCESS, seed=3))
