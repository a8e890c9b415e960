"""Hypothesis strategies for languages, programs and histories."""

import numpy as np
from hypothesis import strategies as st

from toy_world.programs.codes import BitReader, Choice
from toy_world.programs.language import Language

languages = st.builds(
    Language,
    n_actions=st.integers(1, 5),
    n_observations=st.integers(1, 5),
)


TAPE = "".join(map(str, np.random.default_rng(1).integers(0, 2, 5000)))
"""Coin tosses that follow a chosen beginning, so that every program ends."""


def programs(code: Choice):
    """Programs of any shape: a drawn beginning, then coin tosses."""
    return st.text("01", max_size=40).map(lambda bits: code.decode(BitReader(bits + TAPE)))


@st.composite
def histories(draw, *, n_actions, n_observations, max_steps=8):
    """Histories that end in an observation."""
    step = st.tuples(st.integers(0, n_actions - 1), st.integers(0, n_observations - 1))
    steps = draw(st.lists(step, max_size=max_steps))
    return tuple(symbol for pair in steps for symbol in pair)
