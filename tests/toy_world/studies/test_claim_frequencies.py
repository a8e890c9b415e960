"""Random problems never violate what is proved, and some violate the rest."""

import numpy as np
import pytest

from toy_world.planners.problem import Reading
from toy_world.studies.claim_frequencies import SHAPES, Frequency, claim_frequencies
from toy_world.studies.theorem2 import HOLDS, READINGS, Claim


@pytest.fixture(scope="module")
def sampled():
    return claim_frequencies(n_problems=2, rng=np.random.default_rng(0))


def test_no_random_problem_violates_what_is_proved(sampled):
    assert len(sampled) == len(SHAPES) * len(READINGS) * len(Claim)
    assert all(f.violated == 0 for f in sampled if f.reading in HOLDS[f.claim])
    assert any(f.violated for f in sampled)


def test_the_same_seed_gives_the_same_numbers(sampled):
    assert claim_frequencies(n_problems=2, rng=np.random.default_rng(0)) == sampled


def test_intervals_hold_the_share_and_are_never_a_point():
    for violated in (0, 3, 10):
        frequency = Frequency(
            shape=(2, 2, 2),
            reading=Reading.FIXED,
            claim=Claim.MASS,
            violated=violated,
            problems=10,
        )
        ends = frequency.interval
        assert ends.low <= violated / 10 <= ends.high
        assert ends.high - ends.low > 0.2
