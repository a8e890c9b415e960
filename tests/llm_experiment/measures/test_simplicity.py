"""Prices of promises, and what they go with, on numbers whose answer is known."""

import math

import numpy as np
import pytest

from llm_experiment.dialogue.tasks.support_desk import PROMISES, Said
from llm_experiment.measures.simplicity import (
    BIT,
    EVERYTHING,
    RANK,
    RARER,
    WORD,
    PromisePrice,
    associations,
    price_promises,
)
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    NO,
    S,
    T,
    dialogue_table,
    small_world,
)
from theory.errors import InvalidArgumentError


def made_up(nats) -> list[PromisePrice]:
    """Promises of given first prices."""
    plain = [PromisePrice(name=promise.name, turn_nats=(0.0,)) for promise in PROMISES]
    return [PromisePrice(name=p.name, turn_nats=(nats(p), 0.1)) for p in plain]


def test_a_law_of_bits_and_words_and_frequency_is_found_again():
    extra = {Said.COMMON: 1.0, Said.RARE: 1.0 + math.log(4), Said.NEVER: 6.0}
    slope = {Said.COMMON: 0.02, Said.RARE: 0.05, Said.NEVER: 0.6}
    found = associations(
        made_up(
            lambda p: (
                extra[p.promise.said] + slope[p.promise.said] * p.bits + 0.3 * p.promise.n_words
            )
        )
    )
    for said in Said:
        own = found[said.name.lower()]
        assert own[BIT] == pytest.approx(slope[said])
        assert own[WORD] == pytest.approx(0.3)
    rare, common = (slope[said] for said in (Said.RARE, Said.COMMON))
    bits = np.mean([p.bits for p in made_up(lambda _: 0.0) if p.promise.said is Said.RARE])
    assert found[EVERYTHING][RARER] == pytest.approx(math.log(4) + (rare - common) * bits)


def test_where_only_frequency_matters_ranks_and_coefficients_say_so():
    nats = {Said.COMMON: 3.0, Said.RARE: 5.0, Said.NEVER: 9.0}
    shape = {p.name.partition("-")[2]: i % 5 for i, p in enumerate(PROMISES)}
    found = associations(
        made_up(lambda p: nats[p.promise.said] + 1e-3 * shape[p.name.partition("-")[2]])
    )
    assert abs(found["rare"][BIT]) < 1e-3
    assert found[EVERYTHING][RARER] == pytest.approx(2.0)
    ordered = associations(made_up(lambda p: p.bits))
    assert all(ordered[said.name.lower()][RANK] == pytest.approx(1.0) for said in Said)


def test_what_a_budget_buys_of_a_sequence():
    price = PromisePrice(name="rare-1x1", turn_nats=(2.0, 0.5))
    assert price.share(2.5) == 1.0
    assert math.exp(-2.5) < price.share(1.0) < 1.0
    assert price.share(0.0) == pytest.approx(math.exp(-2.5))


def test_promises_are_priced_by_the_base_policy():
    world, table = small_world(), dialogue_table()
    (price,) = price_promises(
        world, lambda _: (NO,), promises=PROMISES[:1], n_contexts=20, n_tokens=60, n_turns=2, seed=0
    )
    law = table[T, COLON, NO] + table[COLON, NO, NEWLINE] + table[NO, NEWLINE, S]
    law += table[NEWLINE, S, COLON]
    assert price.turn_nats == pytest.approx((-law, -law), rel=1e-6)
    assert price.name == PROMISES[0].name
    with pytest.raises(InvalidArgumentError, match="no dialogue of 8 tokens had room for 2 turns"):
        price_promises(
            world,
            lambda _: (NO,),
            promises=PROMISES[:1],
            n_contexts=2,
            n_tokens=8,
            n_turns=2,
            seed=0,
        )
