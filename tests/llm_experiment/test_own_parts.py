"""Own parts are found by reference or entry point, used, and part of what a run is."""

import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from llm_experiment.agent.script_prices import own_scripts
from llm_experiment.agent.scripts import Say
from llm_experiment.auditing.behaviours import behaviour_fingerprints, own_behaviours
from llm_experiment.base.own import OwnBase, own_base, part_fingerprints
from llm_experiment.base.shipped import language_model_folder, model_names
from llm_experiment.chat.features import (
    FEATURES,
    PHRASE_BITS,
    FeatureReader,
    find_features,
)
from llm_experiment.chat.reward_sources import load_score, reward_fingerprint
from llm_experiment.chat.world import check_world, load_world
from llm_experiment.config import WorldConfig
from llm_experiment.dialogue.task import DialogueTask, load_task
from llm_experiment.plug_in import Kind, reference_of
from llm_experiment.records.folder import hash_file
from theory.errors import InvalidArgumentError, ModelError

MODULE = "parts_of_my_own"
PARTS = """
from dataclasses import replace

import numpy as np

from llm_experiment.agent.scripts import Say
from llm_experiment.auditing.behaviours import Behaviour
from llm_experiment.base.own import OwnBase
from llm_experiment.base.process import ProcessBase
from llm_experiment.base.shipped import language_model_folder
from llm_experiment.chat.features import Feature
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.tasks.classroom import TASK

EVENING = replace(TASK, name="evening")
BASE = OwnBase(
    tokenizer=str(language_model_folder("classroom")),
    load=lambda device: ProcessBase(DialogueProcess(TASK)),
)
LATE = Feature(name="late", bits=3, read=lambda state, n: (state.count > 2).long(),
               values=("early", "late"))
SHORT = replace(LATE, bits=1)
GRUNT = Say((13,))
SHOUT = Behaviour(name="shout", says=lambda prompt: prompt.last_said.upper())
NUMBER = 3

def length(replies):
    return np.array([min(len(reply), 10) / 10 for reply in replies])
"""
GROUPS = {
    Kind.TASK: ("evening", "EVENING"),
    Kind.REWARD: ("length", "length"),
    Kind.BASE_POLICY: ("exact", "BASE"),
    Kind.FEATURE: ("late", "LATE"),
    Kind.BEHAVIOUR: ("shout", "SHOUT"),
    Kind.SCRIPT: ("grunt", "GRUNT"),
}


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """A package with parts, installed in a folder of its own; its module's file."""
    path = tmp_path / "site" / f"{MODULE}.py"
    path.parent.mkdir()
    path.write_text(PARTS)
    info = path.parent / "my_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 1.0\n")
    entries = [
        f"[{kind.value}]\n{name} = {MODULE}:{attribute}\n"
        for kind, (name, attribute) in GROUPS.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(entries))
    monkeypatch.syspath_prepend(path.parent)
    yield path
    sys.modules.pop(MODULE, None)


def both(kind):
    """The two ways to name a part: by reference, and by its entry point."""
    name, attribute = GROUPS[kind]
    return f"{MODULE}:{attribute}", name


@pytest.mark.parametrize("kind", Kind)
def test_a_name_is_looked_for_among_the_parts_of_its_kind(kind):
    reference, name = both(kind)
    assert reference_of(name, kind) == reference_of(reference, kind) == reference
    assert [reference_of(name, other) for other in Kind if other is not kind] == [None] * 5


def test_a_task_of_ones_own_is_loaded_and_its_models_are_called_as_it_is(tmp_path):
    for name in both(Kind.TASK):
        task = load_task(name)
        assert isinstance(task, DialogueTask)
        assert task.name == "evening"
        with pytest.raises(
            ModelError, match=r"no trained language model in .*/evening/language_mo"
        ):
            language_model_folder(name, weights=tmp_path)
    with pytest.raises(InvalidArgumentError, match="must be a DialogueTask, got a int"):
        load_task(f"{MODULE}:NUMBER")
    with pytest.raises(InvalidArgumentError, match="unknown task 'opera'; there are classroom"):
        load_task("opera")


def test_a_reward_of_ones_own_scores_replies():
    for name in both(Kind.REWARD):
        score = load_score(WorldConfig(reward_model=name), name, device="cpu")
        np.testing.assert_array_equal(score(["", "12345"]), [0.0, 0.5])


def test_a_base_policy_of_ones_own_takes_the_place_of_the_model():
    process = load_world(WorldConfig(base_model="process"))
    for name in both(Kind.BASE_POLICY):
        config = WorldConfig(base_model=name, reward_model=f"{MODULE}:length")
        check_world(config, lengths=(64,))
        world = load_world(config)
        assert model_names(config)[0] == str(language_model_folder("classroom"))
        steps = [
            w.chat(n_episodes=2, n_tokens=64, generator=torch.Generator()).base_step
            for w in (world, process)
        ]
        torch.testing.assert_close(steps[0].log_probs, steps[1].log_probs)
    with pytest.raises(InvalidArgumentError, match=r"must be an OwnBase .* got a int"):
        own_base(f"{MODULE}:NUMBER")


def test_what_is_no_part_is_a_model(tmp_path, monkeypatch):
    assert own_base("tiny") is None
    assert own_base("owner/name") is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exact").mkdir()
    assert own_base("exact") is None  # a folder comes first
    assert isinstance(own_base(f"{MODULE}:BASE"), OwnBase)


def test_a_feature_of_ones_own_is_read_beside_the_tables():
    parser = load_world(WorldConfig()).parser
    for name in both(Kind.FEATURE):
        found = find_features([name, "always"], parser.n_tokens)
        assert [feature.name for feature in found] == ["always", name]
        reader = FeatureReader(parser, found)
        tokens = torch.zeros((1, 5), dtype=torch.int64)
        read = [int(reader.values(reader.read(tokens[:, :n]))[name]) for n in range(1, 6)]
        assert read == [0, 0, 1, 1, 1]


def test_codes_of_own_features_have_room_beside_the_tables():
    codes = [PHRASE_BITS, *(feature.bits for feature in FEATURES)]
    free = 1 - sum(Fraction(1, 2**bits) for bits in codes)
    assert Fraction(1, 2**3) <= free < Fraction(1, 2**1)
    with pytest.raises(
        InvalidArgumentError, match=f"leave {float(free):g} .* got 0.5 .*give them more"
    ):
        find_features([f"{MODULE}:SHORT"], 100)
    with pytest.raises(InvalidArgumentError, match=r"must be a Feature .* got a int"):
        find_features([f"{MODULE}:NUMBER"], 100)


def test_scripts_of_ones_own_are_priced_under_the_hash_of_their_file(installed):
    for name in both(Kind.SCRIPT):
        ((called, script),) = own_scripts([name]).items()
        assert called == f"{name} ({hash_file(installed)[:7]})"
        assert script == Say((13,))
    with pytest.raises(InvalidArgumentError, match=r"must be a Script .* got a int"):
        own_scripts([f"{MODULE}:NUMBER"])


def test_behaviours_of_ones_own_are_behaviours():
    for name in both(Kind.BEHAVIOUR):
        assert [behaviour.name for behaviour in own_behaviours([name])] == ["shout"]


def test_what_a_part_was_is_part_of_a_run(installed):
    config = WorldConfig(base_model=f"{MODULE}:BASE", task="evening")
    digest = hash_file(installed)
    assert part_fingerprints(config) == {f"{MODULE}:BASE": digest, "evening": digest}
    assert part_fingerprints(WorldConfig()) == {}
    for kind, found in ((Kind.REWARD, reward_fingerprint), (Kind.BEHAVIOUR, _of_behaviour)):
        assert all(found(name) == {name: digest} for name in both(kind))


def _of_behaviour(name):
    return behaviour_fingerprints([name])
