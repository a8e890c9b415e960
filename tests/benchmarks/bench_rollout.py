"""Episodes in lockstep against the language model alone, on the shipped tiny model.

The bare forward feeds the very tokens that the episodes consist of, and does nothing with what it
predicts: by transformers with a cache, and in machine code, as rollouts have it
(`llm_experiment.base.mixtral_steps`). The rest of a rollout is the agent (projection onto its
budget included), the turns, the ledger and the reward model.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from llm_experiment.agent.ppo import LockstepPPO
from llm_experiment.agent.rollout import Rollout, play_episodes
from llm_experiment.base.hugging_face import HuggingFaceBase, HuggingFaceSession
from llm_experiment.chat.world import load_world
from llm_experiment.config import Preset, preset_config

N_EPISODES = 64
N_TOKENS = 256
REPETITIONS = 3
GOAL = 0.75
"""Of the rate of transformers' forward."""


def seconds(run: Callable[[], object]) -> float:
    """Processor time, so that whatever else the machine does counts less."""
    start = time.process_time()
    run()
    return time.process_time() - start


def agent_and_rollout() -> tuple[LockstepPPO, Callable[[], Rollout]]:
    """An agent that has learnt for one update, so that it differs from the base model."""
    config = preset_config(Preset.TINY)
    (stage,) = config.stages
    stage = replace(stage, agent_steps=1, ramp_fraction=0.0, n_tokens=N_TOKENS)
    config = replace(config, stages=(stage,), n_episodes=N_EPISODES)
    agent = LockstepPPO(load_world(config.world), config).finish()

    def run() -> Rollout:
        return play_episodes(
            agent.policy,
            agent.world,
            n_episodes=N_EPISODES,
            n_tokens=N_TOKENS,
            budget_nats=config.constraint.episode_budget_nats,
            accounting=config.constraint.accounting,
            seed=0,
            stream=(0,),
            keep_observations=True,
        )

    return agent, run


def main() -> None:
    """Print tokens a second of both, and their ratio."""
    torch.set_num_threads(1)
    agent, rollout = agent_and_rollout()
    base, prompt = agent.world.base, agent.world.prompt_tokens
    assert isinstance(base, HuggingFaceBase)
    model = base.model
    columns = torch.from_numpy(rollout().tokens[:, len(prompt) :]).T

    @torch.inference_mode()
    def by_transformers() -> None:
        session = HuggingFaceSession(model, head=None, n_positions=N_TOKENS)
        session.share(session.read(prompt[None]), N_EPISODES)
        for tokens in columns:
            session.append(tokens)

    @torch.inference_mode()
    def in_machine_code() -> None:
        session, _ = base.begin(prompt, n_episodes=N_EPISODES, n_positions=N_TOKENS)
        for tokens in columns:
            session.append(tokens)

    runs = {
        "language model alone, by transformers": by_transformers,
        "language model alone, in machine code": in_machine_code,
        "rollout": rollout,
    }
    times = [[seconds(run) for run in runs.values()] for _ in range(REPETITIONS)]
    best = [min(of_one) for of_one in zip(*times, strict=True)]
    n_tokens = columns.numel()
    table = Table(title=f"{N_EPISODES} episodes of {N_TOKENS} tokens, one thread")
    for header in ("", "tokens/s"):
        table.add_column(header, justify="right" if header else "left")
    for name, least in zip(runs, best, strict=True):
        table.add_row(name, f"{n_tokens / least:,.0f}")
    console = Console()
    console.print(table)
    bare, fast, whole = best
    console.print(f"rollout / transformers: {bare / whole:.0%} (goal: {GOAL:.0%} or more)")
    console.print(f"rollout / machine code: {fast / whole:.0%}")


if __name__ == "__main__":
    main()
