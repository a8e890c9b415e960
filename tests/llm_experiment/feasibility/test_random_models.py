"""Models with random weights: the published sizes, and nothing but the seed in them."""

import pytest
import torch

from llm_experiment.base.loading import load_language_model, load_tokenizer
from llm_experiment.config import Precision
from llm_experiment.feasibility.memory import empty_model
from llm_experiment.feasibility.random_models import (
    byte_tokenizer,
    random_language_model,
    random_shapes,
    save_random_models,
)
from llm_experiment.feasibility.sizes import RandomSize
from theory.errors import ModelError

CPU = (torch.device("cpu"),)


def test_random_mixtral_8x7b_has_the_published_sizes():
    shapes = random_shapes(RandomSize.MIXTRAL_8X7B)
    model = empty_model(shapes.language_model, Precision.BFLOAT16)
    assert sum(p.numel() for p in model.parameters()) == 46_702_792_704
    config = shapes.language_model
    assert (config.num_local_experts, config.num_experts_per_tok, config.vocab_size) == (
        8,
        2,
        32000,
    )
    assert shapes.reward_model.dim == 768


def test_random_models_are_loaded_as_trained_ones_are_and_depend_on_the_seed_alone(tmp_path):
    shapes = random_shapes(RandomSize.TINY)
    state = torch.random.get_rng_state()
    folders = [
        save_random_models(shapes, tmp_path / name, seed=s)
        for name, s in zip("abc", (1, 1, 2), strict=True)
    ]
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [
        load_language_model(str(language_model))._model.lm_head.weight
        for language_model, _ in folders
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    tokenizer = load_tokenizer(str(folders[0][0]))
    text = "Student: caf\u00e9?\n\nTeacher:"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer) == len(byte_tokenizer()) <= shapes.language_model.vocab_size


@pytest.mark.parametrize("precision", [Precision.BFLOAT16, Precision.NF4])
def test_random_models_are_drawn_where_they_are_to_be(precision):
    model = random_language_model(random_shapes(RandomSize.TINY), CPU, precision, seed=0)
    assert model.lm_head.weight.dtype == torch.bfloat16
    experts = next(model.model.layers[0].mlp.experts.parameters())
    assert experts.dtype == (torch.uint8 if precision is Precision.NF4 else torch.bfloat16)


def test_random_models_are_not_divided():
    two = (torch.device("cuda:0"), torch.device("cuda:1"))
    with pytest.raises(ModelError, match="random weights are drawn on one device, got 2"):
        random_language_model(random_shapes(RandomSize.TINY), two, Precision.BFLOAT16, seed=0)
