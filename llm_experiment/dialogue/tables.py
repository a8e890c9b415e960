"""A dialogue task compiled to arrays: laws of styles and templates, and the words' automata.

Templates are the pairs of a style and a template text, then an empty template for each style,
then one that stands for the start of a transcript. Nodes are the pairs of a template and a
remainder (what is still to be said); an edge leads from a node to the next by a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_experiment.dialogue.task import (
    EMPTY,
    NEWLINE,
    START,
    DialogueTask,
    Remainder,
    parse_template,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Automata:
    """How templates become words.

    Attributes:
        template_of: the template of a node, shape (nodes,).
        start: the first node of a template, shape (templates,).
        end: the last node of a template, shape (templates,).
        emission: P(token | node), shape (nodes, vocabulary); rows sum to 1.
        read_from: by token, the nodes that its edges leave, shape (vocabulary, edges).
        read_to: those that they lead to, likewise.
        read_weight: P(token, node after | node before), likewise; rows are padded with weight 0.
        draw_cumulative: by node, the cumulative law of its edges, shape (nodes, edges).
        draw_token: their tokens, likewise.
        draw_to: the nodes that they lead to, likewise.
    """

    template_of: Ints
    start: Ints
    end: Ints
    emission: Floats
    read_from: Ints
    read_to: Ints
    read_weight: Floats
    draw_cumulative: Floats
    draw_token: Ints
    draw_to: Ints

    def draw(self, rng: np.random.Generator, node: Ints) -> tuple[Ints, Ints]:
        """A token from every node, and the node after it."""
        u = rng.random(node.size)
        edge = (self.draw_cumulative[node] <= u[:, None]).sum(axis=1)
        return self.draw_token[node, edge], self.draw_to[node, edge]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """How templates are chosen, and how they become words.

    Attributes:
        style_of: the style of a template, shape (templates + 1,); 0 for the start.
        mood_of: the mood of a template, likewise.
        choice: P(template | its style, may be silent, own last turn empty, mood replied to),
            shape (2, 2, moods, templates + 1).
        prior: P(style | role), shape (roles, styles).
        words: the templates' automata.
    """

    style_of: Ints
    mood_of: Ints
    choice: Floats
    prior: Floats
    words: Automata


def compile_task(task: DialogueTask, index: dict[str, int]) -> Tables:
    """The arrays of a task, given the numbers of its tokens."""
    moods, styles = list(task.moods), list(task.styles)
    said = [
        (styles.index(s), moods.index(m), parse_template(text)) for s, m, text in task.templates()
    ]
    said += [(s, moods.index(EMPTY), ()) for s in range(len(styles))]
    style_of = np.array([s for s, _, _ in said] + [0])
    mood_of = np.array([m for _, m, _ in said] + [moods.index(START)])
    prior = np.array([[role.styles.get(s, 0.0) for s in styles] for role in task.roles.values()])
    return Tables(
        style_of=style_of,
        mood_of=mood_of,
        choice=_choice(task, style_of, mood_of),
        prior=prior / prior.sum(axis=1, keepdims=True),
        words=_automata(task, index, [remainder for _, _, remainder in said]),
    )


def _choice(task: DialogueTask, style_of: Ints, mood_of: Ints) -> Floats:
    """P(template | its style, may be silent, own last turn empty, mood replied to)."""
    moods = list(task.moods)
    choice = np.zeros((2, 2, len(moods), len(style_of)))
    for s, style in enumerate(task.styles.values()):
        for k, mood in enumerate(moods):
            weights = style.replies[mood]
            for own_silent in (False, True):
                quiet = style.silence.unprompted
                if mood == EMPTY:
                    quiet = style.silence.once_silent if own_silent else style.silence.after_empty
                for may_be_silent in (False, True):
                    empty = quiet if may_be_silent else 0.0
                    row = choice[int(may_be_silent), int(own_silent), k]
                    for i in np.flatnonzero(style_of[:-1] == s):
                        own_mood = moods[mood_of[i]]
                        if own_mood == EMPTY:
                            row[i] = empty
                        else:
                            share = weights.get(own_mood, 0.0) / sum(weights.values())
                            row[i] = (1 - empty) * share / len(style.says[own_mood])
    return choice


def _automata(
    task: DialogueTask, index: dict[str, int], templates: Sequence[Remainder]
) -> Automata:
    nodes = _nodes(task, templates)
    emission = np.zeros((len(nodes), len(index)))
    by_token: list[list[tuple[int, int, float]]] = [[] for _ in index]
    by_node: list[list[tuple[int, int, float]]] = [[] for _ in nodes]
    for (i, remainder), node in nodes.items():
        for (token, rest), weight in task.next_words(remainder).items():
            x, to = index[token], nodes[i, rest]
            emission[node, x] += weight
            by_node[node].append((x, to, weight))
            if token != NEWLINE:
                by_token[x].append((node, to, weight))
    read_from, read_to, read_weight = _pad(by_token)
    draw_token, draw_to, draw_weight = _pad(by_node)
    cumulative = draw_weight.cumsum(axis=1)
    # Every row ends at 1 whatever the rounding, so that no padding is ever drawn.
    cumulative[cumulative >= cumulative[:, -1:]] = 1.0
    return Automata(
        template_of=np.array([template for template, _ in nodes]),
        start=np.array([nodes[i, template] for i, template in enumerate(templates)]),
        end=np.array([nodes[i, ()] for i in range(len(templates))]),
        emission=emission,
        read_from=read_from,
        read_to=read_to,
        read_weight=read_weight,
        draw_cumulative=cumulative,
        draw_token=draw_token,
        draw_to=draw_to,
    )


def _nodes(task: DialogueTask, templates: Sequence[Remainder]) -> dict[tuple[int, Remainder], int]:
    """All (template, remainder) that can be reached, numbered."""
    nodes: dict[tuple[int, Remainder], int] = {}
    for i, template in enumerate(templates):
        unexplored = [template]
        while unexplored:
            remainder = unexplored.pop()
            if (i, remainder) not in nodes:
                nodes[i, remainder] = len(nodes)
                unexplored += [rest for _, rest in task.next_words(remainder)]
    return nodes


def _pad(lists: Sequence[Sequence[tuple[int, int, float]]]) -> tuple[Ints, Ints, Floats]:
    """Lists of (integer, integer, weight) as three arrays, short lists padded with weight 0."""
    width = max(map(len, lists))
    first, second = np.zeros((2, len(lists), width), dtype=np.int64)
    weight = np.zeros((len(lists), width))
    for row, items in enumerate(lists):
        for column, (a, b, w) in enumerate(items):
            first[row, column], second[row, column], weight[row, column] = a, b, w
    return first, second, weight
