"""What becomes of missing mass, row by row, against probabilities written out."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from llm_experiment.base.helped import HelpedBase
from llm_experiment.base.protocol import BaseStep, step_from_semi_distribution
from llm_experiment.chat.lockstep import without_gaps
from theory.errors import InvalidArgumentError
from theory.missing_mass import Help

SEMI = ((0.5, 0.2, 0.0), (0.0, 0.0, 0.0), (0.3, 0.3, 0.4), (0.96, 0.0, 0.0))
MISSING = (0.3, 1.0, 0.0, 0.04)
LAW = ((0.0, 0.25, 0.75), (0.1, 0.2, 0.7), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
FIRST_WORDS = (0.0, 0.0, 1.0)
OPENING = torch.tensor([2])


@dataclass
class Rows:
    """A base policy that says the same rows at every step, and at OPENING's end other ones."""

    step: BaseStep
    first: BaseStep | None = None
    n_tokens: int = 3
    n_features: int = 1
    device = torch.device("cpu")
    head = None

    def begin(self, prompt_tokens, *, n_episodes, n_positions):
        assert len(prompt_tokens) < n_positions
        opening = self.first is not None and n_episodes == 1
        return self, self.first if opening else self.step

    def append(self, tokens, *, agent_wrote=None):
        return self.step


def semi(rows):
    return step_from_semi_distribution(
        torch.tensor(rows, dtype=torch.float64).log(), torch.zeros(len(rows), 1)
    )


def demonstrator(law=LAW):
    return Rows(semi(law), first=semi((FIRST_WORDS,)))


def steps(way, **more):
    """What a helped base policy says at the start, and after a token."""
    helped = HelpedBase(Rows(semi(SEMI)), way, **more)
    session, step = helped.begin(torch.tensor([0]), n_episodes=4, n_positions=5)
    return step, session.append(torch.zeros(4, dtype=torch.int64))


def asked(way, **more):
    return steps(way, demonstrator=demonstrator(), opening=OPENING, **more)


def close(actual, expected):
    torch.testing.assert_close(
        actual.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-7
    )


def test_the_demonstrator_fills_what_is_missing_and_then_nothing_is():
    for step in asked(Help.DEMONSTRATOR):
        filled = np.array(SEMI) + np.array(MISSING)[:, None] * np.array(LAW)
        close(step.log_probs.exp(), filled)
        close(step.missing_mass, (0.0,) * 4)
        close(step.help_mass, MISSING)
        assert torch.equal(torch.isneginf(step.log_probs), torch.tensor(filled == 0))


def test_who_asks_or_stops_is_told_what_is_missing_and_nothing_is_filled():
    for way, answers in ((Help.ASK, asked(Help.ASK)), (Help.STOP, asked(Help.STOP))):
        for step in answers:
            close(step.missing_mass, MISSING)
            close(step.help_mass, (0.0,) * 4)
            close(step.log_probs.exp()[0], (5 / 7, 2 / 7, 0.0))
            assert (step.demonstrator_log_probs is None) == (way is Help.STOP)


def test_only_rows_that_miss_little_are_renormalised():
    for step in asked(Help.RENORMALISE):
        close(step.missing_mass, (0.3, 1.0, 0.0, 0.0))
        close(step.help_mass, (0.0, 0.0, 0.0, 0.04))
        close(step.log_probs.exp()[3], (1.0, 0.0, 0.0))
    for step in asked(Help.RENORMALISE, limit=0.0):
        close(step.missing_mass, MISSING)


def test_a_demonstrator_that_has_nothing_to_say_says_its_first_words():
    silent = demonstrator((*LAW[:1], (0.0, 0.0, 0.0), *LAW[2:]))
    for step in steps(Help.DEMONSTRATOR, demonstrator=silent, opening=OPENING):
        close(step.log_probs.exp()[1], FIRST_WORDS)
        close(step.log_probs.exp()[0], (0.5, 0.2 + 0.3 * 0.25, 0.3 * 0.75))


def test_a_speaker_who_pays_for_nothing_plays_what_is_left_and_the_demonstrator_s_part():
    for step in asked(Help.ASK):
        close(without_gaps(step).exp(), np.array(SEMI) + np.array(MISSING)[:, None] * np.array(LAW))
    for step in asked(Help.STOP):
        assert torch.equal(without_gaps(step), step.log_probs)


@pytest.mark.parametrize("way", [Help.ASK, Help.DEMONSTRATOR])
def test_asking_needs_somebody_who_can_be_asked(way):
    with pytest.raises(InvalidArgumentError, match=r"needs a demonstrator .* choose help stop"):
        steps(way)
    other = replace(demonstrator(), n_tokens=4)
    with pytest.raises(InvalidArgumentError, match="4 tokens and the base policy 3"):
        steps(way, demonstrator=other, opening=OPENING)
    with pytest.raises(InvalidArgumentError, match="opening must be given"):
        steps(way, demonstrator=demonstrator())
