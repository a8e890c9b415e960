"""The two pretrained models of the package index are read as they are, and silence is for sale.

The oracle for what they predict is one plain forward of the library, without a cache.
"""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from llm_experiment.agent.scripts import Say, play_script
from llm_experiment.base.packaged import PACKAGED_MODELS
from llm_experiment.base.shipped import model_names
from llm_experiment.chat.token_texts import decode_tokens
from llm_experiment.chat.world import load_models, make_world
from llm_experiment.config import Precision, Preset, preset_config
from tests.llm_experiment.fakes.devices import AGREEMENT_NATS
from tests.llm_experiment.test_architectures import plain_surprise, play_silently

pytestmark = pytest.mark.slow

SEPARATORS = {"smollm2": 2, "gemma3-270m": 1}
"""Tokens of two line breaks before a name."""


@pytest.fixture(scope="module", params=[Preset.SMOLLM2, Preset.GEMMA3_270M])
def loaded(request):
    """Configuration, tokenizer and world of a preset, skipped where its packages are absent."""
    model = PACKAGED_MODELS[request.param.value]
    missing = [package for package, _ in model.parts if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {missing[0]}: `make real`, or {model.install}")
    config = preset_config(request.param).world
    models = load_models(config)
    return config, models.tokenizer, make_world(config, models)


def test_its_tokens_are_what_its_preset_takes_them_for(loaded):
    config, tokenizer, world = loaded
    separator = world.parser.partner_opening[: SEPARATORS[config.base_model]]
    assert decode_tokens(tokenizer, separator) == "\n\n"
    begins = world.prompt_tokens[0] == tokenizer.bos_token_id
    assert bool(begins) == (config.base_model == "gemma3-270m")
    assert world.parser.empty_turn_tokens == SEPARATORS[config.base_model] + 2
    assert world.base.head is not None  # the vocabulary is larger than the features


def test_it_predicts_in_a_chat_what_a_plain_forward_predicts(loaded):
    config, _, world = loaded
    rollout = play_silently(world)
    steps = rollout.agent_steps
    folder = replace(config, base_model=model_names(config)[0])
    expected = plain_surprise(folder, rollout)[steps]
    agreement = 10 * AGREEMENT_NATS[Precision.FLOAT32]  # thirty layers, not three
    np.testing.assert_allclose(rollout.log_ratio_nats[steps], expected, rtol=0, atol=agreement)


def test_the_first_silence_is_dear_and_the_next_ones_are_not(loaded):
    _, _, world = loaded
    played = play_script(
        replace(world, partner_temperature=1.0), Say(()),
        n_episodes=8, n_tokens=384, free_turns=1, n_turns=3, seed=0, stream=(0,),
    )  # fmt: skip
    first, second, third = np.nanmedian(played.costs_nats, axis=0)
    assert first > 3
    assert second < first / 2
    assert third < first / 2
