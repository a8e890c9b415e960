"""A run folder whose every number is known: real files, random numbers, seven tokens."""

import json
import math
from pathlib import Path

import numpy as np

from llm_experiment.chat.turn_records import Speaker
from llm_experiment.config import Regulariser
from llm_experiment.measures.evaluation import BasePolicy, evaluate
from llm_experiment.measures.metrics import AgentRow, base_to_json, row_to_json
from llm_experiment.records.folder import (
    AGENTS,
    BASE,
    RESULT_FILE,
    UPDATES_FILE,
    claim_folder,
    episodes_file,
)
from llm_experiment.settings import Settings
from llm_experiment.suite import SuiteConfig, suite_jobs
from mightnt.results import write_json
from tests.llm_experiment.fakes.small_world import PIECES, small_config, small_world
from tests.llm_experiment.measures.measured_world import base_evaluated
from theory.budget import Accounting

LENGTHS = (24, 30)
N_EPISODES = 4
N_UPDATES = 3
NUMBERS = ("kl_nats", "log_ratio_nats", "log_probs", "target_nats")
HOSTILE = {
    " yes": "</script><script>document.body.dataset.hacked = 1</script>",
    " no": ' <img src=x onerror="document.body.dataset.hacked = 1"> & \'"',
    " please": " \u2028</ScRiPt><!--\u202e\x00\u2029javascript:alert(1)`${1}`\\",
}
"""Texts of tokens that a page must show and never run."""
HOSTILE_TEXTS = tuple(HOSTILE.get(piece, piece) for piece in PIECES)


def settings(**changes) -> Settings:
    """Budgets 1 and 3 with two seeds, realised accounting, and no constraint: six agents."""
    suite = {
        "budgets_nats": (1.0, 3.0),
        "n_seeds": 2,
        "realized_budgets_nats": (3.0,),
        "control_shifts": (),
        "unconstrained": True,
        "evaluation_lengths": LENGTHS,
        "n_evaluation_episodes": N_EPISODES,
    }
    return Settings(agents=SuiteConfig(**(suite | changes)), agent=small_config())


def write_run(folder: Path, run_settings: Settings, *, seed: int = 0) -> Path:
    """A finished run of `run_settings`, but for its summary: agents that play the base policy.

    The numbers of the agents' tokens are drawn anew, so that none equals another, and all turns of
    an agent in its episode 0 are called empty, so that this is silent.
    """
    rng = np.random.default_rng(seed)
    claim_folder(folder, run_settings, label="a trial", models={"a/model": "0" * 64})
    suite = run_settings.agents
    jobs = suite_jobs(run_settings.agent, suite)
    assert {job.config.constraint.regulariser for job in jobs} > {Regulariser.NONE}
    base, episodes = base_evaluated(
        small_world(), n_episodes=N_EPISODES, lengths=suite.evaluation_lengths, stream=1
    )
    for n_tokens, evaluation in episodes.items():
        store(folder / BASE, n_tokens, evaluation.arrays())
    write_json(folder / BASE / RESULT_FILE, base_to_json(base))
    for job in jobs:
        write_job(folder, job, suite.evaluation_lengths, rng)
    return folder


def write_job(folder, job, lengths, rng) -> None:
    """One agent's files."""
    world = small_world()
    budget = job.config.constraint.episode_budget_nats
    rows = []
    for n_tokens in lengths:
        evaluation = evaluate(
            BasePolicy(world),
            world,
            process=None,
            n_episodes=N_EPISODES,
            n_tokens=n_tokens,
            budget_nats=budget,
            accounting=Accounting.EXACT,
            seed=job.config.seed,
            stream=(2, n_tokens),
        )
        own = evaluation.rollout.agent_steps
        drawn = {name: np.where(own, rng.exponential(size=own.shape), 0) for name in NUMBERS}
        arrays = evaluation.arrays() | drawn
        arrays["empty_turns"] |= (arrays["turn_episode"] == 0) & (
            arrays["turn_speaker"] == Speaker.AGENT
        )
        if math.isfinite(budget):
            arrays["budget_nats"] = np.sort(rng.uniform(0, budget, own.shape))[:, ::-1]
        store(folder / AGENTS / job.name, n_tokens, arrays)
        row = AgentRow(
            agent=job.name,
            variant=job.variant,
            budget_nats=budget,
            seed=job.config.seed,
            n_tokens=n_tokens,
            trained_at_n_tokens=job.config.stages[-1].n_tokens,
            numbers=evaluation.row(),
        )
        rows.append(row_to_json(row))
    updates = [
        {
            "agent_steps": 100 * (i + 1),
            "budget_nats": budget,
            "return_mean": rng.normal(),
            "spent_nats_mean": rng.exponential(),
            "empty_share": math.nan if i == 0 else rng.uniform(),
            "entropy_nats": rng.exponential(),
        }
        for i in range(N_UPDATES)
    ]
    write_json(folder / AGENTS / job.name / UPDATES_FILE, updates)
    write_json(folder / AGENTS / job.name / RESULT_FILE, rows)


def store(folder: Path, n_tokens: int, arrays) -> None:
    """Write episodes as `llm_experiment.run` does."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / episodes_file(n_tokens), allow_pickle=False, **arrays)


def load(folder: Path, n_tokens: int) -> dict:
    """The arrays of an evaluation."""
    with np.load(folder / episodes_file(n_tokens), allow_pickle=False) as stored:
        return dict(stored)


def page_data(page: str) -> dict:
    """The data in a page, as a browser's parser finds them."""
    start = page.index('<script type="application/json" id="run-data">')
    start = page.index(">", start) + 1
    return json.loads(page[start : page.index("</script", start)])
