"""A finished run is judged: which agents, by what, and what is left on disk."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from llm_experiment.judging.comparisons import judge, to_tables
from llm_experiment.judging.endpoint import AskingConfig
from llm_experiment.judging.options import JudgeKind, Options
from llm_experiment.measures.transcript_statistics import Question, Statistic
from llm_experiment.records.folder import (
    claim_folder,
    exclusive,
    hash_file,
    read_manifest,
    record_hashes,
)
from llm_experiment.settings import Settings
from mightnt.results import from_jsonable, write_json
from mightnt.table_files import flat_rows
from mightnt.tables import print_table
from tests.llm_experiment.fakes.judged_run import SILENCE, tokenizer, write_run
from tests.llm_experiment.fakes.openai_server import KEY, MODEL, completion, openai_server
from theory.errors import InvalidArgumentError, ResultsError

COMPLEX = [s.value for s in Statistic if s.question is Question.MORE_COMPLEX]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Budget 10 is silent, 3 talks like the base policy, and so does 1."""
    out = tmp_path_factory.mktemp("judged") / "run"
    return write_run(out, budgets={1.0: "", 3.0: "", 10.0: SILENCE}, lengths=(60, 90))


@pytest.fixture
def run(finished, tmp_path):
    """The same, to be written to."""
    return write_run(tmp_path / "run", budgets={3.0: "", 10.0: SILENCE})


@pytest.fixture(scope="module")
def content(finished):
    return judge(Options(run=finished, n_pairs=60))


def one(content, model, comparison):
    (found,) = (
        judgement
        for judgement in content["judgements"]
        if (judgement["model"], judgement["comparison"]) == (model, comparison)
    )
    return found


# ----------------------------------------------------------------- what is compared


def test_the_two_largest_budgets_are_compared_as_published(content):
    assert [comparison["name"] for comparison in content["comparisons"]] == [
        "10 nats against base policy",
        "3 nats against base policy",
        "10 nats against 3 nats",
    ]
    assert [comparison["first"]["budget_nats"] for comparison in content["comparisons"]] == [
        10, 3, 10,
    ]  # fmt: skip
    for comparison in content["comparisons"]:
        assert len(comparison["pairs"]) == 60
        assert {pair["seed"] for pair in comparison["pairs"]} == {0, 1, 2}
        assert sum(pair["swapped"] for pair in comparison["pairs"]) == 30


def test_budgets_and_length_are_a_choice(finished, content):
    assert content["protocol"]["n_tokens"] == 60
    chosen = judge(Options(run=finished, n_pairs=3, budgets_nats=(1.0, 10.0, 3.0), n_tokens=90))
    assert [comparison["name"] for comparison in chosen["comparisons"]] == [
        "10 nats against base policy",
        "3 nats against base policy",
        "1 nats against base policy",
        "10 nats against 3 nats",
        "10 nats against 1 nats",
        "3 nats against 1 nats",
    ]
    assert chosen["protocol"]["n_tokens"] == 90
    assert all(file.endswith("episodes-90.npz") for file in chosen["episodes"])


def test_agents_trained_on_long_episodes_are_compared_on_long_ones(tmp_path):
    out = write_run(tmp_path / "run", budgets={3.0: ""}, lengths=(90, 60))
    assert judge(Options(run=out, n_pairs=3))["protocol"]["n_tokens"] == 90


def test_a_single_budget_is_compared_with_the_base_policy_alone(tmp_path):
    out = write_run(tmp_path / "run", budgets={3.0: ""}, seeds=(0,))
    content = judge(Options(run=out, n_pairs=4))
    assert [c["name"] for c in content["comparisons"]] == ["3 nats against base policy"]
    assert content["judgements"][0]["outcome"]["over_runs"]["low"] is None


# ----------------------------------------------------------------- the built-in judge


def test_silence_is_simpler_by_every_statistic_and_talk_is_not(content):
    for model in COMPLEX:
        for comparison in ("10 nats against base policy", "10 nats against 3 nats"):
            outcome = one(content, model, comparison)["outcome"]
            assert outcome["all"]["first"] == 0
            assert outcome["all"]["share"] == 0
            assert outcome["pairs_high"] < 0.1
            assert outcome["over_runs"]["values"] == [0, 0, 0]
    better = one(content, "reward-per-reply", "10 nats against base policy")
    assert better["question"] == "better"
    assert better["outcome"]["all"]["share"] == 1  # 0.75 a reply against 0.5


def test_equal_numbers_are_ties_and_the_share_does_not_exist(content):
    outcome = one(content, "reward-per-reply", "10 nats against 3 nats")["outcome"]
    assert outcome["all"]["ties"] == 60
    assert outcome["all"]["share"] == "nan"
    assert outcome["pairs_low"] is None


def test_every_pair_is_on_record(content):
    """The tally can be made again from what is stored of each pair."""
    for judgement in content["judgements"]:
        (comparison,) = (c for c in content["comparisons"] if c["name"] == judgement["comparison"])
        outcome = judgement["outcome"]
        assert len(judgement["verdicts"]) == len(comparison["pairs"]) == outcome["all"]["n_pairs"]
        for verdict, (first, second) in zip(
            judgement["verdicts"], judgement["numbers"], strict=True
        ):
            assert verdict == ("tie" if first == second else ["second", "first"][first > second])
        for verdict, key in (("first", "first"), ("second", "second"), ("tie", "ties")):
            assert judgement["verdicts"].count(verdict) == outcome["all"][key]
        for seed, unit in outcome["units"].items():
            of_unit = [
                verdict
                for verdict, pair in zip(judgement["verdicts"], comparison["pairs"], strict=True)
                if pair["seed"] == int(seed)
            ]
            assert of_unit.count("first") == unit["first"]
        assert judgement["judge"] == JudgeKind.BUILT_IN.value


def test_numbers_are_those_of_the_episodes_named(finished, content):
    """Bits per token, read from the stored episodes again."""
    judgement = one(content, "bits-per-token", "10 nats against base policy")
    (comparison, *_) = content["comparisons"]
    for pair, (first, second) in zip(comparison["pairs"], judgement["numbers"], strict=True):
        agent = f"agents/exact-budget10-seed{pair['seed']}"
        for folder, index, number in (
            (agent, pair["first"], first),
            ("base", pair["second"], second),
        ):
            with np.load(finished / folder / "episodes-60.npz") as stored:
                nats = stored["log_ratio_nats"][index] - stored["log_probs"][index]
                assert number == pytest.approx(nats[nats > 0].mean() / math.log(2), rel=1e-12)


# ----------------------------------------------------------------- a language model


def ask(run, server, **changes):
    asking = AskingConfig(requests_per_minute=60_000.0)
    options = Options(run=run, n_pairs=6, judge=JudgeKind.ENDPOINT, asking=asking, **changes)
    return judge(options, server.environment)


def endpoint_judgements(content):
    return [j for j in content["judgements"] if j["judge"] == "endpoint"]


def transcripts(request):
    """The two transcripts of a question, as they were shown."""
    lines = request.question.splitlines()
    return [
        "\n".join(line[3:] for line in lines if line.startswith(f"{letter}| ")) for letter in "AB"
    ]


def prefer_talk(number, request):
    """A judge that can tell silence from talk, whichever is in front."""
    del number
    front, behind = (text.count("Teacher:") for text in transcripts(request))
    return completion("A" if front < behind else "The answer is B.")


def test_both_questions_are_asked_about_the_pairs_that_the_built_in_judge_sees(run):
    with openai_server(prefer_talk) as server:
        content = ask(run, server)
    found = endpoint_judgements(content)
    assert [(j["question"], j["comparison"]) for j in found] == [
        (question, comparison["name"])
        for question in ("better", "more-complex")
        for comparison in content["comparisons"]
    ]
    assert len(server.received) == 2 * 3 * 6
    built_in = one(content, "bits-per-token", "10 nats against base policy")
    (_, judged) = (j for j in found if j["comparison"] == "10 nats against base policy")
    assert judged["verdicts"] == built_in["verdicts"] == ["second"] * 6
    assert judged["model"] == MODEL
    # Questions are asked side by side: which comes last is not said.
    assert sum(judged["criterion"] in each.question for each in server.received) == 3 * 6
    assert judged["asked"]["url"] == server.url
    assert judged["asked"]["system"] == server.received[0].body["messages"][0]["content"]
    assert KEY not in json.dumps(content)


def test_transcripts_are_shown_whole_in_the_order_on_record(run):
    """Every question is found among the episodes, by the pair's record."""
    with openai_server(lambda *_: completion("A")) as server:
        content = ask(run, server)
    words = tokenizer()
    shown = {tuple(transcripts(request)) for request in server.received}
    for comparison in content["comparisons"]:
        for pair in comparison["pairs"]:
            texts = []
            for side in ("first", "second"):
                budget = comparison[side]["budget_nats"]
                folder = (
                    "base"
                    if budget is None
                    else f"agents/exact-budget{budget:g}-seed{pair['seed']}"
                )
                with np.load(run / folder / "episodes-60.npz") as stored:
                    text = words.decode(stored["tokens"][pair[side]])
                texts.append("\n".join(text.splitlines()))
            assert tuple(reversed(texts) if pair["swapped"] else texts) in shown


@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_model_that_always_names_one_position_gives_each_side_half(run, letter):
    with openai_server(lambda *_: completion(letter)) as server:
        content = ask(run, server)
    for judgement in endpoint_judgements(content):
        outcome = judgement["outcome"]
        assert outcome["all"]["share"] == 0.5
        assert outcome["over_runs"]["values"] == [0.5, 0.5, 0.5]
        assert outcome["in_front"] == (letter == "A")


def test_answers_that_name_none_are_counted_and_kept(run):
    def rambles(number, request):
        return completion("Hard to say.") if number < 5 else prefer_talk(number, request)

    with openai_server(rambles) as server:
        content = ask(run, server)
    found = endpoint_judgements(content)
    assert sum(j["outcome"]["all"]["unparsable"] for j in found) == 5
    for judgement in found:
        for verdict, answer in zip(judgement["verdicts"], judgement["answers"], strict=True):
            assert (verdict == "unparsable") == (answer == "Hard to say.")
        outcome = judgement["outcome"]["all"]
        assert outcome["n_pairs"] == outcome["first"] + outcome["second"] + outcome["unparsable"]


def test_answers_stay_when_the_built_in_judge_judges_again_and_are_never_asked_twice(run):
    with openai_server(prefer_talk) as server:
        content = ask(run, server)
        n_asked = len(server.received)
        again = judge(Options(run=run, n_pairs=6))
        assert endpoint_judgements(again) == endpoint_judgements(content)
        assert ask(run, server) == content
        assert len(server.received) == n_asked
    assert not any("sqlite" in name for name in read_manifest(run)["sha256"])


def test_the_cache_may_stand_elsewhere(run, tmp_path):
    with openai_server(prefer_talk) as server:
        ask(run, server, cache=tmp_path / "elsewhere" / "answers.sqlite")
    assert (tmp_path / "elsewhere" / "answers.sqlite").exists()
    assert not list(run.glob(".judge*"))


def test_the_key_is_nowhere_in_the_run(run, capfd):
    def tattles(number, request):
        del number
        return completion(f"A {request.authorization}")

    with openai_server(tattles) as server:
        ask(run, server)
    for path in run.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes()
    assert KEY not in "".join(capfd.readouterr())


# ----------------------------------------------------------------- on disk


def test_the_file_is_what_was_returned_and_the_run_vouches_for_it(run):
    content = judge(Options(run=run, n_pairs=6))
    path = run / "judge.json"
    assert json.loads(path.read_text()) == content
    manifest = read_manifest(run)
    assert manifest["sha256"]["judge.json"] == hash_file(path)
    for file, digest in content["episodes"].items():
        assert manifest["sha256"][file] == digest


def test_judging_again_changes_nothing_and_another_seed_other_pairs(run):
    judge(Options(run=run, n_pairs=6))
    before = (run / "judge.json").read_bytes()
    judge(Options(run=run, n_pairs=6))
    assert (run / "judge.json").read_bytes() == before
    other = judge(Options(run=run, n_pairs=6, seed=1))
    assert other["comparisons"] != json.loads(before)["comparisons"]


def test_a_judged_run_can_be_gone_on_with_and_finished_again(run):
    judge(Options(run=run, n_pairs=6))
    manifest = read_manifest(run)
    settings = from_jsonable(Settings, manifest["settings"])
    claim_folder(run, settings, label="", models={})
    assert "sha256" not in read_manifest(run)
    judge(Options(run=run, n_pairs=6))  # not finished: no hash to add
    assert "sha256" not in read_manifest(run)
    record_hashes(run)
    assert read_manifest(run)["sha256"] == manifest["sha256"]


def test_judgements_of_others_about_the_same_pairs_stay(run):
    options = Options(run=run, n_pairs=6)
    content = judge(options)
    foreign = content["judgements"][0] | {"judge": "endpoint", "model": "somebody"}
    content["judgements"].append(foreign)
    write_json(run / "judge.json", content)
    again = judge(options)
    assert again["judgements"][-1] == foreign
    assert len(again["judgements"]) == len(content["judgements"])
    other = judge(replace(options, seed=3))
    assert {judgement["judge"] for judgement in other["judgements"]} == {JudgeKind.BUILT_IN.value}


def test_a_broken_judge_file_is_not_overwritten(run):
    (run / "judge.json").write_text("{")
    with pytest.raises(ResultsError, match=r"judge\.json.*delete it and judge again"):
        judge(Options(run=run, n_pairs=6))
    assert (run / "judge.json").read_text() == "{"


# ----------------------------------------------------------------- in words


def test_the_tables_fit_80_columns(content):
    console = Console(width=80, force_terminal=True, color_system=None, file=io.StringIO())
    for table in to_tables(content):
        print_table(table, console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for words in ("10 / base", "bits-per-token", "compressed-bytes", "10 / 3"):
        assert words in text
    assert "…" not in text


def test_the_tables_say_what_is_on_record(content):
    better, complex_ = to_tables(content)
    assert len(better.rows) + len(complex_.rows) == len(content["judgements"])
    first = complex_.records[0]
    judgement = one(content, first["judge"], "10 nats against base policy")
    assert first["sides"] == "10 / base"
    outcome = judgement["outcome"]
    (row, *_) = flat_rows(complex_)
    assert row["share"] == outcome["all"]["share"]
    assert (row["pairs_low"], row["pairs_high"]) == (outcome["pairs_low"], outcome["pairs_high"])
    assert complex_.texts[0][2] == f"{100 * outcome['all']['share']:.1f}"
    tied = next(row for row in better.texts if row[:2] == ("10 / 3", "reward-per-reply"))
    assert tied == ("10 / 3", "reward-per-reply", "-", "-", "-", "60")


# ----------------------------------------------------------------- what is refused


def test_an_unfinished_run_is_refused_and_nothing_is_left(run, tmp_path):
    (run / "agents" / "exact-budget3-seed0" / "result.json").unlink()
    with pytest.raises(ResultsError, match=r"finish the run with `python -m llm_experiment\.run`"):
        judge(Options(run=run))
    with pytest.raises(ResultsError, match="name the folder of a run"):
        judge(Options(run=tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()


def test_missing_episodes_and_a_run_without_budgets_are_refused(run):
    (run / "base" / "episodes-60.npz").unlink()
    with pytest.raises(ResultsError, match=r"base/episodes-60\.npz is missing or has changed"):
        judge(Options(run=run, n_pairs=6))
    for path in run.glob("agents/*/result.json"):
        rows = json.loads(path.read_text())
        write_json(path, [row | {"variant": "no constraint"} for row in rows])
    record_hashes(run)
    with pytest.raises(ResultsError, match="no agent with a budget"):
        judge(Options(run=run, n_pairs=6))


def test_a_run_that_is_being_written_to_is_refused(run):
    with exclusive(run), pytest.raises(ResultsError, match="another process is writing"):
        judge(Options(run=run, n_pairs=6))


def test_options_are_validated(tmp_path):
    with pytest.raises(InvalidArgumentError, match="seed must be >= 0"):
        Options(run=tmp_path, seed=-1)
