"""A world small enough for tests: a base policy that is a table, and words as tokens."""

import numpy as np
import torch

from llm_experiment.base.protocol import BaseStep, check_start
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.chat.world import World
from llm_experiment.config import AgentConfig, ConstraintConfig, PPOConfig, Stage, WorldConfig

PIECES = ("\n", "T", "S", ":", " yes", " no", " please")
NEWLINE, T, S, COLON, YES, NO, PLEASE = range(len(PIECES))
RULES = TurnRules(agent="T", partner="S", max_reply_tokens=6)
PROMPT = "S: no\nT:"


def encode(text, pieces=PIECES):
    """Longest match first."""
    ids = []
    while text:
        piece = max((p for p in pieces if text.startswith(p)), key=len)
        ids.append(pieces.index(piece))
        text = text[len(piece) :]
    return ids


class TableBase:
    """Log-probabilities of the next token given the last `order` ones; features are one-hot.

    Args:
        table: log-probabilities, shape (n_tokens,) * (order + 1).
    """

    def __init__(self, table):
        self.table = torch.as_tensor(table, dtype=torch.float32)
        self.n_tokens = self.table.shape[-1]
        self.order = self.table.ndim - 1
        self.n_features = self.order * self.n_tokens
        self.device = torch.device("cpu")
        self.head = None

    def begin(self, prompt_tokens, *, n_episodes, n_positions):
        check_start(
            prompt_tokens,
            n_episodes=n_episodes,
            n_positions=n_positions,
            n_tokens=self.n_tokens,
        )
        padded = torch.cat([prompt_tokens.new_zeros(self.order), prompt_tokens])[-self.order :]
        session = TableSession(self, padded.repeat(n_episodes, 1))
        return session, session.step()


class TableSession:
    def __init__(self, base, context):
        self.base = base
        self.context = context

    def step(self):
        one_hot = torch.nn.functional.one_hot(self.context, self.base.n_tokens)
        return BaseStep(
            log_probs=self.base.table[tuple(self.context.T)],
            features=one_hot.flatten(1).float(),
            missing_mass=torch.zeros(len(self.context)),
        )

    def append(self, tokens, *, agent_wrote=None):
        self.context = torch.cat([self.context[:, 1:], tokens[:, None]], dim=1)
        return self.step()


def dialogue_table():
    """A law of turns such as `T: no please\\nS: yes\\nT: no\\nS: no`, order 2.

    A turn is a few words; the first token of the student's answer is never known from the
    speaker alone, and a turn that ends in `please` is mostly answered by `yes`. No turn has a
    speaker's name or a colon in it: these have probability 0.
    """
    table = np.full((len(PIECES),) * 3, -np.inf)
    words = {YES: 0.1, NO: 0.6, PLEASE: 0.05, NEWLINE: 0.25}
    for a, b in np.ndindex(table.shape[:2]):
        if b == NEWLINE:
            law = {T: 0.5, S: 0.5}
        elif b in (T, S):
            law = {COLON: 1.0}
        elif a == S and b == COLON:
            law = {YES: 0.5, NO: 0.4, NEWLINE: 0.1}
        else:
            law = words
        table[a, b, list(law)] = np.log(list(law.values()))
    return table


def score(replies):
    """The share of `yes` among the words of a reply; 1/2 without words."""
    words = [reply.split() for reply in replies]
    return np.array([w.count("yes") / len(w) if w else 0.5 for w in words])


def small_world(table=None, *, pieces=PIECES, prompt=PROMPT, rules=RULES, **changes):
    """A `World` on a table."""
    base = TableBase(dialogue_table() if table is None else table)

    def decode(ids):
        return "".join(pieces[i] for i in ids)

    parser = TurnParser(rules, pieces=pieces, encode=lambda t: encode(t, pieces), decode=decode)
    prompt_tokens = torch.tensor(encode(prompt, pieces))
    return World(base=base, parser=parser, prompt_tokens=prompt_tokens, score=score, **changes)


def small_config(*, stages=None, ppo=None, **changes):
    """A configuration that trains in the small world in a second."""
    settings = {
        "world": WorldConfig(),
        "constraint": ConstraintConfig(budget_nats=3.0),
        "ppo": PPOConfig(
            actor_learning_rate=0.02, critic_learning_rate=0.02, n_epochs=2, **(ppo or {})
        ),
        "stages": stages or (Stage(agent_steps=300, n_tokens=24),),
        "n_episodes": 8,
    }
    return AgentConfig(**(settings | changes))
