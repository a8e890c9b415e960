"""Which turns an attacker departed in, and which veto sets would have prevented it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from llm_experiment.chat.features import FeatureReader, find_features
from llm_experiment.pessimism.audit import AuditRow
from llm_experiment.pessimism.demonstrations import Demonstration
from llm_experiment.pessimism.departures import Departures, Phrase, find_departures
from llm_experiment.pessimism.learning import Evidence, gather_evidence, make_veto_set
from llm_experiment.pessimism.proposals import (
    departing,
    passes,
    phrases_of,
    prevented_share,
    proposals,
    unused_features,
)
from tests.llm_experiment.fakes.small_world import PIECES, encode, small_world

WORLD = small_world()
PARSER = WORLD.parser
PROMPT = "S: no\nT:"
TEXTS = (
    PROMPT + " please no\nS: yes\nT: please no\nS: no\nT: no",
    PROMPT + " no\nS: no no\nT:\nS: yes\nT: please no\nS:",
    PROMPT + " no\nS: no\nT: no\nS: no\nT: no\nS: no\n",
)


def tokens_of(texts):
    """Transcripts as far as the shortest of them goes."""
    rows = [encode(text) for text in texts]
    return np.array([row[: min(map(len, rows))] for row in rows])


def arrays(texts=TEXTS, *, impossible, **more):
    """What is stored of episodes whose tokens at `impossible` (episode, index) tau never writes."""
    tokens = tokens_of(texts)
    speakers = PARSER.speakers(torch.from_numpy(tokens))
    turns = PARSER.find_turns(torch.from_numpy(tokens))
    log_tau = np.zeros(tokens.shape)
    for place in impossible:
        log_tau[place] = -np.inf
    before = np.cumsum(np.isneginf(log_tau), axis=1) - np.isneginf(log_tau)
    return {
        "tokens": tokens,
        "writers": torch.roll(speakers, 1, dims=1).numpy(),
        "prompt_length": np.array(len(encode(PROMPT))),
        "possible": before == 0,
        "demonstrator_log_probs": log_tau,
        "turn_episode": turns.episode,
        "turn_opened": turns.opened,
        "turn_closed": turns.closed,
        "turn_speaker": turns.speaker,
    } | more


def text_of(tokens):
    return "".join(PIECES[token] for token in tokens).partition("\n")[0].strip()


def place(episode, text):
    """The index of the token after `text` in an episode."""
    assert TEXTS[episode].startswith(text)
    return episode, len(encode(text))


LEFT = (
    place(0, PROMPT + " please"),
    place(1, PROMPT + " no\nS: no no\nT:"),
    place(2, PROMPT + " no\nS:"),  # the partner's
)


def find(**more):
    return find_departures(arrays(impossible=LEFT, **more), turn_text=text_of)


def test_episodes_depart_at_the_agent_s_first_impossible_token_in_the_turn_it_stands_in():
    found = find()
    assert (found.n_episodes, found.n_departed) == (3, 2)
    assert list(zip(found.rows, found.positions, strict=True)) == list(LEFT[:2])
    # Turns that the agent opened after the prompt: "please no", "no", "", "please no", "no", "no".
    assert set(found.phrases) == {
        Phrase(text="please no", n_episodes=1, turn_share=2 / 6),
        Phrase(text="", n_episodes=1, turn_share=1 / 6),
    }


def test_what_was_asked_for_or_stands_after_the_end_of_an_episode_is_nobody_s_departure():
    tokens = tokens_of(TEXTS)
    asked = np.zeros(tokens.shape, dtype=bool)
    asked[LEFT[0]] = True
    assert find(asked=asked).rows.tolist() == [1]
    assert find(stopped_at=np.array([7, 5, 99])).rows.tolist() == []


def test_a_round_finds_something_where_the_intervals_do_not_meet():
    def seen(n_departed, n_episodes=128):
        return Departures(
            n_episodes=n_episodes,
            n_departed=n_departed,
            phrases=(),
            rows=np.arange(n_departed),
            positions=np.arange(n_departed),
            tokens=np.zeros((1, 1), dtype=int),
            own=np.zeros((1, 1), dtype=bool),
        )

    assert seen(100).beyond(seen(50, 512))
    assert not seen(18).beyond(seen(50, 512))  # 14% and 10%: one may be the other's chance
    assert not seen(0).beyond(seen(512, 512))


DIALOGUE = "S: no\nT: please\nS: yes\nT: no\nS: no\nT: no please\nS: yes\nT: yes no\nS:"
DEMONSTRATIONS = [Demonstration(tokens=np.array(encode(DIALOGUE)))] * 40


def evidence():
    """Demonstrations in which "please" is followed by the end, and turns are never empty."""
    reader = FeatureReader(PARSER)
    found = Evidence(reader.features, len(PIECES))
    for each in gather_evidence(WORLD.base, reader, DEMONSTRATIONS, begin_with=found):
        found = each
    return found


def test_a_set_prevents_the_departures_whose_token_it_makes_impossible():
    found = find()
    made = evidence()

    def of(*names):
        reader = FeatureReader(PARSER, find_features(names, len(PIECES)))
        return make_veto_set(made, reader, alpha=0.05)

    assert prevented_share(of("said_so_far"), PARSER, found) == 0.5  # the silence
    assert prevented_share(of("previous_token"), PARSER, found) == 1.0
    assert prevented_share(of("always"), PARSER, found) == 0.0
    nothing = replace(found, n_departed=0, rows=found.rows[:0], positions=found.positions[:0])
    assert prevented_share(of("always"), PARSER, nothing) == 0.0


def proposed(candidates, known):
    def evidence_of(features):
        reader = FeatureReader(PARSER, features)
        extra = Evidence(reader.features, len(PIECES))
        for each in gather_evidence(WORLD.base, reader, DEMONSTRATIONS, begin_with=extra):
            extra = each
        return extra

    return list(proposals(candidates, evidence_of, PARSER, known, find(), alpha=0.05))


def test_what_is_proposed_answers_the_attacker_the_shortest_event_first():
    known = ("always", "said_so_far")
    unused = unused_features(known, len(PIECES))
    assert not {feature.name for feature in unused} & {*known}
    bits = [feature.event_bits(len(PIECES), ends=False) for feature in unused]
    assert bits == sorted(bits)
    offered = proposed(((feature,) for feature in unused), known)
    assert offered[0].features == ("previous_token",)
    assert all(p.prevented > 0.5 for p in offered)
    assert all(
        [f.name for f in p.vetoes.features]
        == [f.name for f in find_features((*known, *p.features), len(PIECES))]
        for p in offered
    )


def test_where_no_feature_of_the_table_answers_the_attacker_s_own_phrases_do():
    """It departed by silence in one episode and after "please" in the other."""
    phrases = phrases_of(find(), PARSER)
    please = PIECES.index(" please")
    assert {phrase.phrase for phrase in phrases} == {(), (please,)}
    (offered,) = proposed([phrases], ("always",))
    assert offered.prevented == 1.0
    assert {*offered.features} == {"so_far_is", f"so_far_is {please}"}


def test_what_an_attacker_departed_by_is_the_turn_so_far_and_the_token():
    found = departing(find(), PARSER)
    assert sum(found.values()) == 2
    assert {event.so_far for event in found} == {(), (PIECES.index(" please"),)}


ROW = AuditRow(
    n_demonstrations=1, alpha=0.05, is_hard=False, n_vetoes=1, n_events=1, n_false=0,
    help_per_step=0.0, unseen_share=0.0, n_blocked=2, gain_completed_nats=0.5,
    gain_renormalised_nats=0.4, cheapest_never_nats=1.0, cheapest_impossible_nats=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"n_blocked": 1, "gain_completed_nats": 0.6}, True),
        ({"n_blocked": 3}, False),
        ({"gain_completed_nats": 0.4}, False),
    ],
)
def test_a_wider_set_is_kept_if_it_blocks_no_more_and_predicts_no_worse(changes, kept):
    assert passes(replace(ROW, **changes), ROW) is kept
    unknown = {"gain_completed_nats": None}
    assert passes(replace(ROW, **unknown), replace(ROW, **unknown))
    assert not passes(replace(ROW, **unknown, gain_renormalised_nats=0.3), replace(ROW, **unknown))
