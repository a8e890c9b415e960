import json
import math
from dataclasses import replace

import pytest
import torch

from llm_experiment.chat.features import FEATURES, FeatureReader
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.chat.veto_set import (
    THE_END,
    FeatureCoverage,
    Veto,
    VetoForm,
    VetoSet,
    read_veto_set,
    vocabulary_hash,
    write_veto_set,
)
from tests.llm_experiment.chat.feature_oracle import features_by_text
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    NO,
    PIECES,
    PLEASE,
    RULES,
    YES,
    encode,
    small_world,
)
from theory.errors import InvalidArgumentError, ModelError, ResultsError

PARSER = small_world().parser
N = len(PIECES)
NAMES = [feature.name for feature in FEATURES]


def coverage(name, *, factor=1.0, end_factor=1.0, visited=()):
    return FeatureCoverage(
        feature=name, unvisited_factor=factor, unvisited_end_factor=end_factor, visited=visited
    )


def veto(feature, value_id, token_id, *, factor=0.0, **changes):
    named = {f.name: f for f in FEATURES}
    given = {
        "feature": feature,
        "value": named[feature].in_clear(value_id, PIECES),
        "token": THE_END if token_id is None else repr(PIECES[token_id]),
        "visits": 12,
        "occurrences": 0,
        "expected": 3.5,
        "log_never": -math.inf,
        "bits": 6.0,
        "weight": 0.75,
        "factor": factor,
        "value_id": value_id,
        "token_id": token_id,
    }
    return Veto(**(given | changes))


def veto_set(*vetoes, covered=None, **changes):
    given = {
        "alpha": 0.05,
        "form": VetoForm.SPIKE,
        "tokenizer": vocabulary_hash(PARSER),
        "n_tokens": N,
        "agent": "T",
        "partner": "S",
        "separator": "\n",
        "n_demonstrations": 3,
        "n_steps": 50,
        "coverage": tuple(map(coverage, NAMES)) if covered is None else covered,
        "vetoes": vetoes,
    }
    return VetoSet(**(given | changes))


SILENCE = veto("said_so_far", 0, None)
SOME = veto_set(
    SILENCE,
    veto("previous_token", YES, YES),
    veto("previous_two_tokens", NO * (N + 1) + NO, PLEASE, factor=0.25),
    veto("always", 0, COLON, factor=0.5),
)


def factors_by_text(text, given):
    """What multiplies every token after a text, by going through all vetoes."""
    acts, values = features_by_text(encode(text), PIECES, RULES)
    result = [1.0] * N
    if not acts:
        return result
    for one in given.vetoes:
        if values[one.feature] != one.value_id:
            continue
        for token in range(N):
            ends = PIECES[token].startswith("\n")
            if one.token_id == token or (one.token_id is None and ends):
                result[token] = min(result[token], one.factor)
    for one in given.coverage:
        seen = {v.value_id for v in given.vetoes if v.feature == one.feature} | set(one.visited)
        if values[one.feature] in seen:
            continue
        for token in range(N):
            ends = PIECES[token].startswith("\n")
            factor = one.unvisited_end_factor if ends else 1.0
            result[token] = min(result[token], one.unvisited_factor, factor)
    return result


TEXTS = (
    "S: no\nT:", "S: no\nT: yes", "S: no\nT: no no", "S: no\nT: no no\n", "S: no\nT: no\nS:",
    "S:\nT: yes\nS:\nT:", "S: yes\nT: yes\nS: no please\nT: yes yes please", "T", "",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_the_least_factor_of_all_vetoes_that_apply_multiplies_each_token(text):
    unlike = tuple(
        coverage(name, factor=0.125, end_factor=0.0, visited=(0, 1, 2))
        if name in ("said_so_far", "opening_after_own")
        else coverage(name)
        for name in NAMES
    )
    for given in (SOME, replace(SOME, coverage=unlike), veto_set(covered=unlike), veto_set()):
        compiled = given.compile(PARSER)
        tokens = torch.tensor([encode(text)], dtype=torch.int64)
        log_factors = compiled.log_factors(compiled.reader.read(tokens))
        assert log_factors.dtype is torch.float32
        assert log_factors.exp()[0].tolist() == pytest.approx(factors_by_text(text, given))


def test_silence_is_impossible_and_words_are_not():
    compiled = veto_set(SILENCE).compile(PARSER)
    state = compiled.reader.read(torch.tensor([encode("S: no\nT:"), encode("T: no\nS:")]))
    factors = compiled.log_factors(state)
    assert factors[0, NEWLINE] == -math.inf
    assert factors[0, YES] == 0
    assert factors[1].tolist() == [0.0] * N  # the partner may be silent


def test_unvisited_values_are_told_where_they_are_vetoed():
    covered = (
        coverage("said_so_far", factor=0.0, visited=(0, 1)),
        coverage("previous_token", visited=(COLON,)),
    )
    compiled = veto_set(covered=covered).compile(PARSER)
    texts = ("S: no\nT: yes", "S: no\nT: yes no", "T: yes no\nS:")
    found = [
        bool(compiled.are_unvisited(compiled.reader.read(torch.tensor([encode(text)]))))
        for text in texts
    ]
    assert found == [False, True, False]


# ---------------------------------------------------------------------------- the file


def test_a_file_says_what_was_written(tmp_path):
    path = tmp_path / "vetoes.json"
    hard = tuple(coverage(name, factor=0.0, end_factor=0.0, visited=(0, 3)) for name in NAMES)
    for given in (SOME, veto_set(), replace(SOME, coverage=hard, ending=(YES,))):
        write_veto_set(path, given)
        assert read_veto_set(path) == given
        assert json.loads(path.read_text())["alpha"] == 0.05


@pytest.mark.parametrize("which", range(len(SOME.vetoes)))
def test_deleting_a_line_lifts_that_veto(tmp_path, which):
    path = tmp_path / "vetoes.json"
    write_veto_set(path, SOME)
    lines = path.read_text().splitlines()
    (found,) = (
        i for i, line in enumerate(lines)
        if line.strip().startswith('{"feature": "' + SOME.vetoes[which].feature + '", "value"')
    )  # fmt: skip
    path.write_text("\n".join([*lines[:found], *lines[found + 1 :]]))
    rest = (*SOME.vetoes[:which], *SOME.vetoes[which + 1 :])
    assert read_veto_set(path) == replace(SOME, vetoes=rest)


def test_every_veto_has_a_line_in_clear(tmp_path):
    path = tmp_path / "vetoes.json"
    write_veto_set(path, SOME)
    (line,) = (line for line in path.read_text().splitlines() if "' no' ' no'" in line)
    assert json.loads(line.rstrip(","))["token"] == "' please'"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"alpha": 0.05', '"alpha": 0', r"alpha must lie in \(0, 1\], got 0"),
        ('"form": "spike"', '"form": "blunt"', "'blunt' is not a valid VetoForm"),
        ('"factor": 0.25', '"factor": 1.5', r"veto 3: .*factor must lie in \[0, 1\), got 1.5"),
        ('"visits": 12', '"visits": "many"', "veto 1: .*int is needed, got 'many'"),
        ('"feature": "always", "value"', '"feature": "mood", "value"', "names the feature 'mood'"),
        ('"feature": "always", "un', '"feature": "mood", "un', "must be some of always, .* mood"),
        ('"value_id": 0, "token_id": null', '"value_id": 4, "token_id": null', r"lie in 0\.\.3"),
        ('"token_id": 4', '"token_id": 7', r"token_id 7, which must lie in 0\.\.6"),
        ('"unvisited_factor": 1.0', '"unvisited_factor": 2.0', r"lie in \[0, 1\], got 2.0"),
        ('"n_steps": 50', '"n_stops": 50', "n_stops"),
        ("{", "[", "mend the line, or learn the vetoes again"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_one_line(tmp_path, old, new, message):
    path = tmp_path / "vetoes.json"
    write_veto_set(path, SOME)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ResultsError, match=message) as error:
        read_veto_set(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_veto_set_is_refused(tmp_path):
    path = tmp_path / "vetoes.json"
    with pytest.raises(ResultsError, match="there is no file"):
        read_veto_set(path)
    for text, message in (("[]", "is an object"), ('{"vetoes": 3}', "must be a list, got 3")):
        path.write_text(text)
        with pytest.raises(ResultsError, match=message):
            read_veto_set(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ResultsError, match="nested too deeply"):
        read_veto_set(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ResultsError, match="cannot read"):
        read_veto_set(path)


# ------------------------------------------------------------------------------ checks


def test_vetoes_of_another_tokenizer_are_refused():
    other = small_world(pieces=("\n", "T", "S", ":", " no", " yes", " please")).parser
    with pytest.raises(ModelError, match=r"learnt with another tokenizer .7 tokens, hash"):
        SOME.compile(other)


@pytest.mark.parametrize("rules", [TurnRules(agent="S", partner="T"), TurnRules(separator="\n\n")])
def test_vetoes_of_other_speakers_are_refused(rules):
    rules = replace(rules, agent=rules.agent[0], partner=rules.partner[0])
    other = TurnParser(rules, pieces=PIECES, encode=encode, decode=str)
    with pytest.raises(ModelError, match=r"the vetoes were learnt with (agent|separator) '"):
        SOME.compile(other)


def test_a_line_whose_words_are_not_its_numbers_is_refused():
    wrong = veto("previous_token", YES, YES, token="' no'")
    with pytest.raises(ModelError, match="says ' yes' and ' no', but its numbers mean ' yes' and"):
        veto_set(wrong).compile(PARSER)


def test_a_set_is_hard_if_it_vetoes_whatever_was_never_seen():
    hard = tuple(coverage(name, factor=0.0, end_factor=0.0) for name in NAMES)
    assert veto_set(covered=hard).is_hard
    assert not veto_set(covered=(*hard[:-1], coverage(NAMES[-1]))).is_hard


def test_a_veto_that_lifts_nothing_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"factor must lie in \[0, 1\), got 1"):
        veto("always", 0, YES, factor=1.0)


def test_the_reader_of_a_set_reads_the_features_that_it_covers():
    given = veto_set(covered=(coverage("said_so_far"), coverage("previous_token")))
    reader = given.compile(PARSER).reader
    assert isinstance(reader, FeatureReader)
    assert [feature.name for feature in reader.features] == ["said_so_far", "previous_token"]
