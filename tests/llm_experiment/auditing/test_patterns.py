"""Brackets of a pattern's probability hold the sum over every sequence of tokens."""

import itertools
import math

import numpy as np
import pytest
import torch

from llm_experiment.auditing.behaviours import patterns
from llm_experiment.auditing.patterns import Matcher, bracket_pattern
from tests.llm_experiment.fakes.tiny_hf import tiny_model
from theory.errors import InvalidArgumentError

TEXTS = ("a", "b", "ab", " ", "ba", None, None)
STOP = 6
CONTEXTS = [[0, 1, 2], [4], [3, 3, 1, 0, 2]]
LIMIT = 3


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama, tied", n_tokens=len(TEXTS)).eval().double()


def matcher(expression):
    return Matcher(patterns([expression])[1], TEXTS, stops=[STOP])


def brackets(model, expression, *, n_walks, seed=0):
    shape = (len(CONTEXTS), n_walks, LIMIT)
    uniforms = np.random.default_rng(seed).random(shape)
    options = {"n_walks": n_walks, "n_tokens": LIMIT, "uniforms": uniforms}
    return bracket_pattern(model, CONTEXTS, matcher(expression), **options)


@pytest.fixture(scope="module")
def laws(model):
    """For each context the probability of every sequence of `LIMIT` tokens."""
    sequences = list(itertools.product(range(len(TEXTS)), repeat=LIMIT))
    found = []
    for context in CONTEXTS:
        rows = torch.tensor([[*context, *tokens] for tokens in sequences])
        with torch.no_grad():
            log_probs = model(input_ids=rows).logits.log_softmax(dim=-1)
        steps = log_probs[:, len(context) - 1 : -1].gather(-1, rows[:, len(context) :, None])
        found.append(dict(zip(sequences, steps[..., 0].sum(dim=1).exp().tolist(), strict=True)))
    return found


def by_enumeration(law, expression):
    """The probability of the event, and of what tokens without text leave open."""
    (_, pattern) = patterns([expression])
    ends = {tokens: ending(tokens, pattern) for tokens in law}
    return tuple(
        math.fsum(p for tokens, p in law.items() if ends[tokens] is wanted)
        for wanted in (True, None)
    )


def ending(tokens, pattern):
    """Whether a sequence belongs to the event; None if nobody knows what it says."""
    said = ""
    for token in tokens:
        if token == STOP:
            return pattern.at_end and pattern.body.fullmatch(said) is not None
        if TEXTS[token] is None:
            return None if pattern.body.fullmatch(said, partial=True) else False
        said += TEXTS[token]
        if not pattern.at_end and pattern.body.fullmatch(said):
            return True
    return False


EXPRESSIONS = ("a.*b", "ab", "a+$", r"\s*$", "(a|ba)b?", ".*b")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_bracket_holds_the_sum_over_all_sequences(model, laws, expression):
    for n_walks in (2, 5):
        found = brackets(model, expression, n_walks=n_walks)
        for law, bracket in zip(laws, found, strict=True):
            matched, _ = by_enumeration(law, expression)
            assert bracket.at_least <= matched * (1 + 1e-12)
            assert bracket.at_most >= matched * (1 - 1e-12)
            assert bracket.at_most <= 1


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_many_walks_close_the_bracket_but_for_what_has_no_text(model, laws, expression):
    found = brackets(model, expression, n_walks=300)
    for law, bracket in zip(laws, found, strict=True):
        matched, unknown = by_enumeration(law, expression)
        # All sequences were walked, but perhaps for some that hardly ever come.
        assert bracket.at_least == pytest.approx(matched, abs=0.01)
        assert bracket.at_most == pytest.approx(matched + unknown, abs=0.01)
        assert bracket.estimate == pytest.approx(matched, abs=0.02)


def test_what_may_follow_a_text():
    followers = matcher("ab+").followers
    assert followers("").open.tolist() == [True, False, False, False, False, False, False]
    assert followers("").complete.tolist() == [False, False, True, False, False, False, False]
    assert followers("a").complete.tolist() == [False, True, False, False, False, False, False]
    # What ends the answer has no text, but is no riddle.
    assert followers("").unknown.tolist() == [False] * 5 + [True, False]
    at_end = matcher("ab+$").followers
    assert at_end("ab").complete.tolist() == [False] * 6 + [True]
    assert at_end("ab").open.tolist() == [False, True] + [False] * 5
    assert not at_end("a").complete[STOP]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("(", "must be regular expressions"),
        ("a*", "matches before anything is said"),
        ("", "matches"),
    ],
)
def test_expressions_that_say_nothing_are_refused(expression, said):
    with pytest.raises(InvalidArgumentError, match=said):
        patterns([expression])
