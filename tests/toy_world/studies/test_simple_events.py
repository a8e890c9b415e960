"""How simple the simplest event yet to occur stays."""

from itertools import pairwise

import numpy as np

from toy_world.programs.events import simplest_later_clock_event
from toy_world.programs.language import Language
from toy_world.studies.simple_events import log_star, simple_events
from toy_world.worlds.environments import WorldName


def test_log_star_counts_logarithms():
    assert [log_star(t) for t in (1, 2, 3, 4, 5, 16, 17, 65536, 65537, 2**65536)] == [
        0, 1, 2, 2, 3, 3, 4, 4, 5, 5,
    ]  # fmt: skip
    assert log_star(2**65536 + 1) == 6


def test_changes_are_where_the_length_changes_and_the_clock_is_exact():
    found = simple_events(limit_bits=8, n_steps=200, rng=np.random.default_rng(0))
    # The clock's events do not depend on the alphabets.
    other = Language(n_actions=2, n_observations=2)
    assert dict(found.clock)[1000] == simplest_later_clock_event(other, 10**1000).bits
    assert set(found.bits_by_world) == set(WorldName)
    for world, bits in found.bits_by_world.items():
        jumps = [t for t, (a, b) in zip(found.times[1:], pairwise(bits), strict=True) if a != b]
        changes = [each for each in found.changes if each.world is world]
        assert [each.time for each in changes] == [found.times[0], *jumps]
        assert all(each.first_time > each.time for each in changes)
