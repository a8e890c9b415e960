"""Episodes in lockstep against the language model alone, on the shipped tiny model.

The bare forward feeds the very tokens that the episodes consist of, through the same cache, and
does nothing with what it predicts. The rest of a rollout is the agent (projection onto its
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
from llm_experiment.chat.world import load_world
from llm_experiment.config import Preset, preset_config

N_EPISODES = 64
N_TOKENS = 256
REPETITIONS = 5
GOAL = 0.6


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
    columns = torch.from_numpy(rollout().tokens[:, len(prompt) :]).T

    @torch.inference_mode()
    def forward() -> None:
        session, _ = base.begin(prompt, n_episodes=N_EPISODES, n_positions=N_TOKENS)
        for tokens in columns:
            session.append(tokens)

    times = [(seconds(forward), seconds(rollout)) for _ in range(REPETITIONS)]
    alone, whole = min(bare for bare, _ in times), min(played for _, played in times)
    n_tokens = columns.numel()
    table = Table(title=f"{N_EPISODES} episodes of {N_TOKENS} tokens, one thread")
    for header in ("", "tokens/s"):
        table.add_column(header, justify="right" if header else "left")
    table.add_row("language model alone", f"{n_tokens / alone:,.0f}")
    table.add_row("rollout", f"{n_tokens / whole:,.0f}")
    console = Console()
    console.print(table)
    console.print(f"rollout / language model: {alone / whole:.0%} (goal: {GOAL:.0%} or more)")


if __name__ == "__main__":
    main()
