"""Run folders for the figures: real episodes of agents that were set by hand, not trained."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.chat.world import load_world
from llm_experiment.config import Fidelity, Preset, preset_config
from llm_experiment.jobs import base_tasks, conclude_base, evaluate_job
from llm_experiment.records.folder import AGENTS, BASE, RESULT_FILE, claim_folder, record_hashes
from llm_experiment.records.reading import read_experiment
from llm_experiment.settings import Settings
from llm_experiment.suite import Suite, SuiteConfig, suite_jobs
from mightnt.results import write_json
from paper_figures.results import Sources
from paper_figures.toy import ToyResults

LENGTHS = (64, 80)
LABEL = "agents set by hand"


def settings_of(**suite) -> Settings:
    agent = preset_config(Preset.TINY)
    agent = replace(agent, stages=(replace(agent.stages[0], n_tokens=LENGTHS[0]),))
    return replace(
        Settings.start(Preset.TINY, Fidelity.OURS, Suite.DEFAULT, quick=True),
        agents=SuiteConfig(
            **{
                "budgets_nats": (12.0, 40.0),
                "n_seeds": 2,
                "realized_budgets_nats": (12.0,),
                "control_shifts": (),
                "long_lengths": (LENGTHS[1],),
                "unconstrained": True,
                "evaluation_lengths": LENGTHS,
                "n_evaluation_episodes": 5,
                "n_base_episodes": 12,
            }
            | suite
        ),
        agent=agent,
    )


def write_run(folder: Path, settings: Settings) -> Path:
    """What `llm_experiment.run` writes, but that agents are told to hand over, not trained to."""
    world = load_world(settings.agent.world)
    newline = world.parser.partner_opening[0]
    claim_folder(folder, settings, label=LABEL, models={})
    rows = []
    for job in suite_jobs(settings.agent, settings.agents):
        policy = LockstepPPO(world, job.config).policy
        with torch.no_grad():
            policy.actor.bias[newline] = 6.0 + job.config.seed
            policy.actor.bias[-1] = 3.0
        agent = SimpleNamespace(policy=policy, world=world)
        own = folder / AGENTS / job.name
        own.mkdir(parents=True)
        job_rows = [evaluate_job(job, agent, settings.agents, n, own) for n in LENGTHS]
        write_json(own / RESULT_FILE, job_rows)
        rows += job_rows
    of_base = (settings.agent, settings.agents, folder / BASE)
    base = conclude_base(*of_base, [task() for task in base_tasks(*of_base)])
    write_json(folder / "summary.json", {"label": LABEL, "base": base, "rows": rows})
    record_hashes(folder)
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", settings_of())


@pytest.fixture(scope="session")
def sources(run_folder) -> Sources:
    return Sources(
        found=read_experiment([run_folder]), toy=ToyResults(folder=Path("no toy results"))
    )


@pytest.fixture(scope="session")
def rows(run_folder) -> list[dict]:
    return json.loads((run_folder / "summary.json").read_text())["rows"]
