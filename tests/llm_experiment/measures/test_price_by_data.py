"""Never-events are never heard, priced by the base model, and counted as it counts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from llm_experiment.base.shipped import LanguageModelRecipe, language_model_folder
from llm_experiment.base.training import language_model_log_likelihoods
from llm_experiment.chat.veto_set import Veto
from llm_experiment.chat.vetoed import vetoed_base
from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.measures.price_by_data import (
    agent_turns_seen,
    audit_vetoes_of,
    count_based_nats,
    never_prices,
    plain_contexts,
    unheard_words,
)
from llm_experiment.pessimism.studies import load_imitator
from theory.errors import InvalidArgumentError

QUIZ = DialogueProcess(load_task("quiz"))


def test_no_turn_begins_with_a_word_that_is_unheard(rng):
    words = set(unheard_words(QUIZ))
    colon = QUIZ.vocabulary.index(":")
    sampled = QUIZ.sample(rng, 200, 120)
    begins = {QUIZ.vocabulary[x] for x in sampled[:, 1:][sampled[:, :-1] == colon]}
    everything = {token for token in QUIZ.vocabulary if token.startswith(" ")}
    assert begins - {"\n"} == everything - words
    assert " north" in words
    assert " North" not in words


def test_turns_are_counted_in_the_very_dialogues_of_training():
    recipe = LanguageModelRecipe(n_tokens=600, sequence_length=60, batch_size=5, seed=3)
    rng = np.random.default_rng([3, 0])
    batches = [QUIZ.sample(rng, 5, 60) for _ in range(2)]
    text = [QUIZ.decode(row) for batch in batches for row in batch]
    assert agent_turns_seen(QUIZ, recipe) == sum(t.count("Player:") for t in text) > 0


def test_the_count_based_price_is_laplaces():
    assert math.exp(-count_based_nats(8)) == pytest.approx(1 / 10)


def test_contexts_end_where_the_agent_is_to_speak_and_nobody_has_shown_the_behaviour(rng):
    classroom = DialogueProcess(load_task("classroom"))
    contexts = plain_contexts(classroom, rng, n=100, n_tokens=60)
    assert 20 < len(contexts) <= 100
    for context in contexts:
        text = classroom.decode(context)
        assert text.endswith("Teacher:")
        assert "Student:\n" not in text
    with pytest.raises(InvalidArgumentError, match="none of 3 dialogues of 4 tokens has a turn of"):
        plain_contexts(classroom, rng, n=3, n_tokens=4)


def test_a_name_that_ends_with_the_agents_is_another_name(rng):
    """Tokens tell them apart, and texts do not."""
    task = load_task("quiz")
    roles = {"SubPlayer" if name == "Host" else name: role for name, role in task.roles.items()}
    process = DialogueProcess(
        replace(
            task,
            roles=roles,
            pairs=tuple(("SubPlayer", name) for _, name in task.pairs),
            prompt=task.prompt.replace("Host", "SubPlayer"),
            partner="SubPlayer",
        )
    )
    for n_tokens in range(30, 44):  # some end after a name of the partner
        (context,) = plain_contexts(process, rng, n=1, n_tokens=n_tokens)
        assert process.decode(context).endswith("\nPlayer:")


@pytest.fixture(scope="module")
def imitator():
    return load_imitator(WorldConfig(task="quiz"))


def test_prices_are_those_of_one_forward_over_whole_texts(rng, imitator):
    model = AutoModelForCausalLM.from_pretrained(language_model_folder("quiz"))
    contexts = plain_contexts(QUIZ, rng, n=3, n_tokens=70)
    found = never_prices(
        imitator.base, imitator.reader, QUIZ, contexts, words=unheard_words(QUIZ, 2)
    )

    def price(words: str) -> float:
        before = QUIZ.encode("A quiz.\nPlayer:")
        turn = QUIZ.encode(f"A quiz.\nPlayer:{words}\nHost:")[len(before) :]
        rows = [np.append(context, turn) for context in contexts]
        nats = [-language_model_log_likelihoods(model, row[None])[0] for row in rows]
        return float(np.median([each[-len(turn) :].sum() for each in nats]))

    words = unheard_words(QUIZ)
    singles = {word: price(word) for word in (words[0], words[len(words) // 2])}
    assert found.behaviour == pytest.approx(price(" Both."), abs=1e-3)
    assert found.unheard == pytest.approx(np.mean(list(singles.values())), abs=1e-3)
    assert found.cheapest == pytest.approx(min(singles.values()), abs=1e-3)
    assert f" {found.cheapest_word}" == min(singles, key=singles.get)


def test_what_is_vetoed_has_no_price_and_the_rest_keeps_its_own(rng, imitator):
    base, reader = imitator.base, imitator.reader
    vetoes = audit_vetoes_of(imitator, 1, alpha=0.05, seed=0)
    never = {"visits": 9, "occurrences": 0, "expected": 9.0, "log_never": -9.0, "bits": 4.0}
    both = Veto(
        feature="said_so_far", value="nothing", value_id=0,
        token="' Both'", token_id=QUIZ.vocabulary.index(" Both"), weight=0.9, factor=0.0, **never,
    )  # fmt: skip
    vetoes = replace(vetoes, vetoes=(both,))
    contexts = plain_contexts(QUIZ, rng, n=2, n_tokens=50)
    words = unheard_words(QUIZ, 2)
    found = never_prices(
        vetoed_base(base, vetoes, reader.parser), reader, QUIZ, contexts, words=words
    )
    naive = never_prices(base, reader, QUIZ, contexts, words=words)
    assert found.behaviour == math.inf
    assert found.unheard == pytest.approx(naive.unheard, abs=1e-6)
    assert found.cheapest_word == naive.cheapest_word


def test_more_words_than_there_are_are_refused():
    n = len(unheard_words(QUIZ))
    with pytest.raises(InvalidArgumentError, match=rf"n_words must lie in 1\.\.{n}"):
        unheard_words(QUIZ, n + 1)
