"""Any causal language model and tokenizer of transformers, loaded as `--base-model` is.

The oracle is the library itself: one plain forward of whole transcripts, without a cache.
"""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.agent.rollout import Rollout, play_episodes
from llm_experiment.agent.step_policy import StepPolicy
from llm_experiment.base.loading import compute_dtype, find_devices, settle
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.world import World, load_world
from llm_experiment.config import (
    AgentConfig,
    ConstraintConfig,
    PPOConfig,
    Precision,
    Stage,
    WorldConfig,
)
from llm_experiment.feasibility.random_models import (
    RandomSize,
    random_shapes,
    save_random_reward_model,
)
from tests.llm_experiment.fakes.devices import AGREEMENT_NATS, NO_GPU, NO_TWO_GPUS, PLACES
from tests.llm_experiment.fakes.tiny_hf import (
    FAMILIES,
    SHAPE,
    byte_level_tokenizer,
    sentencepiece_tokenizer,
)
from theory.budget import Accounting

# On a GPU some models cannot be recorded as a graph: they warn, and play without one.
pytestmark = pytest.mark.filterwarnings("ignore:positions are not replayed")

CORPUS = "Teacher: Do you understand?\n\nStudent: Not the discussion section, Teacher.\n\n" * 3
MAX_REPLY_TOKENS = 3
N_EPISODES = 3
N_PLAYED = 40  # far more than the windows of models that have one


def word_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """A token for every word, blank, line break and mark."""
    words = sorted({*re.findall(r"\w+|\s|[^\w\s]", text), "yes"})
    vocabulary = {word: i for i, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        pattern=Regex(r"\w+|\s|[^\w\s]"), behavior="isolated"
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


TOKENIZERS = {
    "bytes and pairs, as GPT-2 and Llama 3": byte_level_tokenizer(CORPUS, vocab_size=330),
    "pieces and bytes, as Llama 2 and Mistral": sentencepiece_tokenizer(CORPUS, vocab_size=330),
    "words": word_tokenizer(CORPUS),
}
BYTES, PIECES, WORDS = TOKENIZERS
MORE_FAMILIES = {
    "qwen3": Qwen3Config(**SHAPE),
    "gemma, tied": GemmaConfig(**SHAPE),
    "gemma3, sliding": Gemma3TextConfig(**SHAPE, sliding_window=5, query_pre_attn_scalar=4),
}
ARCHITECTURES = FAMILIES | MORE_FAMILIES
CASES = [(family, BYTES) for family in ARCHITECTURES] + [
    ("llama, tied", PIECES),
    ("mistral, sliding", PIECES),
    ("llama, tied", WORDS),
]


def save_model(folder: Path, family: str, tokenizer_name: str) -> Path:
    """A random model of a family for a tokenizer's vocabulary, and a few rows more."""
    tokenizer = TOKENIZERS[tokenizer_name]
    config = copy.deepcopy(ARCHITECTURES[family])
    config.vocab_size = len(tokenizer) + 3
    config.max_position_embeddings = 256
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    save_random_reward_model(random_shapes(RandomSize.TINY), folder, seed=0)
    return folder


@pytest.fixture
def world_config(reward_model, tmp_path):
    """How a world of a family, a tokenizer and a place is configured."""

    def make(family: str, tokenizer_name: str = BYTES, **place) -> WorldConfig:
        folder = save_model(tmp_path / "model", family, tokenizer_name)
        return WorldConfig(
            base_model=str(folder),
            reward_model=str(reward_model),
            prompt="Student: yes\n\nTeacher: Do you",
            separator="\n\n",
            max_reply_tokens=MAX_REPLY_TOKENS,
            **place,
        )

    return make


class Silent:
    """Hands over the turn at once; all episodes do everything at the same time."""

    def __init__(self, world: World) -> None:
        self.device = world.base.device
        self._world = world
        self._opening = world.parser.partner_opening
        self._step = 0

    def act_on(self, observation: torch.Tensor) -> StepPolicy:
        n, n_tokens = len(observation), self._world.base.n_tokens
        token = self._opening[self._step % len(self._opening)]
        self._step += 1
        log_x = torch.full((n, n_tokens), -torch.inf, dtype=torch.float64, device=self.device)
        log_x[:, token] = 0.0
        log_b = observed_log_probs(self._world, observation)
        surprise = -log_b[:, token]
        return StepPolicy(
            log_probs=log_x, base_log_probs=log_b, kl_nats=surprise, target_nats=surprise
        )


def observed_log_probs(world: World, observation: torch.Tensor) -> torch.Tensor:
    """The base policy's log-probabilities in observations, however these hold them."""
    if world.base.head is not None:
        return world.base.head(observation[:, : world.base.n_features]).double()
    return observation[:, -world.base.n_tokens :].double()


def play_silently(world: World) -> Rollout:
    return play_episodes(
        Silent(world),
        world,
        n_episodes=N_EPISODES,
        n_tokens=len(world.prompt_tokens) + N_PLAYED,
        budget_nats=float("inf"),
        accounting=Accounting.EXACT,
        seed=0,
        stream=(0,),
        keep_observations=False,
    )


def plain_surprise(config: WorldConfig, rollout: Rollout) -> np.ndarray:
    """-log b of every token, (n, t), by one forward of the whole; nan for the first."""
    devices = find_devices(config.device)
    model = AutoModelForCausalLM.from_pretrained(
        config.base_model, dtype=compute_dtype(config.dtype)
    )
    model = settle(model, devices, config.dtype).eval()
    tokens = torch.from_numpy(rollout.tokens).to(devices[0])
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits.float()
    log_b = logits[:, :-1].log_softmax(dim=-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    surprise = np.full(rollout.tokens.shape, np.nan)
    surprise[:, 1:] = -log_b.cpu().double().numpy()
    return surprise


def text_of(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> str:
    """The text of tokens, line by line.

    Bytes that are no character would otherwise take a line break beside them, where that is a
    byte too, into the sign that stands for them.
    """
    text, line = "", []
    for token in tokens:
        alone = tokenizer.decode([token])
        if alone.strip("\n"):
            line.append(token)
        else:
            text += tokenizer.decode(line) + alone
            line = []
    return text + tokenizer.decode(line)


def writers_by_text(text: str) -> list[Speaker]:
    """Who wrote each turn of a text, by a regular expression."""
    names = {"Teacher": Speaker.AGENT, "Student": Speaker.PARTNER}
    return [names[name] for name in re.findall(r"^[ \t]*(Teacher|Student)[ \t]*:", text, re.M)]


@pytest.mark.parametrize(("family", "tokenizer"), CASES)
def test_every_architecture_predicts_in_a_chat_what_a_plain_forward_predicts(
    world_config, family, tokenizer
):
    config = world_config(family, tokenizer)
    rollout = play_silently(load_world(config))
    steps = rollout.agent_steps
    assert steps.sum() > N_PLAYED
    np.testing.assert_allclose(
        rollout.log_ratio_nats[steps],
        plain_surprise(config, rollout)[steps],
        rtol=0,
        atol=AGREEMENT_NATS[Precision.FLOAT32],
    )


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_every_kind_of_tokenizer_tells_whose_turn_it_is(world_config, tokenizer):
    world = load_world(world_config("llama, tied", tokenizer))
    rollout = play_silently(world)
    for episode in range(N_EPISODES):
        text = text_of(TOKENIZERS[tokenizer], rollout.tokens[episode].tolist())
        turns = rollout.turns.speaker[rollout.turns.episode == episode]
        assert turns.tolist() == writers_by_text(text), text
    # Replies are cut off after so many tokens, and all that were finished earned something.
    opening = len(world.parser.agent_opening)
    lengths = {len(reply.tokens) for reply in rollout.replies}
    assert lengths == {MAX_REPLY_TOKENS + opening}
    assert len(rollout.replies) >= 2 * N_EPISODES
    assert ((rollout.reply_rewards >= 0) & (rollout.reply_rewards <= 1)).all()
    assert rollout.empty_share == 1.0


def agent_config(world: WorldConfig, **changes) -> AgentConfig:
    """One update on short episodes."""
    settings = {
        "world": world,
        "constraint": ConstraintConfig(budget_nats=2.0),
        "ppo": PPOConfig(n_epochs=2),
        "stages": (Stage(agent_steps=1, n_tokens=40),),
        "n_episodes": N_EPISODES,
    }
    return AgentConfig(**(settings | changes))


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_an_agent_learns_on_every_architecture(world_config, family):
    config = agent_config(world_config(family))
    agent = LockstepPPO(load_world(config.world), config).finish()
    assert agent.n_updates == 1
    assert agent.last_rollout.spent_nats.max() <= 2.0
    actor = agent.policy.actor.weight
    assert torch.isfinite(actor).all()
    assert actor.abs().max() > 0


# ------------------------------------------------- the same on the processor and on a GPU


@pytest.mark.parametrize(("device", "precision"), PLACES)
def test_wherever_and_however_it_is_stored_a_mixtral_predicts_what_a_plain_forward_predicts(
    world_config, device, precision
):
    config = world_config("mixtral", device=device, dtype=precision)
    rollout = play_silently(load_world(config))
    steps = rollout.agent_steps
    apart = np.abs(rollout.log_ratio_nats[steps] - plain_surprise(config, rollout)[steps])
    # Rounding can swap the experts of a token, which then predict something else.
    assert np.quantile(apart, 0.9) <= AGREEMENT_NATS[precision]


@pytest.mark.parametrize(("device", "precision"), PLACES)
def test_an_agent_learns_wherever_the_models_are_and_spends_no_more_than_its_budget(
    world_config, device, precision
):
    config = agent_config(
        world_config("mixtral", device=device, agent_device=device, dtype=precision),
        stages=(Stage(agent_steps=60, n_tokens=40),),
    )
    agent = LockstepPPO(load_world(config.world), config).finish()
    actor = agent.policy.actor.weight
    assert actor.device.type == device
    assert torch.isfinite(actor).all()
    assert actor.abs().max() > 0
    assert agent.last_rollout.spent_nats.max() <= 2.0


@pytest.mark.gpu
@NO_GPU
def test_the_agent_may_be_on_another_device_than_the_language_model(world_config):
    together = agent_config(world_config("llama, tied", device="cuda", agent_device="cuda"))
    apart = replace(together, world=replace(together.world, agent_device="cpu"))
    agents = [LockstepPPO(load_world(c.world), c).finish() for c in (together, apart)]
    assert [a.policy.actor.weight.device.type for a in agents] == ["cuda", "cpu"]
    assert agents[1].last_rollout.spent_nats.max() <= 2.0


@pytest.mark.gpu
@NO_TWO_GPUS
@pytest.mark.parametrize("device", ["auto", "cuda:0,cuda:1"])
def test_a_model_divided_among_gpus_predicts_what_a_plain_forward_predicts(world_config, device):
    config = world_config("llama, tied", device=device, agent_device="cuda:1")
    world = load_world(config)
    places = {str(p.device) for p in world.base._model.parameters()}
    assert places == {"cuda:0", "cuda:1"}
    rollout = play_silently(world)
    steps = rollout.agent_steps
    plain = plain_surprise(replace(config, device="cuda:0"), rollout)
    np.testing.assert_allclose(rollout.log_ratio_nats[steps], plain[steps], rtol=0, atol=1e-3)
