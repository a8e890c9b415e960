import math

import numpy as np
import pytest

from llm_experiment.chat.features import FeatureReader
from llm_experiment.chat.veto_set import VetoForm
from llm_experiment.pessimism.audit import audited_sets, done_by, measure
from llm_experiment.pessimism.demonstrations import Demonstration
from llm_experiment.pessimism.learning import (
    Evidence,
    gather_evidence,
    make_veto_set,
    surest_alpha,
)
from tests.llm_experiment.chat.feature_oracle import features_by_text
from tests.llm_experiment.chat.test_veto_set import factors_by_text
from tests.llm_experiment.fakes.small_world import (
    COLON,
    NEWLINE,
    NO,
    PIECES,
    PLEASE,
    RULES,
    YES,
    S,
    T,
    TableBase,
    dialogue_table,
    small_world,
)
from theory.errors import InvalidArgumentError

WORLD = small_world()
N = len(PIECES)
READER = FeatureReader(WORLD.parser)
LENGTH = 30


def demonstrator_table():
    """Like the base policy, but T is never silent, and nobody says `please` after `yes`."""
    law = np.exp(dialogue_table())
    law[T, COLON, NEWLINE] = 0
    law[:, YES, PLEASE] = 0
    law /= law.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.log(law)


DEMONSTRATOR = TableBase(demonstrator_table())


def sample(seed, n):
    rng = np.random.default_rng(seed)
    law = np.exp(demonstrator_table())
    found = []
    for _ in range(n):
        tokens = [S, COLON]
        while len(tokens) < LENGTH:
            p = law[tokens[-2], tokens[-1]]
            tokens.append(int(rng.choice(N, p=p / p.sum())))
        length = LENGTH - len(found) % 3  # of unequal lengths
        found.append(Demonstration(tokens=np.array(tokens[:length])))
    return tuple(found)


DEMONSTRATIONS, HELD_OUT = sample(0, 12), sample(1, 5)
HARD = surest_alpha(READER.features, N)
ALPHAS = (0.02, HARD)
NUMBERS = (2, 12)


def stages():
    return [
        evidence.copy()
        for evidence in gather_evidence(WORLD.base, READER, DEMONSTRATIONS, stops=NUMBERS)
        if evidence.n_demonstrations in NUMBERS
    ]


def done(demonstrator):
    evidence = Evidence(READER.features, N)
    for transcripts in (DEMONSTRATIONS, HELD_OUT):
        for _ in done_by(
            READER, transcripts, demonstrator=demonstrator, begin_with=evidence, batch=4
        ):
            pass
    return evidence


def audited(demonstrator, *, alphas=ALPHAS, batch=2, form=VetoForm.SPIKE, members=()):
    does = done(demonstrator)
    sets = audited_sets(
        stages(), READER, alphas=alphas, form=form, done=does, device=WORLD.base.device
    )
    batches = []
    audit = measure(
        WORLD.base, READER, HELD_OUT, sets, done=does, demonstrator=demonstrator, members=members,
        batch=batch, on_batch=batches.append,
    )  # fmt: skip
    assert batches[-1] == len(HELD_OUT)
    return audit


# ----------------------------------------------------------------------- the slow way


def law(table, tokens):
    row = np.exp(np.asarray(table, dtype=float)[tuple([0, *tokens][-2:])])
    return row / row.sum()


def steps_of(transcripts):
    """Tokens before, features and token of every step of the agent."""
    for i, transcript in enumerate(transcripts):
        tokens = transcript.tokens.tolist()
        for t in range(1, len(tokens)):
            acts, values = features_by_text(tokens[:t], PIECES, RULES)
            if acts:
                yield i, tokens[:t], values, tokens[t]


def events_of(values, token):
    found = [(name, value, token) for name, value in values.items()]
    if token == NEWLINE:
        found += [(name, value, None) for name, value in values.items()]
    return found


def done_by_hand(*, law_known):
    """Events that are done, and those that could have been seen (their values were visited)."""
    does, visited = set(), set()
    for transcripts in (DEMONSTRATIONS, HELD_OUT):
        for _, before, values, token in steps_of(transcripts):
            p = law(demonstrator_table(), before)
            for x in range(N):
                if p[x] > 0 if law_known else x == token:
                    does |= set(events_of(values, x))
            visited |= set(values.items())
    return does, visited


def measured_by_hand(veto_set, *, law_known, members=()):
    """What a row must say, from a veto set's lines and, if there is one, a member's table."""
    does, visited = done_by_hand(law_known=law_known)
    seen = {c.feature: set(c.visited) for c in veto_set.coverage} if veto_set else None
    help_sum, n_steps, unseen, blocked = 0.0, 0, 0, 0
    completed, renormalised = (np.zeros(len(HELD_OUT)) for _ in range(2))
    never_price, other_price = (np.full(len(HELD_OUT), np.inf) for _ in range(2))
    for i, before, values, token in steps_of(HELD_OUT):
        b, tau = law(dialogue_table(), before), law(demonstrator_table(), before)
        text = "".join(PIECES[x] for x in before)
        r = np.array(factors_by_text(text, veto_set)) if veto_set else np.ones(N)
        least = np.min([b, *(law(member, before) for member in members)], axis=0)
        r *= np.divide(least, b, out=np.ones(N), where=b > 0)
        theta = float((b * (1 - r)).sum())
        n_steps += 1
        help_sum += theta
        unseen += bool(seen) and any(v not in seen[name] for name, v in values.items())
        blocked += r[token] == 0
        completed[i] += math.log((b[token] * r[token] + theta * tau[token]) / b[token])
        renormalised[i] += math.log(r[token] / (1 - theta)) if r[token] else 0.0
        for x in range(N):
            if not b[x] * r[x]:
                continue
            price = -math.log(b[x] * r[x])
            events = [e for e in events_of(values, x) if e[:2] in visited]
            if any(event not in does for event in events):
                never_price[i] = min(never_price[i], price)
            if tau[x] == 0:
                other_price[i] = min(other_price[i], price)
    return {
        "help_per_step": help_sum / n_steps,
        "unseen_share": unseen / n_steps,
        "n_blocked": blocked,
        "gain_completed_nats": completed.mean() if law_known else None,
        "gain_renormalised_nats": renormalised.mean(),
        "cheapest_never_nats": np.median(never_price),
        "cheapest_impossible_nats": np.median(other_price) if law_known else None,
    }


# ------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("law_known", [True, False])
def test_an_audit_measures_what_plain_loops_do(law_known):
    audit = audited(DEMONSTRATOR if law_known else None)
    assert (audit.n_dialogues, audit.law_known) == (len(HELD_OUT), law_known)
    assert audit.n_steps == len(list(steps_of(HELD_OUT)))
    veto_sets = [None] + [
        make_veto_set(evidence, READER, alpha=alpha) for evidence in stages() for alpha in ALPHAS
    ]
    assert len(audit.rows) == len(veto_sets)
    for row, veto_set in zip(audit.rows, veto_sets, strict=True):
        for name, value in measured_by_hand(veto_set, law_known=law_known).items():
            found = getattr(row, name)
            assert found is None if value is None else found == pytest.approx(value, abs=1e-5), name
        if veto_set is not None:
            assert (row.n_demonstrations, row.alpha) == (veto_set.n_demonstrations, veto_set.alpha)
            assert (row.is_hard, row.n_vetoes) == (veto_set.is_hard, len(veto_set.vetoes))


@pytest.mark.parametrize("law_known", [True, False])
def test_hard_sets_count_all_that_was_not_seen_and_what_of_it_is_done(law_known):
    does, _ = done_by_hand(law_known=law_known)
    rows = [row for row in audited(DEMONSTRATOR if law_known else None).rows if row.is_hard]
    for row, number in zip(rows, NUMBERS, strict=True):
        occurred, visited = set(), set()
        for _, _, values, token in steps_of(DEMONSTRATIONS[:number]):
            occurred |= set(events_of(values, token))
            visited |= set(values.items())
        vetoed = {(*v, x) for v in visited for x in [*range(N), None]} - occurred
        assert row.n_events == len(vetoed)
        assert row.n_false == len(vetoed & does)


def test_the_base_policy_as_it_is_needs_no_help_and_gains_nothing():
    plain = audited(DEMONSTRATOR).rows[0]
    assert (plain.help_per_step, plain.n_vetoes, plain.n_blocked) == (0.0, 0, 0)
    assert plain.gain_completed_nats == pytest.approx(0, abs=1e-12)
    assert math.isnan(plain.alpha)


def test_an_audit_does_not_depend_on_its_batches():
    one, other = (audited(DEMONSTRATOR, batch=batch) for batch in (1, 5))
    for row, same in zip(one.rows, other.rows, strict=True):
        for name, value in vars(row).items():
            assert getattr(same, name) == pytest.approx(value, nan_ok=True, abs=1e-9)


def shifted(source: int, share: float) -> np.ndarray:
    """A member that says "please" in place of a share of what the base policy gives `source`."""
    laws = np.exp(dialogue_table())
    laws[..., PLEASE] += share * laws[..., source]
    laws[..., source] *= 1 - share
    with np.errstate(divide="ignore"):
        return np.log(laws)


@pytest.mark.parametrize("sources", [(NEWLINE,), (NEWLINE, NO)])
def test_with_members_the_least_of_all_is_audited(sources):
    members = [shifted(source, 0.9) for source in sources]
    rows = audited(DEMONSTRATOR, alphas=(0.05,), members=list(map(TableBase, members))).rows
    veto_sets = [None] + [make_veto_set(evidence, READER, alpha=0.05) for evidence in stages()]
    assert rows[0].help_per_step > 0
    for row, veto_set in zip(rows, veto_sets, strict=True):
        by_hand = measured_by_hand(veto_set, law_known=True, members=members)
        for name, value in by_hand.items():
            assert getattr(row, name) == pytest.approx(value, abs=1e-5), name


def test_graded_vetoes_are_measured_as_plain_loops_do():
    alpha = 1e-3
    row = audited(DEMONSTRATOR, form=VetoForm.GRADED, alphas=(alpha,)).rows[2]
    graded = make_veto_set(stages()[1], READER, alpha=alpha, form=VetoForm.GRADED)
    assert row.n_vetoes == len(graded.vetoes) > 0
    for name, value in measured_by_hand(graded, law_known=True).items():
        assert getattr(row, name) == pytest.approx(value, abs=1e-5), name


def test_dialogues_without_the_agent_cannot_be_audited():
    nobody = (Demonstration(tokens=np.array([S, COLON, NO, NEWLINE])),)
    does = done(None)
    sets = audited_sets(
        [], READER, alphas=(), form=VetoForm.SPIKE, done=does, device=WORLD.base.device
    )
    with pytest.raises(InvalidArgumentError, match="the held-out dialogues have no step"):
        measure(
            WORLD.base, READER, nobody, sets, done=does, demonstrator=None, batch=2,
            on_batch=lambda _: None,
        )  # fmt: skip
