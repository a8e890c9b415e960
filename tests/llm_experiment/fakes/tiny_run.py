"""A run of seconds: two agents of three updates each, on untrained models of the shipped shapes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from llm_experiment.base.training import (
    new_language_model,
    new_reward_model,
    reply_tokenizer,
    save_models,
)
from llm_experiment.config import Preset, Stage, preset_config
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.dialogue.task import load_task
from llm_experiment.records.folder import hash_file
from llm_experiment.settings import Settings
from llm_experiment.suite import SuiteConfig

PROMPT_TOKENS = 37


def tiny_models(folder: Path) -> Path:
    """Untrained models of the shipped ones' shapes."""
    process = DialogueProcess(load_task("classroom"))
    save_models(
        folder / "models",
        process,
        new_language_model(process, seed=0),
        new_reward_model(reply_tokenizer(process), seed=0),
        {},
    )
    return folder / "models"


def tiny_settings(models: Path) -> Settings:
    """Two agents of three updates each."""
    agent = preset_config(Preset.TINY)
    world = replace(
        agent.world,
        base_model=str(models / "language_model"),
        reward_model=str(models / "reward_model"),
    )
    stages = (Stage(agent_steps=3 * 4 * 5, n_tokens=PROMPT_TOKENS + 5),)
    return Settings(
        agents=SuiteConfig(
            budgets_nats=(1.0,),
            n_seeds=2,
            realized_budgets_nats=(),
            control_shifts=(),
            evaluation_lengths=(PROMPT_TOKENS + 5, PROMPT_TOKENS + 9),
            n_evaluation_episodes=3,
            n_base_episodes=5,
        ),
        agent=replace(
            agent,
            world=world,
            stages=stages,
            n_episodes=4,
            ppo=replace(agent.ppo, n_epochs=1),
        ),
    )


def contents(out: Path) -> dict[str, str]:
    """Hashes of everything whose bytes a run determines: not logs, which hold the time."""
    return {
        str(path.relative_to(out)): hash_file(path)
        for path in sorted(out.rglob("*"))
        if path.suffix in {".safetensors", ".json"} and path.name != "manifest.json"
    }


def assert_same_episodes(first: Path, second: Path) -> None:
    """Every evaluation's episodes are the same in two folders, to the last bit."""
    paths = sorted(path.relative_to(first) for path in first.rglob("*.npz"))
    assert paths
    for path in paths:
        with np.load(first / path) as a, np.load(second / path) as b:
            assert a.files == b.files
            for name in a.files:
                np.testing.assert_array_equal(a[name], b[name])
