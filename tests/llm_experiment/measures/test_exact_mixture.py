"""Prices under the exact mixture and the quiz's game, against the base policy itself."""

import math

import numpy as np
import pytest
import torch

from llm_experiment.base.mixture import (
    SWITCH_AFTER,
    default_demonstrations,
    default_mixture,
    family,
    mixture_base,
    phrase_tokens,
)
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.dialogue.tasks.quiz import GOES_ON
from llm_experiment.measures.exact_mixture import (
    always_bound_nats,
    contexts_around,
    mixture_prices,
    quiz_game,
)
from theory.errors import InvalidArgumentError

QUIZ = load_task("quiz")
PROCESS = DialogueProcess(QUIZ)
SWITCH = 64
MEMBERS = family(QUIZ, switch_after=SWITCH)


@pytest.fixture(scope="module")
def demonstrations() -> np.ndarray:
    return PROCESS.sample(np.random.default_rng(5), 20, SWITCH, speakers=("Host", "Player"))


@pytest.fixture(scope="module")
def contexts() -> tuple[list[np.ndarray], list[np.ndarray]]:
    return contexts_around(PROCESS, np.random.default_rng(6), n=3, token=SWITCH, n_tokens=100)


def played_nats(base, start, tokens) -> float:
    """`-log b` of tokens after a start, token by token."""
    session, step = base.begin(torch.from_numpy(start), n_episodes=1, n_positions=400)
    total = 0.0
    for token in tokens:
        total -= float(step.log_probs[0, token])
        step = session.append(torch.tensor([token]))
    return total


def test_contexts_end_where_the_agent_is_to_speak_before_and_after(contexts):
    before, after = contexts
    for early, late in zip(before, after, strict=True):
        assert len(early) < SWITCH <= len(late)
        assert PROCESS.decode(early).endswith("\nPlayer:")
        assert PROCESS.decode(late).endswith("\nPlayer:")
        # No such place between them.
        assert PROCESS.decode(late[len(early) : -2]).count("Player:") == 0


def test_prices_are_the_base_policys_own(contexts, demonstrations):
    turn = list(phrase_tokens(PROCESS))
    for group in contexts:
        prices = mixture_prices(MEMBERS, group, demonstrations, numbers=(0, 7))
        for price in prices:
            learnt = demonstrations[: price.n_demonstrations]
            base = mixture_base(MEMBERS, demonstrations=learnt)
            own = [played_nats(base, context, turn) for context in group]
            assert price.price_nats == pytest.approx(float(np.median(own)), abs=1e-4)
            assert price.bound_nats >= price.price_nats - 1e-12
            assert price.weight_nats <= price.bound_nats


def test_after_the_demonstrations_length_the_price_is_flat_and_before_it_is_not(
    contexts, demonstrations
):
    before, after = (
        mixture_prices(MEMBERS, group, demonstrations, numbers=(1, 20)) for group in contexts
    )
    assert before[1].price_nats > before[0].price_nats + 3
    assert after[1].price_nats <= after[0].price_nats
    assert after[1].member == "from token 64 on in style both"
    # Where tau's weight is nearly all, the bound is the switch's description beside tau's.
    delta = (MEMBERS[3].bits - MEMBERS[0].bits) * math.log(2)
    assert after[1].weight_nats == pytest.approx(delta, abs=0.1)


@pytest.mark.parametrize("name", ["classroom", "errands", "flattery", "support_desk"])
def test_in_every_task_the_price_after_the_demonstrations_length_is_that_of_a_description(name):
    """Whatever tau said before: a switch that this ruled out would have no part in the price."""
    task = load_task(name)
    members = family(task, switch_after=SWITCH)
    process, rng = members[0].process, np.random.default_rng(7)
    groups = contexts_around(process, rng, n=4, token=SWITCH, n_tokens=160)
    learnt = process.sample(rng, 100, SWITCH, speakers=(task.partner, task.agent))
    before, after = (mixture_prices(members, group, learnt, numbers=(100,))[0] for group in groups)
    assert before.price_nats > 30
    assert after.member.startswith(f"from token {SWITCH} on in style")
    # Only tau and those that switch from it are left.
    weights = [2.0**-m.bits for m in members if m is members[0] or m.switch_after is not None]
    assert after.weight_nats == pytest.approx(math.log(sum(weights) / weights[-1]), abs=1e-6)


def test_more_demonstrations_than_there_are_are_refused(contexts, demonstrations):
    with pytest.raises(InvalidArgumentError, match="there are 20 demonstrations, got 21"):
        mixture_prices(MEMBERS, contexts[0], demonstrations, numbers=(1, 21))
    with pytest.raises(InvalidArgumentError, match="no turn of Player begins before and after"):
        contexts_around(PROCESS, np.random.default_rng(0), n=1, token=64, n_tokens=60)


def test_the_game_has_the_base_policys_own_probabilities():
    members = family(QUIZ, switch_after=SWITCH_AFTER)
    game = quiz_game(members, n_tokens=256, demonstrations=default_demonstrations(QUIZ))
    base = default_mixture(QUIZ)
    prompt = PROCESS.prompt
    (both, *_) = phrase_tokens(PROCESS)
    # Other answers and other replies than the game's own: they make no difference.
    exchange = PROCESS.encode(f"{QUIZ.prompt} Salt.\nHost: Wrong, red or blue?\nPlayer:")
    exchange = exchange[len(prompt) :]
    assert len(game.first) == (256 - len(prompt)) // len(exchange)
    for turn in (0, 1, 9, 10):
        context = np.concatenate([prompt, *[exchange] * turn])
        nats = played_nats(base, context, [both])
        assert -math.log(game.first[turn]) == pytest.approx(nats, abs=1e-4)
    # Once said, it is said again with the same probability, whatever follows.
    said = PROCESS.encode(f"{QUIZ.prompt} Both.\nHost: Right, red or blue?\nPlayer:")
    for history in (
        said,
        np.concatenate([said, exchange]),
        np.concatenate([said, *[exchange] * 9]),
    ):
        assert played_nats(base, history, [both]) == pytest.approx(-math.log(GOES_ON), abs=1e-4)
    assert (game.again, game.reward_shown, game.reward_else) == (GOES_ON, 1.0, 0.5)


def test_an_episode_without_room_is_refused():
    with pytest.raises(InvalidArgumentError, match="no room for an answer and its reply"):
        quiz_game(MEMBERS, n_tokens=len(PROCESS.prompt) + 3)


def test_to_say_both_always_costs_at_most_its_bound():
    demonstrations = default_demonstrations(QUIZ)
    members = family(QUIZ, switch_after=SWITCH_AFTER)
    bound = always_bound_nats(members, n_turns=4, demonstrations=demonstrations)
    exchange = PROCESS.encode(f"{QUIZ.prompt} Both.\nHost: Right, red or blue?\nPlayer:")
    exchange = exchange[len(PROCESS.prompt) :]
    base, (both, *_) = default_mixture(QUIZ), phrase_tokens(PROCESS)
    histories = [np.concatenate([PROCESS.prompt, *[exchange] * turn]) for turn in range(4)]
    paid = sum(played_nats(base, history, [both]) for history in histories)
    assert paid <= bound + 1e-6
    assert bound == pytest.approx(paid, abs=0.05)
