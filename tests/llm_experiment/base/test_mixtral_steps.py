"""Machine code predicts what transformers does, episode by episode, and refuses what it cannot."""

import copy
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig

from llm_experiment.base.hugging_face import HuggingFaceBase, HuggingFaceSession
from llm_experiment.base.loading import load_language_model
from llm_experiment.base.mixtral_kernel import BLOCK
from llm_experiment.base.mixtral_steps import MixtralSession, is_supported
from llm_experiment.base.shipped import LANGUAGE_MODEL, SHIPPED
from tests.llm_experiment.fakes.tiny_hf import FAMILIES, N_TOKENS, SHAPE, tiny_model
from theory.errors import InvalidArgumentError, InvalidShapeError

PROMPT = 7
LENGTH = BLOCK + 16  # more than a block of positions, and no whole number of them
N_EPISODES = 3


def new_model(**changes):
    """A random Mixtral that has so many positions, in float32."""
    settings = SHAPE | {"max_position_embeddings": LENGTH, "initializer_range": 0.2}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = MixtralConfig(**(settings | {"num_local_experts": 4} | changes))
        return AutoModelForCausalLM.from_config(config, experts_implementation="eager").eval()


def transcripts(*, n=N_EPISODES, n_tokens=N_TOKENS):
    tokens = torch.randint(n_tokens, (n, LENGTH), generator=torch.Generator().manual_seed(1))
    tokens[1:, :PROMPT] = tokens[0, :PROMPT]
    return tokens


def begun(model, tokens):
    return HuggingFaceBase(model).begin(
        tokens[0, :PROMPT], n_episodes=len(tokens), n_positions=tokens.shape[1]
    )


def stepwise(model, tokens):
    """Log-probabilities and features after every token from the prompt on."""
    session, step = begun(model, tokens)
    assert isinstance(session, MixtralSession)
    steps = [step, *(session.append(column) for column in tokens[:, PROMPT:].T)]
    return (torch.stack([getattr(s, name) for s in steps], 1) for name in ("log_probs", "features"))


SHAPES = {
    "as it is": {},
    "one layer": {"num_hidden_layers": 1},
    "five layers": {"num_hidden_layers": 5},
    "a key head for each head": {"num_key_value_heads": 4},
    "one key head": {"num_key_value_heads": 1},
    "heads wider than the stream": {"head_dim": 12},
    "one expert": {"num_local_experts": 1, "num_experts_per_tok": 1},
    "all experts": {"num_experts_per_tok": 4},
    "one of many experts": {"num_local_experts": 9, "num_experts_per_tok": 1},
    "wide": {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16},
    "another epsilon and base": {"rms_norm_eps": 0.1, "rope_theta": 7.0},
    "tied": {"tie_word_embeddings": True},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_position_is_what_the_model_itself_says_in_double_precision(shape):
    model = new_model(**SHAPES[shape])
    tokens = transcripts()
    log_probs, features = stepwise(model, tokens)
    with torch.no_grad():
        whole = copy.deepcopy(model).double()(tokens, output_hidden_states=True, use_cache=False)
    expected = whole.logits.log_softmax(dim=-1)[:, PROMPT - 1 :]
    torch.testing.assert_close(log_probs.double(), expected, rtol=0, atol=5e-5)
    expected = torch.cat(whole.hidden_states[-3:], dim=-1)[:, PROMPT - 1 :]
    torch.testing.assert_close(features.double(), expected, rtol=0, atol=5e-5)


def test_other_episodes_change_no_bit():
    model, tokens = new_model(), transcripts(n=5)
    together, features = stepwise(model, tokens)
    for i in range(5):
        alone, own = stepwise(model, tokens[i : i + 1])
        assert torch.equal(alone[0], together[i])
        assert torch.equal(own[0], features[i])


def test_a_large_vocabulary_is_predicted_by_the_head_that_learning_applies_again():
    model = new_model(vocab_size=97)
    base = HuggingFaceBase(model)
    assert base.head is not None
    session, step = base.begin(torch.arange(PROMPT), n_episodes=2, n_positions=LENGTH)
    assert isinstance(session, MixtralSession)
    for _ in range(3):
        assert torch.equal(base.head(step.features), step.log_probs)
        step = session.append(torch.tensor([3, 96]))


class OtherNorm(torch.nn.LayerNorm):
    """Somebody's part in the place of the model's own."""


def with_other_norm():
    model = new_model()
    model.model.norm = OtherNorm(model.config.hidden_size)
    return model


UNSUPPORTED = {
    "another family": lambda: tiny_model("llama, tied"),
    "double precision": lambda: new_model().double(),
    "no memory of its own": lambda: new_model().to("meta"),
    "another part": with_other_norm,
    "another activation": lambda: new_model(hidden_act="gelu"),
    "a window": lambda: new_model(sliding_window=LENGTH - 1),
    "another rotation": lambda: new_model(
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    ),
    "a width that is not unrolled": lambda: new_model(intermediate_size=22),
    "many weights": lambda: new_model(vocab_size=40_000),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_other_models_are_not_read_so(case):
    assert is_supported(new_model())
    assert not is_supported(UNSUPPORTED[case]())


@pytest.mark.parametrize("case", ["another family", "double precision", "another part"])
def test_a_model_that_is_not_read_so_is_read_by_itself(case):
    session, _ = begun(UNSUPPORTED[case](), transcripts()[:, :20])
    assert isinstance(session, HuggingFaceSession)


def test_a_model_that_says_otherwise_than_its_parts_is_read_by_itself_after_a_warning():
    model, tokens = new_model(), transcripts()
    plain, _ = begun(copy.deepcopy(model).double(), tokens)
    model.lm_head.register_forward_hook(lambda module, given, made: 1.01 * made)
    with pytest.warns(UserWarning, match="is read without machine code, which is slower"):
        session, _ = begun(model, tokens)
    assert isinstance(session, HuggingFaceSession)
    step, other = session.append(tokens[:, PROMPT]), plain.append(tokens[:, PROMPT])
    expected = (1.01 * other.log_probs).log_softmax(dim=-1)
    torch.testing.assert_close(step.log_probs, expected, rtol=0, atol=5e-5)


def test_what_cannot_be_read_is_refused():
    tokens = transcripts()
    session, _ = begun(new_model(), tokens)
    with pytest.raises(InvalidShapeError, match=r"tokens must have shape \(3,\), got \(2,\)"):
        session.append(tokens[:2, 0])
    for wrong in (-1, N_TOKENS):
        with pytest.raises(InvalidArgumentError, match=r"tokens must lie in 0..39, got"):
            session.append(torch.tensor([0, wrong, 1]))
    for column in tokens[:, PROMPT:].T:
        session.append(column)
    with pytest.raises(InvalidArgumentError, match=f"are complete at {LENGTH} tokens; begin new"):
        session.append(tokens[:, 0])


@pytest.mark.parametrize("task", ["classroom", "flattery"])
def test_the_shipped_models_are_read_so(task):
    assert is_supported(load_language_model(str(SHIPPED / task / LANGUAGE_MODEL)).model)


def test_no_family_of_another_kind_imports_the_machine_code(monkeypatch):
    monkeypatch.setitem(sys.modules, "llm_experiment.base.mixtral_steps", None)
    for family in set(FAMILIES) - {"mixtral"}:
        begun(tiny_model(family), transcripts()[:, :20])
