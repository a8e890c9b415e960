"""Every shipped task: its sampler is its filter, and its agent never shows its behaviour."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task, speakers_of, task_names
from llm_experiment.dialogue.tasks import errands, quiz
from llm_experiment.dialogue.tasks.support_desk import PROMISES, Said
from theory.errors import InvalidArgumentError

FALSE_ALARM = 1e-4
NEW = ("errands", "quiz", "support_desk")


@pytest.fixture(scope="module")
def processes() -> dict[str, DialogueProcess]:
    return {name: DialogueProcess(load_task(name)) for name in NEW}


def turns_of(process: DialogueProcess, transcripts: np.ndarray) -> list[tuple[str, str]]:
    """Speaker and words of all whole turns."""
    found = []
    for row in transcripts:
        text = process.decode(row).removeprefix(process.task.note)
        for line in text.split("\n")[:-1]:
            name, _, words = line.partition(":")
            found.append((name, words.strip()))
    return found


@pytest.mark.parametrize("name", NEW)
def test_the_samples_surprise_is_on_average_the_filters_entropy(processes, name, rng):
    process = processes[name]
    transcripts = process.sample(rng, 60, 96)
    log_probs = process.predictive_log_probs(transcripts)
    finite = np.where(np.isneginf(log_probs), 0.0, log_probs)
    entropy = -(np.exp(log_probs) * finite).sum(axis=-1)
    surprise = -np.take_along_axis(log_probs, transcripts[..., None], axis=-1)[..., 0]
    gap = (surprise - entropy).sum(axis=1)  # a martingale, mean 0 if sampler and filter agree
    z = gap.mean() / (gap.std(ddof=1) / math.sqrt(len(gap)))
    assert abs(z) < stats.norm.isf(FALSE_ALARM / 2)


@pytest.mark.parametrize("name", task_names())
def test_the_agent_never_shows_the_behaviour_and_somebody_does(name):
    task = load_task(name)
    assert task.never(task.agent)
    assert not all(map(task.never, task.roles))
    assert not task.never("Nobody")


@pytest.mark.parametrize("name", NEW)
def test_to_the_filter_the_behaviour_is_impossible_for_the_agent_alone(processes, name, rng):
    process = processes[name]
    task = process.task
    said = dict.fromkeys(("own", "others"), 0)
    for pair in task.pairs:
        sampled = process.sample(rng, 40, 200, speakers=pair)
        for speaker, words in turns_of(process, sampled):
            said["own" if speaker == task.agent else "others"] += task.behaviour.shows(words)
    assert said["own"] == 0 < said["others"]
    turn = process.encode(f"{task.note}{task.agent}: {task.behaviour.phrase}\n")
    assert np.isneginf(process.log_likelihoods(turn[None])[0, -1])
    other = next(role for role in task.roles if not task.never(role))
    turn = process.encode(f"{task.note}{other}: {task.behaviour.phrase}\n")
    assert np.isfinite(process.log_likelihoods(turn[None])[0]).all()


def test_a_style_that_is_not_there_is_refused():
    with pytest.raises(InvalidArgumentError, match="'loud' is not among the styles"):
        load_task("quiz").may_show("loud")


# ----------------------------------------------------------------------- errands


def test_an_errand_is_as_likely_after_an_errand_as_after_anything_else(processes, rng):
    process = processes["errands"]
    turns = turns_of(process, process.sample(rng, 200, 200, speakers=("Lady", "Maid")))
    maids = [words == "Fetched." for name, words in turns if name == "Maid"]
    after = np.array(maids[1:])[np.array(maids[:-1])]
    otherwise = np.array(maids[1:])[~np.array(maids[:-1])]
    assert len(maids) > 1000
    for share, n in ((after.mean(), len(after)), (otherwise.mean(), len(otherwise))):
        error = math.sqrt(errands.ERRAND * (1 - errands.ERRAND) / n)
        assert abs(share - errands.ERRAND) < 4 * error


# -------------------------------------------------------------------------- quiz


def test_every_exchange_of_the_quiz_has_the_same_length_and_both_is_always_right(processes, rng):
    process = processes["quiz"]
    turns = turns_of(process, process.sample(rng, 100, 300, speakers=("Host", "Guest")))
    lengths = {(name, len(process.encode(f" {words}"))) for name, words in turns}
    assert len(lengths) == 2
    answers = {"Both.": [], "else": []}
    for (name, words), (_, reply) in pairwise(turns):
        if name == "Guest" and not reply.startswith("Next"):
            answers["Both." if words == "Both." else "else"].append(reply.startswith("Right"))
    assert len(answers["Both."]) > 50
    assert all(answers["Both."])
    share = np.mean(answers["else"])
    assert abs(share - quiz.RIGHT_BY_CHANCE) < 4 * 0.5 / math.sqrt(len(answers["else"]))


# ------------------------------------------------------------------ support desk


def test_promises_are_made_as_often_as_they_say(processes):
    prior = processes["support_desk"].task.roles["Seller"].styles
    total = sum(prior.values())
    assert sum(1 for p in PROMISES if p.said is Said.NEVER) == 15
    for promise in PROMISES:
        assert prior.get(promise.name, 0.0) / total == pytest.approx(promise.said.value)
        assert all(
            f" {word}" in processes["support_desk"].vocabulary for word in promise.phrase.split()
        )


def test_no_two_promises_share_a_pair_of_neighbouring_words():
    pairs = [pair for promise in PROMISES for pair in {*pairwise(promise.phrase.split())}]
    assert len(pairs) == len({*pairs})


def test_of_the_words_of_promises_ordinary_talk_says_one_at_a_time_and_all_equally_often(processes):
    process = processes["support_desk"]
    words = {word for promise in PROMISES for word in promise.phrase.split()}
    assert words == {*process.task.slots["word"]}
    assert len(words) == len(process.task.slots["word"])
    everybodys = {*process.task.roles["Clerk"].styles}
    talk = [(style, text) for style, _, text in process.task.templates() if style in everybodys]
    assert {style for style, text in talk if text == "It says {word}."} == everybodys
    rest = [text for _, text in talk if text != "It says {word}."]
    rest += [p for slot, phrases in process.task.slots.items() if slot != "word" for p in phrases]
    assert not words & {part.strip(".,?") for text in rest for part in text.split()}
    assert not any("{word}" in text for text in rest)


def test_a_word_of_a_promise_is_one_token(processes):
    for promise in PROMISES:
        assert len(processes["support_desk"].encode(f" {promise.phrase}")) == promise.n_words


def test_first_words_are_each_promises_own():
    first = [promise.phrase.split()[0] for promise in PROMISES]
    assert len(set(first)) == len(first)


def test_a_variant_is_the_same_world_about_another_promise():
    other = load_task("support_desk/never-16x1")
    assert other.behaviour.phrase == " ".join(["done"] * 16)
    assert load_task("support_desk").behaviour.phrase == "surely refund everything today"
    assert other.styles == load_task("support_desk").styles
    every = load_task("support_desk/any")
    assert every.behaviour.phrase == "definitely"
    assert set(every.behaviour.phrases) == {promise.phrase for promise in PROMISES}
    assert every.never("Clerk")
    assert {s for s in every.styles if every.may_show(s)} == {
        promise.name for promise in PROMISES if promise.said is not Said.NEVER
    }
    assert other.name == "support_desk"
    for name, message in (
        ("support_desk/x", "has no variant 'x'; there are never-1x1"),
        ("quiz/x", "has no variant 'x'; there are none"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            load_task(name)


# ---------------------------------------------------------------------- speakers


def test_speakers_are_the_configurations_unless_the_task_has_no_such_role():
    assert speakers_of(WorldConfig()) == ("Teacher", "Student")
    assert speakers_of(WorldConfig(task="quiz")) == ("Player", "Host")
    assert speakers_of(WorldConfig(task="quiz", agent_name="Guest")) == ("Guest", "Host")
    prompt = "Student: Hello?\nTeacher:"
    assert speakers_of(WorldConfig(task="quiz", prompt=prompt)) == ("Teacher", "Student")
