import math

import numpy as np
import pytest

from llm_experiment.chat.features import FeatureReader
from llm_experiment.pessimism.context_prices import prices_by_context
from llm_experiment.pessimism.demonstrations import Demonstration
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    T,
    TableBase,
    dialogue_table,
    encode,
    small_world,
)

TEXTS = ("S: no\nT: yes\nS:\nT: no\nS: no\nT: yes no\nS", "T: no\nS:\nT: yes\nS:\nT: no")


def prices(table=None, texts=TEXTS):
    world = small_world(table)
    dialogues = [Demonstration(tokens=np.array(encode(text))) for text in texts]
    return prices_by_context(world.base, FeatureReader(world.parser), dialogues, batch=1)


def test_silence_is_priced_at_every_turn_that_the_demonstrator_opens():
    found = prices()
    # Where T: opens a dialogue, the base model has no law of the first token alone.
    assert (found.after_words.n_turns, found.after_empty.n_turns) == (3, 3)
    assert found.everywhere.n_turns == 6
    price = -math.log(0.25)  # whatever was replied to, in this table
    assert found.everywhere.percentiles_nats == pytest.approx([price] * 4, abs=1e-6)
    assert found.everywhere.expected == pytest.approx(6 / 4, abs=1e-6)


def test_where_silence_is_impossible_it_costs_everything():
    table = dialogue_table()
    table[T, COLON, NEWLINE] = -np.inf
    table[T, COLON] -= np.log(np.exp(table[T, COLON]).sum())
    found = prices(table)
    assert found.everywhere.percentiles_nats == (math.inf,) * 4
    assert found.everywhere.expected == 0.0


def test_without_a_turn_there_is_no_price():
    found = prices(texts=("S: no\nT: no",))
    assert found.after_empty.percentiles_nats == ()
    assert isinstance(small_world().base, TableBase)
