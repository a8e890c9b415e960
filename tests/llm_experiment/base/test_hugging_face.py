from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM

from llm_experiment.base.hugging_face import HuggingFaceBase
from llm_experiment.base.loading import load_language_model
from tests.llm_experiment.fakes.tiny_hf import (
    FAMILIES,
    MAX_POSITIONS,
    N_TOKENS,
    RECURRENT,
    byte_level_tokenizer,
    save_tiny_model,
    tiny_model,
)
from theory.errors import InvalidArgumentError, InvalidShapeError, ModelError

PROMPT = 7
LENGTH = 20
# Models run in float64 here, so what is left is a few roundings of results to float32, each of
# numbers up to 16 and so at most 2^-21.
ROUNDING = 4e-6


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with a complete model and its tokenizer."""
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "mixtral")
    byte_level_tokenizer("Teacher: yes\nStudent: no\n", vocab_size=260).save_pretrained(folder)
    return folder


def transcripts(n: int) -> Tensor:
    """Random transcripts that share a prompt."""
    tokens = torch.randint(N_TOKENS, (n, LENGTH), generator=torch.Generator().manual_seed(1))
    tokens[1:, :PROMPT] = tokens[0, :PROMPT]
    return tokens


def stepwise(base: HuggingFaceBase, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities and features after each token from the prompt on, read one by one."""
    session, step = base.begin(tokens[0, :PROMPT], n_episodes=len(tokens), n_positions=LENGTH)
    steps = [step, *(session.append(column) for column in tokens[:, PROMPT:].T)]
    log_probs = torch.stack([step.log_probs for step in steps], dim=1)
    return log_probs, torch.stack([step.features for step in steps], dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_token_by_token_predicts_what_reading_the_whole_transcript_does(family):
    model = tiny_model(family).double()
    tokens = transcripts(3)
    log_probs, features = stepwise(HuggingFaceBase(model), tokens)
    with torch.no_grad():
        whole = model(tokens, output_hidden_states=True, use_cache=False)
    expected = whole.logits.log_softmax(dim=-1)[:, PROMPT - 1 :].float()
    torch.testing.assert_close(log_probs, expected, rtol=0, atol=ROUNDING)
    last_three = torch.cat(whole.hidden_states[-3:], dim=-1)[:, PROMPT - 1 :].float()
    torch.testing.assert_close(features, last_three, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prediction_is_a_full_distribution_in_single_precision(family):
    base = HuggingFaceBase(tiny_model(family))
    _, step = base.begin(transcripts(1)[0, :PROMPT], n_episodes=2, n_positions=LENGTH)
    assert step.log_probs.shape == (2, base.n_tokens)
    assert step.features.shape == (2, base.n_features)
    torch.testing.assert_close(step.log_probs.exp().sum(dim=-1), torch.ones(2))
    assert step.missing_mass.tolist() == [0.0, 0.0]
    assert {step.log_probs.dtype, step.features.dtype, step.missing_mass.dtype} == {torch.float32}


def test_in_single_precision_the_mixture_of_experts_as_it_is_loaded_is_right_to_1e_4(saved):
    log_probs, _ = stepwise(load_language_model(str(saved)), transcripts(3))
    expected, _ = stepwise(HuggingFaceBase(tiny_model("mixtral").double()), transcripts(3))
    torch.testing.assert_close(log_probs, expected, rtol=0, atol=1e-4)


def test_episodes_do_not_disturb_one_another():
    base = HuggingFaceBase(tiny_model("mixtral").double())
    tokens = transcripts(4)
    together, _ = stepwise(base, tokens)
    alone = torch.cat([stepwise(base, row[None])[0] for row in tokens])
    torch.testing.assert_close(together, alone, rtol=0, atol=ROUNDING)


def test_sessions_do_not_disturb_one_another():
    base = HuggingFaceBase(tiny_model("llama, tied"))
    tokens = transcripts(1)
    start = {"n_episodes": 1, "n_positions": LENGTH}
    first, _ = base.begin(tokens[0, :PROMPT], **start)
    second, _ = base.begin(tokens[0, :PROMPT], **start)
    for column in tokens[:, PROMPT:-1].T:
        second.append(column)
    expected = base.begin(tokens[0, : PROMPT + 1], **start)[1]
    torch.testing.assert_close(first.append(tokens[:, PROMPT]).log_probs, expected.log_probs)


def test_the_base_policy_is_frozen():
    model = tiny_model("gpt2, with dropout")
    base = HuggingFaceBase(model)
    tokens = transcripts(1)
    (first, features), (second, _) = stepwise(base, tokens), stepwise(base, tokens)
    assert torch.equal(first, second), "dropout must be off"
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not first.requires_grad
    weight = torch.ones(base.n_features, requires_grad=True)
    (features[0] @ weight).sum().backward()  # constants of somebody else's gradient
    assert weight.grad is not None


def test_a_model_without_attention_is_refused():
    with pytest.raises(ModelError, match="a model of type mamba, which has layers other than full"):
        HuggingFaceBase(AutoModelForCausalLM.from_config(RECURRENT))


@pytest.mark.parametrize("initializer_range", [0.02, 0.5])
def test_a_model_that_reads_in_both_directions_is_refused(tmp_path, initializer_range):
    config = BertConfig(
        vocab_size=N_TOKENS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=initializer_range,
    )
    torch.manual_seed(0)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"reads in both directions; choose a causal"):
        load_language_model(str(tmp_path))
    # The same weights, each token of which sees only what came before it, are a base policy.
    config.is_decoder = True
    causal = AutoModelForCausalLM.from_pretrained(tmp_path, config=config)
    assert HuggingFaceBase(causal).n_tokens == N_TOKENS


def test_impossible_starts_are_refused():
    base = HuggingFaceBase(tiny_model("gpt2, with dropout"))
    prompt = torch.arange(4)
    cases = [
        (prompt, 0, 8, InvalidArgumentError, "n_episodes must be >= 1, got 0"),
        (prompt, 1, 4, InvalidArgumentError, "has 4 tokens and the episode only 4"),
        (prompt + 37, 1, 8, InvalidArgumentError, r"must lie in 0..39, got 40"),
        (prompt, 1, MAX_POSITIONS + 1, InvalidArgumentError, "reads at most 48; shorten"),
        (prompt[None], 1, 8, InvalidShapeError, r"shape \(p,\) with p >= 1, got \(1, 4\)"),
        (prompt[:0], 1, 8, InvalidShapeError, r"got \(0,\)"),
    ]
    for tokens, n_episodes, n_positions, error, message in cases:
        with pytest.raises(error, match=message):
            base.begin(tokens, n_episodes=n_episodes, n_positions=n_positions)


def test_the_longest_episode_fits_the_positions_that_the_model_has():
    base = HuggingFaceBase(tiny_model("gpt2, with dropout"))
    session, step = base.begin(torch.arange(4), n_episodes=1, n_positions=MAX_POSITIONS)
    for _ in range(MAX_POSITIONS - 4):
        step = session.append(torch.tensor([3]))
    assert torch.isfinite(step.log_probs).all()
