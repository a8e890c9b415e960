"""A run of many agents: one recorded agent under many seeds, its files copied."""

import json
import shutil
from pathlib import Path

import numpy as np

from llm_experiment.records.folder import AGENTS, BASE, RESULT_FILE
from tests.llm_experiment.fakes.recorded_run import RECORDED

_AGENT = "exact-budget3-seed0"
_EPISODES = "episodes-72.npz"


def write_many(folder: Path, n_agents: int) -> Path:
    """A finished run of `n_agents` agents, that differ by their seed alone."""
    folder.mkdir(parents=True)
    manifest = json.loads((RECORDED / "manifest.json").read_text(encoding="utf-8"))
    manifest["settings"]["agents"] |= {
        "budgets_nats": [3.0],
        "realized_budgets_nats": [],
        "n_seeds": n_agents,
    }
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    shutil.copytree(RECORDED / BASE, folder / BASE)
    for seed in range(n_agents):
        name = _AGENT.replace("seed0", f"seed{seed}")
        agent = shutil.copytree(RECORDED / AGENTS / _AGENT, folder / AGENTS / name)
        result = agent / RESULT_FILE
        rows = json.loads(result.read_text(encoding="utf-8"))
        rows = [row | {"agent": name, "seed": seed} for row in rows]
        result.write_text(json.dumps(rows), encoding="utf-8")
    return folder


def repeat_episodes(folder: Path, n_episodes: int) -> Path:
    """Give every evaluation `n_episodes` episodes: its own again and again."""
    for path in folder.glob(f"**/{_EPISODES}"):
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        n = len(arrays["tokens"])
        turns = [name for name in arrays if name.startswith("turn_")] + ["empty_turns"]
        places = np.arange(n_episodes) % n
        kept = {name: arrays[name] for name in arrays if arrays[name].shape[:1] != (n,)}
        grown = {name: arrays[name][places] for name in arrays if name not in {*kept, *turns}}
        again = -(-n_episodes // n)
        episodes = np.concatenate([arrays["turn_episode"] + n * k for k in range(again)])
        inside = episodes < n_episodes
        for name in turns:
            grown[name] = np.tile(arrays[name], again)[inside]
        grown["turn_episode"] = episodes[inside]
        np.savez_compressed(path, allow_pickle=False, **(kept | grown))
    return folder
