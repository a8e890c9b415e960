import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig

from llm_experiment.base.hugging_face import HuggingFaceBase, OutputHead
from tests.llm_experiment.fakes.tiny_hf import FAMILIES, N_TOKENS, SHAPE, tiny_model

MANY_TOKENS = 64
"""More than the tiny models have features."""
PROMPT = torch.arange(5)
BOUNDED = "gemma2, alternating"
"""Its logits are bounded after the last layer."""


def large_vocabulary(family: str) -> HuggingFaceBase:
    return HuggingFaceBase(tiny_model(family, n_tokens=MANY_TOKENS))


def steps(base, n_episodes=6):
    """The steps after a prompt and after some random tokens."""
    session, step = base.begin(PROMPT, n_episodes=n_episodes, n_positions=12)
    tokens = torch.randint(
        base.n_tokens, (4, n_episodes), generator=torch.Generator().manual_seed(0)
    )
    return [step, *(session.append(column) for column in tokens)]


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {BOUNDED}))
def test_the_head_gives_the_models_own_log_probabilities_back_from_the_features(family):
    model = tiny_model(family, n_tokens=MANY_TOKENS)
    base = HuggingFaceBase(model)
    for step in steps(base):
        torch.testing.assert_close(base.head(step.features), step.log_probs, rtol=0, atol=1e-6)
    with torch.no_grad():
        expected = model(PROMPT[None]).logits[0, -1].log_softmax(dim=-1)
    torch.testing.assert_close(steps(base)[0].log_probs[0], expected, rtol=0, atol=1e-5)


def test_a_model_that_changes_its_logits_after_the_last_layer_has_no_head():
    assert large_vocabulary(BOUNDED).head is None


CHANGED = {
    # The embedding of token 0 is zero, so that a bound leaves its logits alone.
    "gemma2, padded": Gemma2Config(
        **{**SHAPE, "pad_token_id": 0}, attn_implementation="eager", query_pre_attn_scalar=4
    ),
    "cohere": CohereConfig(**{**SHAPE, "pad_token_id": 0}, logit_scale=0.25),
    "granite": GraniteConfig(**{**SHAPE, "pad_token_id": 0}, logits_scaling=3.0),
}


@pytest.mark.parametrize("family", CHANGED)
def test_scales_and_bounds_of_logits_are_found_whatever_token_0_is(family):
    config = copy.deepcopy(CHANGED[family])
    config.vocab_size = MANY_TOKENS
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    base = HuggingFaceBase(model)
    assert base.head is None
    with torch.no_grad():
        expected = model(PROMPT[None]).logits[0, -1].log_softmax(dim=-1)
    torch.testing.assert_close(steps(base)[0].log_probs[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [lambda x: x.clamp(-100, 100), lambda x: 1e4 * torch.tanh(x / 1e4), lambda x: x / 1.001],
    ids=["clamped", "bounded far out", "scaled by little"],
)
def test_changes_that_small_logits_hardly_show_are_found(change):
    model = tiny_model("mixtral", n_tokens=MANY_TOKENS)
    forward = model.forward

    def changed(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = change(output.logits)
        return output

    model.forward = changed
    assert HuggingFaceBase(model).head is None


def test_a_layer_that_is_more_than_its_weight_is_no_head():
    """An adapter, say, that a hook adds to what the layer makes."""
    model = tiny_model("mixtral", n_tokens=MANY_TOKENS)
    model.lm_head.register_forward_hook(
        lambda _, given, made: made + given[0].sum(-1)[..., None] ** 2 * torch.arange(MANY_TOKENS)
    )
    assert HuggingFaceBase(model).head is None


def test_a_small_vocabulary_is_carried():
    assert HuggingFaceBase(tiny_model("mixtral")).head is None
    assert tiny_model("mixtral").config.vocab_size == N_TOKENS


def test_in_half_precision_too_the_head_does_not_depend_on_how_many_rows_there_are():
    """Half precision rounds a logit to three digits; here six are kept, whatever the batch."""
    model = tiny_model("mixtral", n_tokens=MANY_TOKENS).bfloat16()
    base = HuggingFaceBase(model)
    assert base.head.weight.dtype == torch.float32
    for step in steps(base, n_episodes=33):
        one_by_one = torch.cat([base.head(row[None]) for row in step.features])
        torch.testing.assert_close(one_by_one, step.log_probs, rtol=0, atol=5e-6)


def test_a_head_is_the_last_layer_and_a_softmax(rng):
    features = torch.from_numpy(rng.normal(size=(3, 7)))
    weight, bias = (torch.from_numpy(rng.normal(size=size)) for size in ((5, 2), (5,)))
    head = OutputHead(weight=weight, bias=bias)
    logits = features[:, -2:] @ weight.T + bias
    expected = logits - logits.exp().sum(dim=-1, keepdim=True).log()
    torch.testing.assert_close(head(features), expected)
    moved = head.to(torch.device("cpu"))
    assert torch.equal(moved(features), head(features))
