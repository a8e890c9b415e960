import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from llm_experiment.base.process import ProcessBase
from llm_experiment.chat.features import FeatureReader, find_features
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.chat.veto_set import VetoForm, read_veto_set
from llm_experiment.config import PROCESS, WorldConfig
from llm_experiment.pessimism import studies
from llm_experiment.pessimism.learning import gather_evidence
from llm_experiment.pessimism.studies import (
    Imitator,
    audit_vetoes,
    evidence_of,
    fingerprint,
    forget,
    load_imitator,
)
from llm_experiment.vetoes import main
from tests.llm_experiment.chat.feature_oracle import features_by_text
from tests.llm_experiment.fakes.tiny_hf import (
    byte_level_tokenizer,
    sentencepiece_tokenizer,
    tiny_model,
)
from theory.errors import InvalidArgumentError, ResultsError

DIALOGUES = (
    "Student: Hello?\nTeacher: Yes?\nStudent: No.\nTeacher: Okay.\nStudent:",
    "Student:\nTeacher: Hello?\nStudent: Yes.\nTeacher: Yes?\nStudent: No.\n",
    "Teacher: Hello?\nStudent: Yes?\nTeacher: No, no.\nStudent: Okay.\nTeacher: Yes.\nStudent:",
)


@pytest.fixture(scope="module")
def exact():
    """The classroom's process as its own imitator."""
    features = ("said_so_far", "opening_after_reply")
    return load_imitator(WorldConfig(base_model=PROCESS), features=features)


def made_up(imitator, n=6, **changes):
    options = {"n_dialogues": n, "n_tokens": 60, "n_silences": 0, "seed": 0}
    return imitator.demonstrations(None, **(options | changes))


def counted(evidence):
    return {
        name: (feature.values, feature.visits.tolist(), feature.sums("expected").tolist())
        for name, feature in evidence.features.items()
    }


# ------------------------------------------------------------------------ the pass


def test_the_evidence_at_each_stop_is_that_of_the_first_demonstrations(exact):
    transcripts = made_up(exact)
    found = evidence_of(exact, transcripts, stops=(5, 2), batch=4, partial=None)
    assert [evidence.n_demonstrations for evidence in found] == [2, 5]
    for evidence in found:
        number = evidence.n_demonstrations
        *_, alone = gather_evidence(exact.base, exact.reader, transcripts[:number], batch=1)
        for name, (values, visits, expected) in counted(evidence).items():
            others = alone.features[name]
            order = [others.values.index(value) for value in values]
            assert visits == others.visits[order].tolist()
            np.testing.assert_allclose(expected, others.sums("expected")[order], rtol=1e-12)


def test_a_pass_with_stops_goes_on_where_it_was_interrupted(exact, tmp_path, monkeypatch):
    transcripts = made_up(exact)
    options = {"stops": (2, 4, 6), "batch": 1, "partial": tmp_path / "audit.json"}
    whole = evidence_of(exact, transcripts, **(options | {"partial": None}))
    monkeypatch.setattr(studies, "SAVE_EVERY_SECONDS", 0.0)
    save, saved = studies.save_evidence, []

    def interrupted(path, evidence, **made_from):
        save(path, evidence, **made_from)
        saved.append(evidence.n_demonstrations)
        if evidence.n_demonstrations in (3, 5) and saved.count(evidence.n_demonstrations) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(studies, "save_evidence", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evidence_of(exact, transcripts, **options)
    found = evidence_of(exact, transcripts, **options)
    assert saved == [1, 2, 3, 4, 5, 6]  # nothing is read twice
    assert list(map(counted, found)) == list(map(counted, whole))
    # Until its result is written, what is finished is not read again either.
    assert list(map(counted, evidence_of(exact, transcripts, **options))) == list(
        map(counted, whole)
    )
    assert len(saved) == 6
    forget(options["partial"])
    assert list(tmp_path.iterdir()) == []


def test_what_evidence_is_of_has_a_fingerprint(exact):
    transcripts = made_up(exact)
    same = fingerprint(exact, transcripts, batch=4, stops=[6])
    assert same == fingerprint(exact, made_up(exact), batch=4, stops=[6])
    fewer = replace(exact, reader=FeatureReader(exact.reader.parser, exact.reader.features[:1]))
    others = {
        fingerprint(exact, transcripts, batch=3, stops=[6]),
        fingerprint(exact, transcripts, batch=4, stops=[5]),
        fingerprint(exact, made_up(exact, seed=1), batch=4, stops=[6]),
        fingerprint(replace(exact, name="other"), transcripts, batch=4, stops=[6]),
        fingerprint(fewer, transcripts, batch=4, stops=[6]),
        same,
    }
    assert len(others) == 6


def test_an_exact_imitator_is_not_vetoed_falsely(exact):
    transcripts, held_out = made_up(exact, 12), made_up(exact, 4, seed=1)
    audit = audit_vetoes(
        exact, transcripts, held_out, numbers=(3, 12), alphas=(0.05,), form=VetoForm.SPIKE,
        law_known=True, batch=4, partial=None,
    )  # fmt: skip
    for row in audit.rows:
        assert (row.n_vetoes, row.n_false, row.n_blocked, row.help_per_step) == (0, 0, 0, 0.0)
        assert row.cheapest_impossible_nats == np.inf
    with pytest.raises(InvalidArgumentError, match=r"must lie in 1\.\.12, got 13"):
        audit_vetoes(
            exact, transcripts, held_out, numbers=(13,), alphas=(0.05,), form=VetoForm.SPIKE,
            law_known=True, batch=4, partial=None,
        )  # fmt: skip


# ------------------------------------------------------------------- other tokenizers


def byte_pairs():
    return byte_level_tokenizer("\n".join(DIALOGUES), vocab_size=300)


def sentencepiece():
    return sentencepiece_tokenizer("\n".join(DIALOGUES), vocab_size=300)


@pytest.mark.parametrize("make", [byte_pairs, sentencepiece])
def test_silence_is_made_impossible_with_any_tokenizer_of_a_model(make, tmp_path, capsys):
    tokenizer = make()
    n_tokens = len(tokenizer) + 5  # rows without a token, as many models have
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    model = tiny_model("llama, tied", n_tokens=n_tokens)
    model.config.max_position_embeddings = 512
    model.save_pretrained(folder)
    file = tmp_path / "dialogues.jsonl"
    file.write_text("\n".join(json.dumps({"transcript": text}) for text in DIALOGUES))
    named = ["said_so_far", "opening_after_reply", "always"]
    imitator = load_imitator(WorldConfig(base_model=str(folder)), features=named)
    transcripts = imitator.demonstrations(file, n_dialogues=1, n_tokens=2, n_silences=0, seed=0)
    (evidence,) = evidence_of(imitator, transcripts, batch=2, partial=None)
    # What was counted is what the texts say.
    pieces = imitator.reader.parser.pieces
    steps = 0
    for dialogue in transcripts:
        row = dialogue.tokens.tolist()
        for t in range(1, len(row)):
            steps += features_by_text(row[:t], pieces, imitator.rules)[0]
    assert evidence.n_steps == steps
    out = tmp_path / "vetoes.json"
    main(["--base-model", str(folder), "--demonstrations", str(file), "--out", str(out), "--hard",
          "--features", *named])  # fmt: skip
    assert "said_so_far" in capsys.readouterr().out
    compiled = read_veto_set(out).compile(imitator.reader.parser)
    opening = tokenizer.encode(DIALOGUES[0].partition(" Yes")[0], add_special_tokens=False)
    log_factors = compiled.log_factors(compiled.reader.read(torch.tensor([opening])))[0]
    assert torch.isneginf(log_factors[compiled.reader.ends]).all()
    assert compiled.reader.ends.any()


def test_a_process_of_other_words_makes_nothing_up():
    words = ("\n", "Teacher", "Student", ":", " yes")
    parser = TurnParser(
        TurnRules(),
        pieces=words,
        encode=lambda text: {
            "\nTeacher:": [0, 1, 3], "\nStudent:": [0, 2, 3],
        }[text],
        decode=str,
    )  # fmt: skip
    loaded = load_imitator(WorldConfig(base_model=PROCESS))
    other = Imitator(
        base=ProcessBase(loaded.process),
        tokenizer=loaded.tokenizer,
        reader=FeatureReader(parser, find_features(["always"], 5)),
        process=loaded.process,
        name="other",
    )
    with pytest.raises(InvalidArgumentError, match=r"own \d+ words, which are not .* 5 tokens"):
        made_up(other)


def test_a_dialogue_that_the_model_cannot_read_is_refused_by_its_line(exact, tmp_path):
    file = tmp_path / "dialogues.jsonl"
    texts = ("Student: Hello?\nTeacher: Yes?\n", "Student: No.\nTeacher: No.\nStudent: Okay.\n")
    file.write_text("\n".join(json.dumps({"transcript": text}) for text in texts))
    short = replace(exact, most_tokens=10)
    with pytest.raises(ResultsError, match=r"line 2: the dialogue has 15 tokens; .* reads 10 at"):
        short.demonstrations(file, n_dialogues=1, n_tokens=2, n_silences=0, seed=0)


def test_a_file_in_which_the_agent_has_no_turn_is_refused(exact, tmp_path):
    file = tmp_path / "dialogues.jsonl"
    file.write_text(json.dumps({"transcript": "Student: Hello?\nStudent: No.\n"}))
    with pytest.raises(InvalidArgumentError, match=r"no demonstration has .* 'Teacher:'; name"):
        exact.demonstrations(file, n_dialogues=1, n_tokens=2, n_silences=0, seed=0)
