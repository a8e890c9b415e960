import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from llm_experiment.base.process import ProcessBase
from llm_experiment.chat.features import FEATURES, FeatureReader, find_features
from llm_experiment.chat.veto_set import THE_END, VetoForm, read_veto_set, write_veto_set
from llm_experiment.pessimism.demonstrations import Demonstration, sample_demonstrations
from llm_experiment.pessimism.learning import (
    Evidence,
    event_factors,
    gather_evidence,
    judge_events,
    load_evidence,
    make_veto_set,
    save_evidence,
    surest_alpha,
)
from tests.llm_experiment.chat.feature_oracle import features_by_text
from tests.llm_experiment.chat.screenplays import PROCESS
from tests.llm_experiment.chat.screenplays import parser as classroom_parser
from tests.llm_experiment.fakes.small_world import (
    NEWLINE,
    PIECES,
    RULES,
    encode,
    small_world,
)
from theory.errors import InvalidArgumentError, ResultsError
from theory.vetoes import EventEvidence, never_weights

WORLD = small_world()
N = len(PIECES)
READER = FeatureReader(WORLD.parser)
TEXTS = (
    "S: no\nT: yes no\nS: no\nT: yes no\nS:",
    "T: no\nS: no\nT: no please\nS: yes\nT: yes",
    "S:\nT: yes\nS: yes\nT: yes\nS: no\n",
    "S: no please\nT: no no no no no\nS: yes yes\nT: yes",
    "T: yes\nS:\nT: no yes",
)
DEMONSTRATIONS = tuple(Demonstration(tokens=np.array(encode(text))) for text in TEXTS)


def by_hand(texts=TEXTS, n_given=0):
    """Visits, and occurrences, expectations and ln m of every event, in plain loops.

    Keys are (feature, value) and (feature, value, token), with None for the end of the turn.
    """
    visits, occurred = Counter(), Counter()
    expected, log_never = defaultdict(float), defaultdict(float)
    table = WORLD.base.table.double()
    for text in texts:
        tokens = encode(text)
        for t in range(max(1, n_given), len(tokens)):
            acts, values = features_by_text(tokens[:t], PIECES, RULES)
            if not acts:
                continue
            b = table[(*[0, *tokens[:t]][-2:],)].exp()
            b = (b / b.sum()).tolist()
            for feature, value in values.items():
                visits[feature, value] += 1
                for token in [*range(N), None]:
                    event = feature, value, token
                    p = b[NEWLINE] if token is None else b[token]
                    expected[event] += p
                    log_never[event] += math.log1p(-p) if p < 1 else -math.inf
                    occurred[event] += tokens[t] == (NEWLINE if token is None else token)
    return visits, occurred, expected, log_never


def gathered(transcripts=DEMONSTRATIONS, **options):
    *_, evidence = gather_evidence(WORLD.base, READER, transcripts, **options)
    return evidence


def assert_equal(one, other, *, rtol=0.0):
    assert (one.n_demonstrations, one.n_steps) == (other.n_demonstrations, other.n_steps)
    for name, feature in one.features.items():
        theirs = other.features[name]
        order = [theirs.values.index(value) for value in feature.values]
        assert len(theirs.values) == len(feature.values)
        assert feature.visits.tolist() == theirs.visits[order].tolist()
        for key in ("occurrences", "expected", "log_never"):
            np.testing.assert_allclose(feature.sums(key), theirs.sums(key)[order], rtol=rtol)


# ---------------------------------------------------------------------------- counting


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_events_are_counted_as_by_hand(batch):
    evidence = gathered(batch=batch)
    visits, occurred, expected, log_never = by_hand()
    assert evidence.n_demonstrations == len(TEXTS)
    assert evidence.n_steps == visits["always", 0]
    found = 0
    for name, feature in evidence.features.items():
        assert set(feature.values) == {value for f, value in visits if f == name}
        for i, value in enumerate(feature.values):
            assert feature.visits[i] == visits[name, value]
            for column, token in enumerate([*range(N), None]):
                event = name, value, token
                found += 1
                assert feature.sums("occurrences")[i, column] == occurred[event]
                assert feature.sums("expected")[i, column] == pytest.approx(expected[event])
                assert feature.sums("log_never")[i, column] == pytest.approx(log_never[event])
    assert found == len(expected)


def test_evidence_grows_by_batches_and_stops_where_it_is_told():
    numbers, steps = [], []
    for evidence in gather_evidence(WORLD.base, READER, DEMONSTRATIONS, stops=[1, 3], batch=2):
        numbers.append(evidence.n_demonstrations)
        steps.append(evidence.n_steps)
    assert numbers == [1, 2, 3, 4, 5]
    for number, n_steps in zip(numbers, steps, strict=True):
        assert n_steps == by_hand(TEXTS[:number])[0]["always", 0]


def test_a_pass_that_was_interrupted_goes_on_to_the_same_evidence(tmp_path):
    path = tmp_path / "some.npz"
    whole = gathered(batch=2)
    parts = gather_evidence(WORLD.base, READER, DEMONSTRATIONS, batch=2)
    save_evidence(path, next(parts), made_from="these")
    assert load_evidence(path, made_from="others") is None
    begun = load_evidence(path, made_from="these")
    assert begun.n_demonstrations == 2
    assert_equal(gathered(batch=2, begin_with=begun), whole)
    assert load_evidence(tmp_path / "absent.npz", made_from="these") is None
    path.write_bytes(b"PK\x03\x04 half")
    with pytest.raises(ResultsError, match=r"cannot go on with .*some.npz.*; delete it to begin"):
        load_evidence(path, made_from="these")


def test_what_was_given_is_read_and_is_no_evidence():
    n_given = 6
    given = [Demonstration(tokens=one.tokens, n_given=n_given) for one in DEMONSTRATIONS]
    evidence = gathered(given)
    visits, occurred, _, _ = by_hand(n_given=n_given)
    assert 0 < evidence.n_steps == visits["always", 0] < gathered().n_steps
    always = evidence.features["always"].sums("occurrences")[0]
    assert always.tolist() == [occurred["always", 0, token] for token in [*range(N), None]]


def test_the_order_of_demonstrations_does_not_matter():
    assert_equal(gathered(DEMONSTRATIONS[::-1]), gathered(), rtol=1e-12)


def test_evidence_of_the_first_token_alone_is_none():
    transcripts = [Demonstration(tokens=np.array(encode("S: no\n")))]
    evidence = gathered(transcripts)
    assert (evidence.n_demonstrations, evidence.n_steps) == (1, 0)
    with pytest.raises(InvalidArgumentError, match="have no step of the agent; name it"):
        make_veto_set(evidence, READER, alpha=0.5)


# ----------------------------------------------------------------------------- judging


def test_an_event_is_vetoed_if_its_posterior_reaches_alpha():
    alpha = 0.05
    visits, occurred, _, log_never = by_hand()
    judged = judge_events(gathered(), READER, alpha=alpha, form=VetoForm.SPIKE)
    vetoed = 0
    for feature in READER.features:
        values = gathered().features[feature.name].values
        for i, value in enumerate(values):
            for column, token in enumerate([*range(N), None]):
                event = feature.name, value, token
                s = 2 ** -feature.event_bits(N, ends=token is None)
                w = 0 if occurred[event] else s / (s + (1 - s) * math.exp(log_never[event]))
                assert judged[feature.name].factors[i, column] == (0 if w >= alpha else 1), event
                vetoed += w >= alpha
    assert 0 < vetoed < sum(len(f.values) for f in gathered().features.values()) * (N + 1)
    assert visits["always", 0]


def test_at_the_surest_alpha_all_that_never_occurred_is_vetoed_and_nothing_else():
    alpha = surest_alpha(READER.features, N)
    _, occurred, _, _ = by_hand()
    evidence = gathered()
    veto_set = make_veto_set(evidence, READER, alpha=alpha)
    assert veto_set.is_hard
    compiled = veto_set.compile(WORLD.parser)
    for text in TEXTS:
        tokens = encode(text)
        for t in range(1, len(tokens)):
            acts, values = features_by_text(tokens[:t], PIECES, RULES)
            log_factors = compiled.log_factors(compiled.reader.read(torch.tensor([tokens[:t]])))[0]
            for token in range(N):
                events = [(name, value, token) for name, value in values.items()]
                if token == NEWLINE:
                    events += [(name, value, None) for name, value in values.items()]
                never = acts and any(not occurred[event] for event in events)
                assert (log_factors[token] == -math.inf) == never


def test_no_demonstrated_token_is_vetoed_in_the_demonstrations_themselves():
    for alpha in (surest_alpha(READER.features, N), 0.05, 0.9):
        compiled = make_veto_set(gathered(), READER, alpha=alpha).compile(WORLD.parser)
        for dialogue in DEMONSTRATIONS:
            state = compiled.reader.begin(1)
            for token in torch.from_numpy(dialogue.tokens):
                assert compiled.log_factors(state)[0, token] == 0
                state = compiled.reader.advance(state, token[None])


def test_vetoes_that_a_broader_one_implies_are_left_out_and_nothing_changes():
    evidence = gathered()
    for alpha in (surest_alpha(READER.features, N), 1e-4, 0.02):
        veto_set = make_veto_set(evidence, READER, alpha=alpha)
        judged = judge_events(evidence, READER, alpha=alpha, form=VetoForm.SPIKE)
        implied = sum((j.factors == 0).sum() for j in judged.values()) - len(veto_set.vetoes)
        assert implied > 0
        everywhere = {v.token_id for v in veto_set.vetoes if v.feature == "always"}
        for veto in veto_set.vetoes:
            assert veto.feature == "always" or veto.token_id not in everywhere


def test_a_veto_says_what_was_counted():
    visits, occurred, expected, log_never = by_hand()
    veto_set = make_veto_set(gathered(), READER, alpha=0.05)
    assert [v.expected for v in veto_set.vetoes] == sorted(
        (v.expected for v in veto_set.vetoes), reverse=True
    )
    named = {feature.name: feature for feature in FEATURES}
    for veto in veto_set.vetoes:
        event = veto.feature, veto.value_id, veto.token_id
        assert veto.visits == visits[event[:2]]
        assert (veto.occurrences, occurred[event]) == (0, 0)
        assert veto.expected == pytest.approx(expected[event])
        assert veto.bits == named[veto.feature].event_bits(N, ends=veto.token_id is None)
        weight = never_weights([2**-veto.bits], [math.exp(log_never[event])], [0])[0]
        assert veto.weight == pytest.approx(weight)
        clear = THE_END if veto.token_id is None else repr(PIECES[veto.token_id])
        assert veto.token == clear
        assert veto.value == named[veto.feature].in_clear(veto.value_id, PIECES)


def test_a_learnt_set_is_what_its_file_says(tmp_path):
    veto_set = make_veto_set(gathered(), READER, alpha=surest_alpha(READER.features, N))
    write_veto_set(tmp_path / "vetoes.json", veto_set)
    assert read_veto_set(tmp_path / "vetoes.json") == veto_set


def test_one_occurrence_lifts_a_spike_and_weakens_a_graded_veto():
    # b expected a thousand: never, twice, as often.
    evidence = EventEvidence(
        bits=np.full(3, 6.0),
        visits=np.full(3, 40_000),
        occurrences=np.array([0, 2, 1000]),
        expected=np.full(3, 1000.0),
        log_never=np.full(3, -1012.0),
    )
    spike = event_factors(evidence, alpha=0.05, form=VetoForm.SPIKE)
    graded = event_factors(evidence, alpha=0.05, form=VetoForm.GRADED)
    assert spike.tolist() == [0.0, 1.0, 1.0]
    assert graded.tolist() == [0.0, 2.0**-11, 1.0]


def test_a_subset_of_the_features_can_be_learnt():
    reader = FeatureReader(WORLD.parser, find_features(["said_so_far", "always"], N))
    *_, evidence = gather_evidence(WORLD.base, reader, DEMONSTRATIONS)
    assert list(evidence.features) == ["always", "said_so_far"]
    veto_set = make_veto_set(evidence, reader, alpha=0.05)
    assert {veto.feature for veto in veto_set.vetoes} <= {"always", "said_so_far"}


def test_nobody_is_judged_without_evidence():
    with pytest.raises(InvalidArgumentError, match="no step of the agent"):
        make_veto_set(Evidence(FEATURES, N), READER, alpha=0.05)


# --------------------------------------------------------------- the demonstrator itself


def test_the_process_as_its_own_imitator_is_hardly_ever_vetoed_in_what_it_does():
    # b is tau: by theory.vetoes the expected number of false vetoes is at most this bound.
    parser = classroom_parser()
    reader = FeatureReader(parser, find_features(["said_so_far", "opening_after_reply"], 129))
    transcripts = sample_demonstrations(
        PROCESS, np.random.default_rng(0), n_dialogues=20, n_tokens=128,
        agent="Teacher", partner="Student",
    )  # fmt: skip
    *_, evidence = gather_evidence(ProcessBase(PROCESS), reader, transcripts)
    judged = judge_events(evidence, reader, alpha=0.05, form=VetoForm.SPIKE)
    assert all((j.factors == 1).all() for j in judged.values())
    # It never expects silence of the Teacher.
    row = evidence.features["said_so_far"].values.index(0)
    assert evidence.features["said_so_far"].sums("expected")[row, -1] == 0
