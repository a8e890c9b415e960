"""Programs of short memory: merged exactly, weighed as their programs."""

import numpy as np
import pytest

from theory.errors import InvalidArgumentError, UnreachableLengthError
from theory.process import HistoryTree
from toy_world.programs.language import Cycle
from toy_world.programs.semantics import policy_on_tree
from toy_world.studies.short_memory import draw_symbols, short_memory_class
from toy_world.worlds.demonstrator import Memory, memory_of
from toy_world.worlds.environments import WorldName
from toy_world.worlds.setting import Setting, setting_of

SHORT = [Memory(n_steps=n, period=p) for n in (0, 1) for p in (1, 2)]


@pytest.mark.parametrize("name", WorldName)
def test_programs_of_short_memory_are_merged_where_no_history_tells_them_apart(name):
    setting = setting_of(name, horizon=3)
    models = short_memory_class(setting, limit_bits=10)
    tree = HistoryTree(
        n_actions=setting.world.n_actions,
        n_observations=setting.world.n_observations,
        horizon=4,
    )
    tables = [policy_on_tree(program, tree) for program in models.programs]
    for table, levels in zip(tables, zip(*(models.on_tree(0, 0, 4)), strict=True), strict=True):
        for exact, rows in zip(table, levels, strict=True):
            np.testing.assert_array_equal(exact.astype(np.float64), rows)
    prints = {b"".join(level.astype(np.float64).tobytes() for level in t) for t in tables}
    assert len(prints) == len(tables)


def test_the_weights_of_the_class_are_those_of_its_programs():
    echo = short_memory_class(setting_of(WorldName.ECHO, horizon=2), limit_bits=12)
    language = echo.setting.language
    tree = HistoryTree(n_actions=3, n_observations=2, horizon=3)
    levels = echo.on_tree(0, 0, 3)
    total = dict.fromkeys(range(len(echo.programs)), 0)
    for bits, program in language.policies.up_to(12):
        table = policy_on_tree(program, tree)
        for place in total:
            if (
                all(
                    (exact == level[place]).all()
                    for exact, level in zip(table, levels, strict=True)
                )
                and memory_of(program) in SHORT
            ):
                total[place] += 2 ** (12 - bits)
    assert list(total.values()) == echo.weights.tolist()


def test_symbols_of_probability_0_are_never_drawn(rng):
    rows = np.array([[0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0]] * 500)
    drawn = draw_symbols(rows, rng)
    assert set(drawn[::2].tolist()) == {1, 2}
    assert set(drawn[1::2].tolist()) == {2}


def test_demonstrators_that_are_too_long_are_refused():
    with pytest.raises(UnreachableLengthError, match="has 9 bits, more than 8"):
        short_memory_class(setting_of(WorldName.ECHO, horizon=1), limit_bits=8)
    long = Setting(**{**vars(setting_of(WorldName.ECHO, horizon=1)), "tau": Cycle((0, 1, 0, 0, 1))})
    with pytest.raises(InvalidArgumentError, match="must look back one step at most, got cycle"):
        short_memory_class(long, limit_bits=20)
