"""Worlds whose base policy leaves something out: what a configuration makes of it, or refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llm_experiment.base.helped import HelpedBase
from llm_experiment.base.shipped import language_model_folder
from llm_experiment.base.training import (
    new_language_model,
    new_reward_model,
    reply_tokenizer,
    save_models,
)
from llm_experiment.chat.features import FeatureReader
from llm_experiment.chat.veto_set import write_veto_set
from llm_experiment.chat.world import WorldLoader, check_world, load_world
from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.jobs import begin
from llm_experiment.measures.departure import known_demonstrator
from llm_experiment.pessimism.learning import Evidence, make_veto_set
from llm_experiment.records.folder import read_manifest
from llm_experiment.settings import Settings
from tests.llm_experiment.fakes.tiny_task import TINY_TASK
from theory.errors import InvalidArgumentError, ModelError, ResultsError
from theory.missing_mass import Help

TINY = str(language_model_folder("classroom"))


@pytest.fixture(scope="module")
def world():
    return load_world(WorldConfig())


@pytest.fixture(scope="module")
def vetoes(world, tmp_path_factory):
    """A file that vetoes silence: a hundred turns were opened, and never one was empty."""
    reader = FeatureReader(world.parser)
    evidence = Evidence(reader.features, reader.n_tokens)
    n = 100
    shape = (n, reader.n_tokens + 1)
    law = torch.zeros(shape, dtype=torch.float64)
    law[:, -1] = 0.2  # what the imitator gives to "the turn ends"
    law[:, reader.ends.nonzero()[0]] = 0.2
    written = torch.zeros(shape, dtype=torch.float64)
    written[:, world.prompt_tokens[-1]] = 1.0
    increments = {
        "occurrences": written,
        "expected": law,
        "log_never": torch.log1p(-law),
    }
    for feature in evidence.features.values():
        feature.add(torch.zeros(n, dtype=torch.int64).numpy(), increments)
    evidence.n_steps = n
    path = tmp_path_factory.mktemp("vetoes") / "vetoes.json"
    write_veto_set(path, make_veto_set(evidence, reader, alpha=0.05))
    return str(path)


def after_the_colon(world):
    """What the base policy says where the Teacher's turn in the prompt opens."""
    opened = int(world.parser.read(world.prompt_tokens[None]).opened[0])
    _, step = world.base.begin(world.prompt_tokens[: opened + 1], n_episodes=1, n_positions=64)
    return step


def test_the_demonstrator_fills_what_vetoes_take_where_it_is_known(world, vetoes):
    config = WorldConfig(vetoes=vetoes)
    vetoed = load_world(config)
    plain, filled = after_the_colon(world), after_the_colon(vetoed)
    newline = known_demonstrator(config, vetoed).vocabulary.index("\n")
    silence = plain.log_probs[0, newline].exp()
    assert 1e-4 < silence < 0.1
    assert filled.log_probs[0, newline] == -torch.inf
    assert filled.missing_mass.item() == 0.0
    assert filled.help_mass.item() == pytest.approx(silence.item(), rel=1e-4)
    assert filled.log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_a_model_of_one_s_own_is_renormalised_where_little_is_missing(vetoes):
    own = load_world(WorldConfig(base_model=TINY, vetoes=vetoes))
    step = after_the_colon(own)
    assert step.demonstrator_log_probs is None
    assert step.missing_mass.item() == 0.0
    assert step.help_mass.item() > 0


def test_members_make_a_pessimist_that_asks_only_where_they_differ():
    alike = load_world(WorldConfig(members=(TINY,), missing_mass=Help.ASK))
    assert isinstance(alike.base, HelpedBase)
    step = after_the_colon(alike)
    assert step.missing_mass.item() == pytest.approx(0.0, abs=1e-6)


def test_worlds_that_differ_in_their_vetoes_share_their_models(vetoes):
    loader = WorldLoader()
    plain = loader.world(WorldConfig())
    vetoed = loader.world(WorldConfig(vetoes=vetoes))
    assert vetoed.score is plain.score
    assert vetoed.base is not plain.base


REFUSED = [
    ({"missing_mass": Help.ASK}, InvalidArgumentError, "name --vetoes or --members"),
    ({"members": (TINY,), "members_alpha": 0.0}, InvalidArgumentError, "members_alpha must lie in"),
    ({"members": ("./nowhere",)}, ModelError, r"language model \./nowhere"),
    ({"vetoes": "./nowhere.json"}, ResultsError, r"there is no file nowhere\.json"),
]


@pytest.mark.parametrize(("changes", "error", "words"), REFUSED)
def test_what_cannot_be_is_refused_before_any_work(changes, error, words):
    with pytest.raises(error, match=words):
        check_world(WorldConfig(**changes), lengths=(64,))


def test_a_member_of_another_vocabulary_is_refused(tmp_path):
    process = DialogueProcess(TINY_TASK)
    reward = new_reward_model(reply_tokenizer(process), seed=0)
    save_models(tmp_path / "models", process, new_language_model(process, seed=0), reward, {})
    config = WorldConfig(members=(str(tmp_path / "models" / "language_model"),))
    with pytest.raises(ModelError, match="another vocabulary than the base model"):
        check_world(config, lengths=(64,))


def test_vetoes_of_another_tokenizer_or_speaker_are_refused(vetoes, tmp_path):
    other = json.loads(Path(vetoes).read_text())
    other["tokenizer"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(ModelError, match="learnt with another tokenizer"):
        check_world(WorldConfig(vetoes=str(tmp_path / "other.json")), lengths=(64,))
    coach = WorldConfig(
        vetoes=vetoes, agent_name="Coach", partner_name="Player", prompt="Player: Hello?\nCoach:"
    )
    with pytest.raises(ModelError, match="learnt with agent 'Teacher' and the chat has 'Coach'"):
        check_world(coach, lengths=(64,))


def test_nobody_can_be_asked_about_a_model_of_one_s_own(vetoes):
    own = WorldConfig(base_model=TINY, vetoes=vetoes, missing_mass=Help.DEMONSTRATOR)
    with pytest.raises(InvalidArgumentError, match="choose stop or renormalise"):
        check_world(own, lengths=(64,))


def test_the_vetoes_are_a_part_of_a_run_s_identity(vetoes, tmp_path):
    settings = Settings()
    world = replace(settings.agent.world, vetoes=vetoes)
    settings = replace(settings, agent=replace(settings.agent, world=world))
    begin(settings, tmp_path / "run")
    models = read_manifest(tmp_path / "run")["models"]
    assert len(models["vetoes"]) == 64
    path = Path(vetoes)
    original = path.read_text()
    edited = json.loads(original)
    edited["vetoes"] = edited["vetoes"][1:]
    try:
        path.write_text(json.dumps(edited))
        with pytest.raises(ResultsError):
            begin(settings, tmp_path / "run")
    finally:
        path.write_text(original)
