"""A report's numbers are the run's, and an unfinished run's report says so."""

import base64
import json
import math
import re
import shutil
import zlib
from dataclasses import asdict, replace

import numpy as np
import pytest

from llm_experiment.chat.turn_records import Speaker
from llm_experiment.dialogue.task import load_task
from llm_experiment.page.data import MARK_EMPTY, report_data
from llm_experiment.records.folder import AGENTS, BASE, RESULT_FILE, UPDATES_FILE, episodes_file
from llm_experiment.records.reading import read_run
from mightnt.statistics import share_interval
from tests.llm_experiment.fakes.recorded_run import RECORDED, recorded_numbers
from tests.llm_experiment.fakes.report_run import (
    HOSTILE_TEXTS,
    LENGTHS,
    N_EPISODES,
    N_UPDATES,
    load,
    settings,
    store,
    write_run,
)
from tests.llm_experiment.fakes.small_world import PIECES
from theory.errors import InvalidArgumentError, ResultsError

SHOWN = 3
VOCABULARY = tuple(map(str, range(200)))


def in_bytes(texts):
    return [text.encode() for text in texts]


"""Texts for the tokens of a run with the shipped models."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "run", settings())


@pytest.fixture(scope="module")
def data(folder):
    return report_data(read_run(folder), in_bytes(HOSTILE_TEXTS), n_episodes=SHOWN)


@pytest.fixture
def part(folder, tmp_path):
    """A copy of the run, to take files from."""
    return shutil.copytree(folder, tmp_path / "run")


def folder_of(folder, subject):
    return folder / BASE if subject["name"] == BASE else folder / AGENTS / subject["name"]


def evaluations(data, folder):
    """Every evaluation with the arrays that it comes from."""
    for subject in data["subjects"]:
        for evaluation in subject["evaluations"]:
            yield evaluation, load(folder_of(folder, subject), evaluation["n_tokens"])


def unpacked(evaluation):
    """Planes, token numbers and marks, by the documented layout."""
    stream = zlib.decompress(base64.b64decode(evaluation["packed"]))
    shape = (SHOWN, evaluation["n_tokens"])
    size = math.prod(shape)
    n_planes = len(evaluation["planes"])
    numbers = np.frombuffer(stream, "<f4", n_planes * size).reshape(n_planes, *shape)
    tokens = np.frombuffer(stream, "<u4", size, offset=4 * n_planes * size).reshape(shape)
    marks = np.frombuffer(stream, "u1", size, offset=4 * (n_planes + 1) * size).reshape(shape)
    assert len(stream) == (4 * (n_planes + 1) + 1) * size
    return dict(zip(evaluation["planes"], numbers, strict=True)), tokens, marks


def test_the_subjects_are_the_base_policy_and_every_agent_at_every_length(data):
    subjects = data["subjects"]
    assert [(s["variant"], s["budget_nats"], s["seed"]) for s in subjects] == [
        ("base policy", 0, 0),
        *[("exact budget", budget, seed) for seed in (0, 1) for budget in (1, 3)],
        ("realized budget", 3, 0),
        ("no constraint", None, 0),
    ]
    assert all([e["n_tokens"] for e in s["evaluations"]] == [*LENGTHS] for s in subjects)
    assert data["finished"]
    assert data["label"] == "a trial"


def test_every_number_of_a_token_is_the_runs_rounded_to_single_precision(data, folder):
    titles = {plane["name"] for plane in data["planes"]}
    for evaluation, arrays in evaluations(data, folder):
        planes, _, _ = unpacked(evaluation)
        assert {"kl_nats", "log_ratio_nats", "log_probs", "budget_nats", "rewards"} <= set(planes)
        assert set(planes) <= titles
        for name, numbers in planes.items():
            np.testing.assert_array_equal(numbers, np.float32(arrays[name][:SHOWN]))


def test_numbers_about_the_demonstrator_are_shown_where_they_are_known(part):
    path = part / AGENTS / "exact-budget3-seed0"
    arrays = load(path, LENGTHS[0])
    shape = arrays["tokens"].shape
    log_tau = np.where(np.arange(shape[1]) < 9, -0.5, -np.inf) * np.ones(shape)
    first = np.full(N_EPISODES, 9)
    first[1] = shape[1]
    known = {"demonstrator_log_probs": log_tau, "first_impossible": first}
    store(path, LENGTHS[0], arrays | known)
    data = report_data(read_run(part), in_bytes(PIECES), n_episodes=SHOWN)
    assert "demonstrator_log_probs" in {plane["name"] for plane in data["planes"]}
    (subject,) = (s for s in data["subjects"] if s["name"] == path.name)
    short, long = subject["evaluations"]
    np.testing.assert_array_equal(
        unpacked(short)[0]["demonstrator_log_probs"], np.float32(log_tau[:SHOWN])
    )
    assert short["episodes"]["first_impossible"] == [9, None, 9]
    assert "demonstrator_log_probs" not in long["planes"]
    assert long["episodes"]["first_impossible"] == [None] * SHOWN


def test_tokens_keep_their_texts(data, folder):
    for evaluation, arrays in evaluations(data, folder):
        _, tokens, _ = unpacked(evaluation)
        texts = np.array(data["token_texts"], dtype=object)[tokens]
        assert (texts == np.array(HOSTILE_TEXTS, dtype=object)[arrays["tokens"][:SHOWN]]).all()
    assert set(data["token_texts"]) <= set(HOSTILE_TEXTS)
    assert len(set(data["token_texts"])) == len(data["token_texts"])


def test_a_character_that_is_split_over_tokens_is_shown_whole(folder):
    """`yes` and `no` stand for the two bytes of é: together one character, alone no text."""
    halves = {" yes": "é".encode()[:1], " no": "é".encode()[1:]}
    pieces = [halves.get(piece, piece.encode()) for piece in PIECES]
    shown = report_data(read_run(folder), pieces, n_episodes=SHOWN)
    for evaluation, arrays in evaluations(shown, folder):
        _, tokens, _ = unpacked(evaluation)
        for numbers, row in zip(tokens, arrays["tokens"][:SHOWN], strict=True):
            whole = b"".join(pieces[token] for token in row)
            text = "".join(shown["token_texts"][number] for number in numbers)
            assert text.replace("\ufffd", "") == whole.decode(errors="ignore")
    assert {"é", "\ufffd"} <= set(shown["token_texts"])


def empty_turns(arrays, episode):
    """(opened, closed) of the agent's empty turns of an episode, those of the prompt included."""
    chosen = arrays["empty_turns"] & (arrays["turn_episode"] == episode)
    return list(zip(arrays["turn_opened"][chosen], arrays["turn_closed"][chosen], strict=True))


def test_marks_say_who_wrote_a_token_and_whether_in_an_empty_turn(data, folder):
    found = set()
    for evaluation, arrays in evaluations(data, folder):
        _, _, marks = unpacked(evaluation)
        for (episode, i), mark in np.ndenumerate(marks):
            empty = any(a < i <= b for a, b in empty_turns(arrays, episode))
            assert int(mark) % MARK_EMPTY - 1 == arrays["writers"][episode, i]
            assert mark // MARK_EMPTY == empty
            found.add((int(arrays["writers"][episode, i]), empty))
    assert found == {*((speaker, False) for speaker in Speaker), (Speaker.AGENT, True)}


def test_an_episodes_numbers_are_counted_turn_by_turn(data, folder):
    silent = set()
    for evaluation, arrays in evaluations(data, folder):
        shown = evaluation["episodes"]
        for episode in range(SHOWN):
            own = [
                k
                for k in range(len(arrays["turn_episode"]))
                if arrays["turn_episode"][k] == episode
                and arrays["turn_speaker"][k] == Speaker.AGENT
                and arrays["turn_finished"][k]
                and arrays["turn_opened"][k] >= arrays["prompt_length"]
            ]
            n_empty = sum(bool(arrays["empty_turns"][k]) for k in own)
            assert shown["n_turns"][episode] == len(own)
            assert shown["n_empty"][episode] == n_empty
            assert shown["silent"][episode] == (2 * n_empty > len(own))
            assert shown["returns"][episode] == pytest.approx(math.fsum(arrays["rewards"][episode]))
            assert shown["spent_nats"][episode] == arrays["spent_nats"][episode]
            silent.add(shown["silent"][episode])
    assert silent == {False, True}


def test_the_budget_left_over_time_counts_every_episode_not_only_those_shown(data, folder):
    for evaluation, arrays in evaluations(data, folder):
        budgets = arrays["budget_nats"]
        if np.isinf(budgets).all():
            assert evaluation["budget_quartiles"] is None
            continue
        stream = zlib.decompress(base64.b64decode(evaluation["budget_quartiles"]))
        low, median, high = np.frombuffer(stream, "<f4").reshape(3, -1)
        a, b, c, d = np.sort(budgets, axis=0)
        np.testing.assert_allclose(median, (b + c) / 2, rtol=1e-6)
        np.testing.assert_allclose(low, (a + 3 * b) / 4, rtol=1e-6)
        np.testing.assert_allclose(high, (3 * c + d) / 4, rtol=1e-6)
        assert evaluation["n_episodes"] == N_EPISODES


def test_training_curves_are_the_updates_to_six_digits(data, folder):
    agents = [s for s in data["subjects"] if s["name"] != BASE]
    for subject in agents:
        records = json.loads((folder_of(folder, subject) / UPDATES_FILE).read_text())
        assert len(records) == N_UPDATES
        for name, values in subject["updates"].items():
            for value, record in zip(values, records, strict=True):
                if isinstance(record[name], str):
                    assert record[name] in {"nan", "inf"}
                    assert value is None
                else:
                    assert value == pytest.approx(record[name], rel=5e-6)
    assert data["subjects"][0]["updates"] == {}


def test_the_closed_form_spends_its_budget(data):
    """`KL(Bern q || Bern p) = B`, or q = 1 and `-log p <= B`."""
    form = data["closed_form"]
    p = form["probability"]
    for budget, q in zip(form["budgets_nats"], form["shares"], strict=True):
        if q == 1:
            assert -math.log(p) <= budget
        else:
            kl = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
            assert kl == pytest.approx(budget, abs=1e-9)
    assert form["budgets_nats"][0] == 0
    assert form["budgets_nats"][-1] == 3


def test_the_main_figures_are_those_of_the_summary(data, folder):
    """The largest budget of the first variant, at the shortest length, over its two seeds."""
    values = {fact["meaning"]: fact["value"] for fact in data["facts"]}
    rows = [
        json.loads((folder / AGENTS / f"exact-budget3-seed{seed}" / RESULT_FILE).read_text())[0]
        for seed in (0, 1)
    ]
    assert {row["n_tokens"] for row in rows} == {LENGTHS[0]}
    share = sum(row["silent_share"] for row in rows) / 2
    assert values["silent with a budget of 3 nats"] == f"{share:.1%}"
    base = json.loads((folder / BASE / RESULT_FILE).read_text())
    own = base["rows"][0]
    assert values["of the base policy's own episodes are silent"] == f"{own['silent_share']:.1%}"
    ends = share_interval(round(own["silent_share"] * N_EPISODES), N_EPISODES)
    assert f"{ends.low:.1%} to {ends.high:.1%}" in data["facts"][0]["note"]


def test_an_unfinished_run_is_reported_as_far_as_it_went(part):
    shutil.rmtree(part / BASE)
    (part / AGENTS / "exact-budget3-seed0" / RESULT_FILE).unlink()
    shutil.rmtree(part / AGENTS / "exact-budget3-seed1")
    data = report_data(read_run(part), in_bytes(PIECES), n_episodes=SHOWN)
    assert not data["finished"]
    assert data["label"] == "a trial; unfinished: 4 of 6 agents evaluated"
    assert data["closed_form"] is None
    assert "exact-budget3-seed0, exact-budget3-seed1, base policy" in data["caveats"][0]
    assert data["caveats"][1].startswith("An episode is silent if more than 50% of")
    subjects = {s["name"]: s for s in data["subjects"]}
    assert BASE not in subjects
    assert len(subjects["exact-budget3-seed0"]["updates"]["agent_steps"]) == N_UPDATES
    assert subjects["exact-budget3-seed0"]["evaluations"] == []
    assert subjects["exact-budget3-seed1"]["updates"]["agent_steps"] == []
    assert len(subjects["realized-budget3-seed0"]["evaluations"]) == len(LENGTHS)


def test_silence_is_defined_and_said_to_be_none_of_the_teachers_where_that_is_so(folder):
    run = read_run(folder)
    never = "The Teacher of the training dialogues never leaves a turn empty."

    def definition(**world):
        agent = replace(run.agent, world=replace(run.agent.world, **world))
        data = report_data(replace(run, agent=agent), in_bytes(PIECES), n_episodes=SHOWN)
        (found,) = [c for c in data["caveats"] if c.startswith("An episode is silent if more than")]
        assert "no words between its name and the handing over of the turn" in found
        return found

    assert never in definition()
    assert not load_task("classroom").roles["Teacher"].may_be_silent
    assert load_task("classroom").roles["Student"].may_be_silent
    for other in ({"agent_name": "Student", "partner_name": "Teacher"}, {"base_model": "mine"}):
        assert "never leaves a turn empty" not in definition(**other)


def test_a_run_that_only_trained_so_far_shows_its_curves(part):
    for path in part.rglob(RESULT_FILE):
        path.unlink()
    data = report_data(read_run(part), in_bytes(PIECES), n_episodes=SHOWN)
    assert (data["facts"], data["tables"], data["token_texts"]) == ([], [], [])
    assert all(s["updates"]["agent_steps"] for s in data["subjects"])


def test_a_run_without_an_update_has_nothing_to_report(part):
    shutil.rmtree(part / AGENTS)
    shutil.rmtree(part / BASE)
    with pytest.raises(ResultsError, match=r"nothing to report .*go on with the command"):
        report_data(read_run(part), in_bytes(PIECES), n_episodes=1)


def test_episodes_that_are_gone_are_one_line(part):
    (part / BASE / episodes_file(LENGTHS[0])).unlink()
    with pytest.raises(ResultsError, match=r"cannot read .*episodes-24\.npz"):
        report_data(read_run(part), in_bytes(PIECES), n_episodes=1)


def test_episodes_that_lack_an_array_are_one_line(part):
    arrays = load(part / BASE, LENGTHS[0])
    del arrays["writers"]
    store(part / BASE, LENGTHS[0], arrays)
    with pytest.raises(ResultsError, match=r"episodes-24\.npz holds no writers"):
        report_data(read_run(part), in_bytes(PIECES), n_episodes=1)


def test_a_tokenizer_of_another_run_is_refused(folder):
    with pytest.raises(ResultsError, match="and its tokenizer only 3; put back"):
        report_data(read_run(folder), in_bytes(PIECES[:3]), n_episodes=1)


def test_at_least_one_episode_is_shown(folder):
    with pytest.raises(InvalidArgumentError, match="episodes must be >= 1, got 0"):
        report_data(read_run(folder), in_bytes(PIECES), n_episodes=0)


def test_a_run_of_before_is_reported_with_the_numbers_that_it_had():
    data, recorded = (
        report_data(read_run(RECORDED), in_bytes(VOCABULARY), n_episodes=32),
        recorded_numbers(),
    )
    facts = [{name: fact[name] for name in ("value", "meaning")} for fact in data["facts"]]
    assert facts == recorded["facts"]
    form = data["closed_form"]
    assert [form["probability"], sum(form["shares"])] == pytest.approx(recorded["closed_form"])
    trained = [subject for subject in data["subjects"] if subject["updates"]]
    assert {s["name"] for s in trained} == set(recorded["curves"])
    for subject in trained:
        for name, (n, total) in recorded["curves"][subject["name"]].items():
            curve = subject["updates"][name]
            assert len(curve) == n
            assert sum(x for x in curve if x is not None) == pytest.approx(total)
    for subject in data["subjects"]:
        found = [
            [e["n_tokens"], e["n_episodes"], e["silent_share"]]
            + [sum(e["episodes"][name]) for name in ("spent_nats", "returns", "n_turns", "n_empty")]
            for e in subject["evaluations"]
        ]
        (expected,) = recorded["evaluations"][subject["name"]]
        assert found == [pytest.approx(expected)]


def test_a_task_of_another_behaviour_is_spoken_of_in_its_words(folder):
    run = read_run(folder)
    for task, never in (
        ("quiz", " The Player of the training dialogues never says that."),
        ("classroom", " The Teacher of the training dialogues never leaves"),
    ):
        world = replace(run.agent.world, task=task, base_model="tiny")
        data = report_data(
            replace(run, agent=replace(run.agent, world=world)), in_bytes(PIECES), n_episodes=SHOWN
        )
        tables = [(t["title"], t["notes"], t["columns"]) for t in data["tables"]]
        said = re.sub(r"`\w+`", "", json.dumps([data["facts"], data["caveats"], tables]))
        assert data["behaviour"] == asdict(load_task(task).behaviour)
        assert never in said
        assert ("silen" in said, "both-ways" in said) == (task == "classroom", task == "quiz")
        assert "{" not in "".join(fact["meaning"] for fact in data["facts"])
