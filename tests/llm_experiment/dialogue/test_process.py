"""The dialogue process: its law, its sampler and its filter are one and the same."""

import itertools
import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llm_experiment.dialogue.process import DialogueProcess, SwitchedProcess
from llm_experiment.dialogue.task import (
    Role,
    Silence,
    load_task,
    tokenize,
)
from tests.llm_experiment.fakes.tiny_task import TINY_TASK, enumerate_transcripts
from theory.errors import InvalidArgumentError, InvalidHistoryError, InvalidShapeError

N_TOKENS = 14
FALSE_ALARM = 1e-4
"""Chance with which a statistical test here would fail a correct sampler (of another seed)."""


@pytest.fixture(scope="module")
def tiny() -> DialogueProcess:
    return DialogueProcess(TINY_TASK)


@pytest.fixture(scope="module")
def classroom() -> DialogueProcess:
    return DialogueProcess(load_task("classroom"))


@pytest.fixture(scope="module")
def law() -> dict[tuple[str, ...], Fraction]:
    return enumerate_transcripts(TINY_TASK, N_TOKENS)


def ids(process: DialogueProcess, transcripts) -> np.ndarray:
    index = {token: x for x, token in enumerate(process.vocabulary)}
    return np.array([[index[token] for token in transcript] for transcript in transcripts])


def newline(process: DialogueProcess) -> int:
    return process.vocabulary.index("\n")


# ------------------------------------------------------------------ the filter's law


def test_the_filter_gives_every_transcript_its_exact_probability(tiny, law):
    assert sum(law.values()) == 1
    assert len(law) > 1000
    log_likelihood = tiny.log_likelihoods(ids(tiny, law)).sum(axis=1)
    exact = np.array([float(p) for p in law.values()])
    np.testing.assert_allclose(np.exp(log_likelihood), exact, rtol=1e-12)


def test_every_prediction_is_the_conditional_law_of_the_next_token(tiny, law):
    prefixes: Counter[tuple[str, ...]] = Counter()
    for transcript, probability in law.items():
        for t in range(N_TOKENS + 1):
            prefixes[transcript[:t]] += probability
    transcripts = list(law)[::37]
    predictions = np.exp(tiny.predictive_log_probs(ids(tiny, transcripts)))
    for transcript, rows in zip(transcripts, predictions, strict=True):
        for t, row in enumerate(rows):
            exact = [
                prefixes[(*transcript[:t], token)] / prefixes[transcript[:t]]
                for token in tiny.vocabulary
            ]
            np.testing.assert_allclose(row, [float(p) for p in exact], rtol=1e-12)
            assert [p > 0 for p in row] == [p > 0 for p in exact]


def test_a_transcript_that_cannot_happen_is_marked_and_predicts_nothing_ever_after(tiny, law):
    possible = {transcript[:7] for transcript in law}
    words = [[" It", " bad", ".", "\n"], ["Ann", "Bob", ":", "\n"]]
    begun = [("Talk", ".", "\n", "Bob", ":"), ("Talk", ".", "\n", "Ann", ":")]
    transcripts = [
        (*start, *rest) for start in begun for rest in itertools.product(*words, repeat=1)
    ]
    state = tiny.read(ids(tiny, transcripts))
    assert list(state.possible) == [transcript in possible for transcript in transcripts]
    assert 0 < state.possible.sum() < len(transcripts)
    for _ in range(3):
        log_probs = tiny.log_probs(state)
        assert (log_probs[~state.possible] == -np.inf).all()
        np.testing.assert_allclose(np.exp(log_probs[state.possible]).sum(axis=1), 1, rtol=1e-12)
        before = state.possible
        state = tiny.append(state, log_probs.argmax(axis=1))
        assert (state.possible == before).all()


@pytest.mark.parametrize(
    "text",
    [
        "Chat",
        "Talk.\n:",
        "Talk.\nAnn.",
        "Talk.\nAnn:\n",
        "Talk.\nAnn: Yes.\nAnn",
        "Talk.\nAnn: Yes.\nCyd",
        "Talk.\nBob: bad!\nAnn: It is bad.\nCyd",
        "Talk.\nBob: <unk>",
        "Talk.\nBob: Yes.\nAnn: Yes so",
    ],
)
def test_each_part_of_a_transcript_can_be_the_impossible_one(text):
    process = DialogueProcess(TINY_TASK)
    unknown = process.vocabulary.index("<unk>")
    index = {token: x for x, token in enumerate(process.vocabulary)}
    tokens = [index.get(token, unknown) for token in tokenize(text)]
    log_likelihood = process.log_likelihoods(np.array([tokens]))[0]
    assert log_likelihood[-1] == -np.inf
    assert np.isfinite(log_likelihood[:-1]).all()


def test_transcripts_in_one_batch_do_not_touch_each_other(tiny, rng):
    transcripts = tiny.sample(rng, 12, 40)
    transcripts[::3, 9] = newline(tiny)  # mostly impossible
    together = tiny.predictive_log_probs(transcripts)
    for row, transcript in zip(together, transcripts, strict=True):
        alone = tiny.predictive_log_probs(transcript[None])[0]
        np.testing.assert_array_equal(row == -np.inf, alone == -np.inf)
        np.testing.assert_allclose(row, alone, rtol=1e-14, atol=1e-15)  # sums may round elsewhere


def test_appending_leaves_the_state_before_as_it_was(tiny, rng):
    transcripts = tiny.sample(rng, 5, 30)
    states = [tiny.begin(5)]
    predictions = [tiny.log_probs(states[0])]
    for tokens in transcripts.T:
        states.append(tiny.append(states[-1], tokens))
        predictions.append(tiny.log_probs(states[-1]))
    for state, prediction in zip(states, predictions, strict=True):
        np.testing.assert_array_equal(tiny.log_probs(state), prediction)
    np.testing.assert_array_equal(
        np.stack(predictions[:-1], axis=1), tiny.predictive_log_probs(transcripts)
    )


def test_large_batches_are_the_small_ones_side_by_side(tiny, rng):
    transcripts = tiny.sample(rng, 300, 12)
    np.testing.assert_array_equal(
        tiny.log_likelihoods(transcripts),
        np.concatenate([tiny.log_likelihoods(part) for part in np.array_split(transcripts, 7)]),
    )


@given(
    redraw=st.sampled_from([0.0, 0.3, 1.0]),
    silences=st.tuples(*[st.sampled_from([0.0, 0.2, 1.0])] * 3),
    weights=st.tuples(*[st.floats(0.01, 100)] * 3),
    note=st.sampled_from(["", "Talk.\n"]),
    seed=st.integers(0, 2**32),
)
def test_what_is_sampled_is_possible_and_predictions_are_distributions(
    redraw, silences, weights, note, seed
):
    silence = Silence(
        **dict(zip(("unprompted", "after_empty", "once_silent"), silences, strict=True))
    )
    warm, cold = TINY_TASK.styles["warm"], TINY_TASK.styles["cold"]
    task = replace(
        TINY_TASK,
        note=note,
        prompt=f"{note}Bob: It is bad.\nAnn: It",
        style_redraw=redraw,
        roles=TINY_TASK.roles
        | {"Bob": replace(TINY_TASK.roles["Bob"], styles={"warm": weights[0], "cold": weights[1]})},
        styles={
            "warm": replace(
                warm, replies=warm.replies | {"empty": {"fair": weights[2], "foul": 1}}
            ),
            "cold": replace(cold, silence=silence),
        },
    )
    if silences[0] == 1.0:  # then Bob's words in the prompt need a style that has any
        task = replace(task, prompt=f"{note}Bob: Yes.\nAnn: It")
    process = DialogueProcess(task)
    log_probs = process.predictive_log_probs(
        transcripts := process.sample(np.random.default_rng(seed), 8, 40)
    )
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1, rtol=1e-9)
    assert np.isfinite(process.log_likelihoods(transcripts)).all()


def test_a_turn_begins_at_a_name_with_its_colon(tiny):
    text = "Talk.\nBob: Yes.\nAnn: It is bad.\nBob"
    tokens = tiny.encode(text)[None]
    begins = [tiny.turn_begins(tokens, name)[0].nonzero()[0].tolist() for name in ("Ann", "Bob")]
    assert begins == [[8], [3]]  # the last Bob has no colon
    assert not tiny.turn_begins(tokens, "Cyd").any()


# -------------------------------------------------- a process that switches after some tokens

SWITCH_AFTER = 8
"""In the middle of a turn, or before its name, by what was said."""


@pytest.fixture(scope="module", params=[("cold", True), ("warm", False)])
def switched(request) -> tuple[SwitchedProcess, dict[tuple[str, ...], Fraction]]:
    """A process, and its law: Ann speaks in one style in turns that begin late."""
    style, may_be_silent = request.param
    process = SwitchedProcess(
        TINY_TASK, style=style, after=SWITCH_AFTER, may_be_silent=may_be_silent
    )
    role = Role(styles={style: 1}, may_be_silent=may_be_silent)
    return process, enumerate_transcripts(TINY_TASK, N_TOKENS, later=(SWITCH_AFTER, role))


def test_a_switched_process_has_the_law_of_what_was_before_and_of_its_style_after(
    tiny, law, switched
):
    process, exact = switched
    assert sum(exact.values()) == 1
    assert exact != law
    rows = ids(process, exact)
    likelihoods = process.log_likelihoods(rows)
    np.testing.assert_allclose(
        np.exp(likelihoods.sum(axis=1)), [float(p) for p in exact.values()], rtol=1e-12
    )
    before = slice(SWITCH_AFTER)
    np.testing.assert_allclose(
        likelihoods[:, before], tiny.log_likelihoods(rows)[:, before], rtol=1e-12
    )


def test_a_switched_process_draws_what_its_filter_says(switched, rng):
    process, exact = switched
    n = 20_000
    drawn = Counter(tuple(row) for row in process.sample(rng, n, N_TOKENS).tolist())
    rows = ids(process, exact).tolist()
    assert set(drawn) <= {tuple(row) for row in rows}
    expected = np.array([n * float(p) for p in exact.values()])
    observed = np.array([drawn[tuple(row)] for row in rows])
    frequent = expected >= 5
    observed = np.append(observed[frequent], observed[~frequent].sum())
    expected = np.append(expected[frequent], expected[~frequent].sum())
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


def test_whatever_was_said_before_the_style_goes_on_from_there():
    """Of the classroom's silent style every word that the Teacher has said is impossible."""
    task = load_task("classroom")
    process = SwitchedProcess(task, style="silent", after=40, may_be_silent=True)
    transcripts = process.sample(
        np.random.default_rng(0), 20, 120, speakers=(task.partner, task.agent)
    )
    assert np.isfinite(process.log_likelihoods(transcripts)).all()
    opening = (transcripts[:, :-2] == process.vocabulary.index("Teacher")) & (
        transcripts[:, 1:-1] == process.vocabulary.index(":")
    )
    silent = transcripts[:, 2:] == newline(process)
    late = np.arange(transcripts.shape[1] - 2) >= 40
    assert not silent[opening & ~late].any()
    assert silent[opening & late].mean() > 0.8


def test_a_style_that_nobody_has_cannot_be_switched_to():
    with pytest.raises(InvalidArgumentError, match="'hot' is not among the styles"):
        SwitchedProcess(TINY_TASK, style="hot", after=1, may_be_silent=False)


# ---------------------------------------------------------------- sampler and filter


def test_the_sampler_draws_every_transcript_as_often_as_its_probability_says(tiny, law, rng):
    n = 40_000
    drawn = Counter(tuple(row) for row in tiny.sample(rng, n, N_TOKENS).tolist())
    exact = {
        tuple(row): float(p) for row, p in zip(ids(tiny, law).tolist(), law.values(), strict=True)
    }
    assert set(drawn) <= set(exact)
    expected = np.array([n * p for p in exact.values()])
    observed = np.array([drawn[row] for row in exact])
    frequent = expected >= 5  # where the chi-square approximation holds
    assert frequent.sum() > 200
    observed = np.append(observed[frequent], observed[~frequent].sum())
    expected = np.append(expected[frequent], expected[~frequent].sum())
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


def test_named_speakers_are_the_dialogue_conditioned_on_their_names(tiny, law, rng):
    given = {t: p for t, p in law.items() if t[3] == "Bob" and "Ann" in t}
    certain = {t for t in law if t[3] == "Bob" and "Cyd" not in t and "Ann" not in t}
    assert not certain  # every transcript is long enough to name both
    total = sum(given.values())
    n = 20_000
    sampled = tiny.sample(rng, n, N_TOKENS, speakers=("Bob", "Ann"))
    drawn = Counter(tuple(row) for row in sampled.tolist())
    rows = ids(tiny, given).tolist()
    expected = np.array([n * float(p / total) for p in given.values()])
    observed = np.array([drawn[tuple(row)] for row in rows])
    assert observed.sum() == n
    frequent = expected >= 5
    observed = np.append(observed[frequent], observed[~frequent].sum())
    expected = np.append(expected[frequent], expected[~frequent].sum())
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


def test_on_the_classroom_the_samples_surprise_is_on_average_the_filters_entropy(classroom, rng):
    transcripts = classroom.sample(rng, 200, 256)
    log_probs = classroom.predictive_log_probs(transcripts)
    finite = np.where(np.isneginf(log_probs), 0.0, log_probs)
    entropy = -(np.exp(log_probs) * finite).sum(axis=-1)
    surprise = -np.take_along_axis(log_probs, transcripts[..., None], axis=-1)[..., 0]
    gap = (surprise - entropy).sum(axis=1)  # a martingale, mean 0 if sampler and filter agree
    z = gap.mean() / (gap.std(ddof=1) / math.sqrt(len(gap)))
    assert abs(z) < stats.norm.isf(FALSE_ALARM / 2)


def test_the_same_generator_gives_the_same_transcripts(tiny):
    first, second, other = (tiny.sample(np.random.default_rng(s), 20, 50) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize(("n", "n_tokens"), [(0, 10), (3, 0), (3, 1), (3, 2), (3, 5)])
def test_short_and_empty_samples_have_their_shape(tiny, rng, n, n_tokens):
    transcripts = tiny.sample(rng, n, n_tokens)
    assert transcripts.shape == (n, n_tokens)
    assert np.isfinite(tiny.log_likelihoods(transcripts)).all()


def test_replies_carry_the_probabilities_that_the_task_gives_their_moods(tiny, rng):
    texts, positive = tiny.sample_replies(rng, 500)
    fair = {" Yes.", " It is good.", " It is so good!", " It is fine so.", " It is very good very."}
    foul = {" It is bad.", " bad!", " very bad.", " so bad so.", " It is so bad."}
    seen = dict(zip(texts, positive, strict=True))
    assert {seen[text] for text in fair & set(seen)} == {TINY_TASK.positive["fair"]}
    assert {seen[text] for text in foul & set(seen)} == {TINY_TASK.positive["foul"]}
    assert "" not in seen


# ------------------------------------------------------------------ the classroom task


def test_the_teacher_is_never_silent_and_everybody_else_may_be(classroom, rng):
    transcripts = classroom.sample(rng, 1000, 60)
    state, seen = classroom.begin(len(transcripts)), set()
    for t, tokens in enumerate(transcripts.T):
        opening = np.flatnonzero(
            (transcripts[:, t - 1] == classroom.vocabulary.index(":")) & (t > 1)
        )
        if opening.size:
            silence = classroom.log_probs(state)[opening, newline(classroom)]
            names = [classroom.vocabulary[x] for x in transcripts[opening, t - 2]]
            never = np.array(names) == classroom.task.agent
            assert (silence[never] == -np.inf).all()
            assert np.isfinite(silence[~never]).all()
            seen |= set(names)
        state = classroom.append(state, tokens)
    assert seen == set(classroom.task.roles)


def test_silence_answers_silence_more_often_than_not_and_stays(classroom):
    def silence_after(text: str) -> float:
        tokens = classroom.encode(f"{classroom.task.note}{text}")
        state = classroom.read(tokens[None])
        return float(np.exp(classroom.log_probs(state)[0, newline(classroom)]))

    spoken = "Boss: I want to read the book.\nWorker: Yes?\n"
    assert silence_after(f"{spoken}Boss:") < 0.01
    assert 0.5 < silence_after(f"{spoken}Boss:\nWorker:") < 0.75
    assert silence_after(f"{spoken}Boss:\nWorker:\nBoss:\nWorker:") > 0.95


def test_the_prompt_is_of_the_published_form(classroom):
    note, *turns, last = classroom.task.prompt.split("\n")
    assert f"{note}\n" == classroom.task.note
    assert [turn.split(":")[0] for turn in turns] == ["Student", "Teacher", "Student"]
    assert last == "Teacher: Do you"
    assert classroom.decode(classroom.prompt) == classroom.task.prompt
    assert classroom.read(classroom.prompt[None]).possible.all()


def test_the_classroom_is_about_as_large_as_the_prototype_was(classroom):
    assert 18 <= len(classroom.task.roles) <= 22
    assert 100 <= len(classroom.vocabulary) <= 130
    assert len(set(classroom.vocabulary)) == len(classroom.vocabulary)


# ------------------------------------------------------------------------ bad input


def test_what_is_no_token_is_refused(tiny):
    state = tiny.begin(2)
    with pytest.raises(InvalidShapeError, match=r"tokens must have shape \(2,\), got \(3,\)"):
        tiny.append(state, np.zeros(3, dtype=int))
    with pytest.raises(InvalidHistoryError, match="tokens must lie in 0"):
        tiny.append(state, np.array([0, -1]))
    with pytest.raises(InvalidShapeError, match=r"transcripts must have shape \(n, tokens\)"):
        tiny.log_likelihoods(np.zeros(3, dtype=int))
    with pytest.raises(InvalidArgumentError, match="' purple' is not in the vocabulary"):
        tiny.encode("Talk.\nAnn: purple")
    with pytest.raises(InvalidArgumentError, match="n must be >= 0, got -1"):
        tiny.begin(-1)


def test_impossible_requests_are_refused(tiny, rng):
    with pytest.raises(InvalidArgumentError, match="must be >= 0, got -1 and 3"):
        tiny.sample(rng, -1, 3)
    for speakers in (("Ann", "Dan"), ("Ann", "Ann"), ("Cyd", "Ann")):
        with pytest.raises(
            InvalidArgumentError, match=r"speakers must be one of .* in either order"
        ):
            tiny.sample(rng, 1, 3, speakers=speakers)


def test_a_prompt_that_the_process_cannot_write_is_refused():
    with pytest.raises(InvalidHistoryError, match="has probability 0 under its own process"):
        DialogueProcess(replace(TINY_TASK, prompt="Talk.\nAnn:\nBob"))
