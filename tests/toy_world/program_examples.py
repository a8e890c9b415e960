"""Languages, programs, histories and layouts, and what the interpreter makes of them."""

from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from theory.process import policy_table
from toy_world.programs.codes import BitReader, Choice
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.language import Language
from toy_world.programs.semantics import action_probabilities, policy_function, trace_of

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


def layout_of(history, points, *, n_actions, n_observations, horizon):
    """The layout of a history given as one sequence of symbols."""
    return ColumnLayout(
        history[::2],
        history[1::2],
        points,
        n_actions=n_actions,
        n_observations=n_observations,
        horizon=horizon,
    )


@st.composite
def worlds(draw, *, max_steps=8, horizon=None):
    """A language, a history, and a layout with one to three query points on it."""
    sizes = {
        "n_actions": draw(st.integers(1, 3)),
        "n_observations": draw(st.integers(1, 2)),
    }
    history = draw(histories(**sizes, max_steps=max_steps))
    times = sorted(draw(st.lists(st.integers(0, len(history) // 2), min_size=1, max_size=3)))
    points = [QueryPoint(n_steps=t, extra=draw(histories(**sizes, max_steps=2))) for t in times]
    layout = layout_of(history, points, **sizes, horizon=horizon or draw(st.integers(1, 3)))
    return Language(**sizes), history, layout


def rooted(history, point):
    """The history that ends in a query point."""
    return history[: 2 * point.n_steps] + point.extra


def behaviour(program, root, layout):
    """What a program does along `root` and on the tree behind it, by the interpreter alone."""
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    function = policy_function(program, **sizes)
    along = tuple(function(root[:t])[root[t]] for t in range(0, len(root), 2))
    tree = policy_table(layout.tree, lambda h: function(root + h))
    return along, tuple(
        map(tuple, np.concatenate([level.reshape(-1, layout.n_actions) for level in tree]))
    )


def oracle(language, limit, root, layout):
    """Exact weight of each behaviour with positive likelihood."""
    weights = Counter()
    for n_bits, program in language.policies.up_to(limit):
        along, tree = behaviour(program, root, layout)
        if 0 not in along:
            weights[along, tree] += 2 ** (limit - n_bits)
    return weights


def exact_weights(found, root):
    """`w(p) prod_j p(a_j|h_j)` of each class of a posterior, by its shortest program."""
    layout = found.enumeration.layout
    sizes = {"n_actions": layout.n_actions, "n_observations": layout.n_observations}
    weights = []
    for place, prior in enumerate(found.prior_weights):
        program = found.program(place)
        weight = Fraction(int(prior), 2**found.enumeration.limit_bits)
        trace = trace_of(program, (), **sizes)
        for action, observation in zip(root[::2], root[1::2], strict=True):
            weight *= action_probabilities(program, trace)[action]
            trace.advance(action, observation)
        weights.append(weight)
    return weights


def places_of(history, layout):
    """Every column with the history that it stands for, by the layout's own definition."""
    places = [
        (chain.columns.start + column, history[: 2 * (before + column)])
        for before, chain in zip(
            np.cumsum([0, *(s.n_columns for s in layout.chain)]), layout.chain, strict=False
        )
        for column in range(chain.n_columns)
    ]
    for point, path, tree in zip(layout.points, layout.paths, layout.trees, strict=True):
        known = history[: 2 * point.n_steps]
        places += [
            (path.columns.start + column, known + point.extra[: 2 * column])
            for column in range(path.n_columns)
        ]
        continuations = [h for t in range(layout.horizon) for h in layout.tree.continuations(t)]
        places += [
            (tree.columns.start + layout.n_actions * row + action, known + point.extra + h)
            for row, h in enumerate(continuations)
            for action in range(layout.n_actions)
        ]
    return places


def columns_in(bits):
    """The columns of a set."""
    return frozenset(
        64 * w + i for w, word in enumerate(bits.tolist()) for i in range(64) if word >> i & 1
    )
