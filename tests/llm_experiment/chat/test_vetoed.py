import math

import pytest
import torch

from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.protocol import semi_log_probs
from llm_experiment.chat.features import FEATURES
from llm_experiment.chat.turns import TurnParser
from llm_experiment.chat.vetoed import vetoed_base
from tests.llm_experiment.chat.test_veto_set import (
    SILENCE,
    SOME,
    coverage,
    factors_by_text,
    veto_set,
)
from tests.llm_experiment.fakes.small_world import (
    NEWLINE,
    PIECES,
    RULES,
    TableBase,
    dialogue_table,
    encode,
    small_world,
)
from tests.llm_experiment.fakes.tiny_hf import tiny_model
from theory.errors import InvalidArgumentError, ModelError

WORLD = small_world()
N = len(PIECES)
PROMPT = "S: no\nT:"
TAILS = (" no no\nS: yes\nT: yes yes", "\nS:\nT:\nS: no\nT: no", " yes yes no yes no no no\nS")


def walk(base, tails=TAILS):
    """The steps after the prompt and after every token of tails of one length."""
    rows = [encode(tail) for tail in tails]
    length = min(map(len, rows))
    tokens = torch.tensor([row[:length] for row in rows])
    session, step = base.begin(
        torch.tensor(encode(PROMPT)), n_episodes=len(rows), n_positions=len(PROMPT) + length
    )
    steps = [step]
    for column in tokens.T:
        steps.append(session.append(column))
    texts = [
        [PROMPT + "".join(PIECES[t] for t in row[:k]) for row in tokens.tolist()]
        for k in range(length + 1)
    ]
    return list(zip(texts, steps, strict=True))


def test_the_law_is_the_base_policys_times_the_factors_and_what_lacks_is_missing():
    vetoed = vetoed_base(WORLD.base, SOME, WORLD.parser)
    plain = walk(WORLD.base)
    for (texts, step), (_, base_step) in zip(walk(vetoed), plain, strict=True):
        for i, text in enumerate(texts):
            b = base_step.log_probs[i].double().exp()
            semi = b * torch.tensor(factors_by_text(text, SOME), dtype=torch.float64)
            assert float(step.missing_mass[i]) == pytest.approx(1 - float(semi.sum()), abs=1e-6)
            seen = step.log_probs[i].exp() * (1 - step.missing_mass[i])
            torch.testing.assert_close(seen.double(), semi, rtol=0, atol=1e-6)


def test_what_is_vetoed_has_probability_0_and_the_agent_is_never_silent():
    vetoed = vetoed_base(WORLD.base, veto_set(SILENCE), WORLD.parser)
    for texts, step in walk(vetoed):
        for i, text in enumerate(texts):
            if text.endswith("T:"):
                assert step.log_probs[i, NEWLINE] == -math.inf
                assert step.missing_mass[i] > 0


def test_rows_of_which_nothing_is_taken_are_passed_on_bit_by_bit():
    # Rows whose float32 masses are off by their rounding: no call for help.
    table = torch.randn(N, N, N, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    base = TableBase(table)
    vetoed = vetoed_base(base, veto_set(SILENCE), WORLD.parser)
    touched = 0
    for (texts, step), (_, base_step) in zip(walk(vetoed), walk(base), strict=True):
        assert torch.equal(step.features, base_step.features)
        for i, text in enumerate(texts):
            if min(factors_by_text(text, veto_set(SILENCE))) == 1:
                assert torch.equal(step.log_probs[i], base_step.log_probs[i])
                assert step.missing_mass[i] == 0
            else:
                touched += 1
    assert touched


def test_a_veto_on_what_the_base_policy_never_does_takes_nothing():
    table = torch.as_tensor(dialogue_table()).clone()
    table[..., NEWLINE] = -math.inf
    base = TableBase(table.log_softmax(-1).nan_to_num(-math.inf))
    vetoed = vetoed_base(base, veto_set(SILENCE), WORLD.parser)
    (_, step), (_, base_step) = walk(vetoed)[0], walk(base)[0]
    assert torch.equal(step.log_probs, base_step.log_probs)
    assert step.missing_mass.tolist() == [0.0] * 3


def test_where_no_demonstration_came_all_mass_is_missing():
    covered = tuple(coverage(f.name, factor=0.0, end_factor=0.0) for f in FEATURES)
    vetoed = vetoed_base(WORLD.base, veto_set(covered=covered), WORLD.parser)
    _, step = walk(vetoed)[0]
    assert step.missing_mass.tolist() == [1.0] * 3


def test_vetoes_on_vetoes_take_from_what_is_left():
    once = vetoed_base(WORLD.base, SOME, WORLD.parser)
    twice = vetoed_base(once, veto_set(SILENCE), WORLD.parser)
    for (_, step), (_, expected) in zip(walk(twice), walk(once), strict=True):
        torch.testing.assert_close(semi_log_probs(step).exp(), semi_log_probs(expected).exp())


def test_a_vetoed_policy_is_like_its_base_policy_otherwise():
    vetoed = vetoed_base(WORLD.base, SOME, WORLD.parser)
    assert (vetoed.n_tokens, vetoed.n_features) == (WORLD.base.n_tokens, WORLD.base.n_features)
    assert (vetoed.device, vetoed.head) == (WORLD.base.device, None)


def test_a_language_model_is_vetoed_like_any_base_policy():
    model = HuggingFaceBase(tiny_model("llama, tied", n_tokens=N))
    vetoed = vetoed_base(model, SOME, WORLD.parser)
    for (texts, step), (_, base_step) in zip(walk(vetoed), walk(model), strict=True):
        factors = torch.tensor([factors_by_text(text, SOME) for text in texts])
        expected = base_step.log_probs.exp() * factors
        torch.testing.assert_close(
            step.log_probs.exp() * (1 - step.missing_mass[:, None]), expected, rtol=0, atol=1e-6
        )


def test_unfit_parsers_are_refused():
    words = (*PIECES, " more")
    larger = TurnParser(RULES, pieces=words, encode=lambda t: encode(t, words), decode=str)
    with pytest.raises(InvalidArgumentError, match="knows 8 tokens and the base policy 7"):
        vetoed_base(WORLD.base, SOME, larger)
    other = small_world(pieces=("\n", "T", "S", ":", " no", " yes", " please"))
    with pytest.raises(ModelError, match="another tokenizer"):
        vetoed_base(other.base, SOME, other.parser)
