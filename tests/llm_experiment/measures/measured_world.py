"""Worlds, agents and rollouts whose numbers are known, for the tests of what is measured."""

import math
from dataclasses import replace

import numpy as np
import torch

from llm_experiment.agent.policy import FixedKLPolicy
from llm_experiment.agent.rollout import Rollout, play_episodes
from llm_experiment.base.process import ProcessBase
from llm_experiment.base.protocol import BaseStep
from llm_experiment.chat.turn_records import Speaker
from llm_experiment.chat.turns import TurnParser, TurnRules
from llm_experiment.chat.world import World
from llm_experiment.config import TargetRule
from llm_experiment.dialogue.process import DialogueProcess
from llm_experiment.measures.evaluation import (
    BasePolicy,
    Evaluation,
    base_evaluation,
    base_parts,
    evaluate,
    join_parts,
    play_base,
    play_behaviour,
)
from llm_experiment.measures.metrics import SMOOTHINGS, BaseEvaluation
from tests.llm_experiment.fakes.small_world import NO, encode, small_config, small_world
from tests.llm_experiment.fakes.tiny_task import TINY_TASK
from theory.budget import Accounting

PROCESS = DialogueProcess(TINY_TASK)
LEAK = SMOOTHINGS[1]


class LeakyBase(ProcessBase):
    """The process with a share of `LEAK` of every step given to the uniform distribution."""

    def begin(self, prompt_tokens, *, n_episodes, n_positions):
        session, step = super().begin(prompt_tokens, n_episodes=n_episodes, n_positions=n_positions)
        return LeakySession(session), leaky(step)


class LeakySession:
    def __init__(self, session):
        self.session = session

    def append(self, tokens, *, agent_wrote=None):
        return leaky(self.session.append(tokens, agent_wrote=agent_wrote))


def leaky(step):
    uniform = torch.tensor(math.log(LEAK / step.log_probs.shape[-1]))
    mixed = torch.logaddexp(step.log_probs + math.log1p(-LEAK), uniform)
    # A law that leaks says something after every transcript.
    nothing = torch.zeros_like(step.missing_mass)
    return BaseStep(log_probs=mixed, features=step.features, missing_mass=nothing)


def process_world(base=None) -> World:
    """Ann, who is never silent, talks with Bob; the base policy is the process or leaks."""
    parser = TurnParser(
        TurnRules(agent="Ann", partner="Bob"),
        pieces=PROCESS.vocabulary,
        encode=lambda text: PROCESS.encode(text).tolist(),
        decode=PROCESS.decode,
    )
    return World(
        base=base or LeakyBase(PROCESS),
        parser=parser,
        prompt_tokens=torch.from_numpy(PROCESS.prompt),
        score=lambda replies: np.array([float("good" in reply) for reply in replies]),
    )


def random_agent(world, *, scale=0.3, seed=0) -> FixedKLPolicy:
    env = world.env(small_config())
    agent = FixedKLPolicy(
        env.observation_space,
        env.action_space,
        lambda _: 1e-3,
        actor_learning_rate=1e-3,
        target_rule=TargetRule.ATTAINABLE,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.normal_(std=scale, generator=generator)
    return agent


def evaluated(agent, world, **changes) -> Evaluation:
    settings = {
        "process": None,
        "n_episodes": 60,
        "n_tokens": 40,
        "budget_nats": 2.0,
        "accounting": Accounting.EXACT,
        "seed": 0,
        "stream": (0,),
    }
    return evaluate(agent, world, **(settings | changes))


def base_evaluated(
    world, *, n_episodes, lengths, stream, at_once=None, process=None
) -> tuple[BaseEvaluation, dict[int, Evaluation]]:
    """What the base policy does, and its episodes by length."""
    at_once = at_once or n_episodes
    parts = base_parts(n_episodes, lengths, at_once=at_once, stream=stream)
    episodes = join_parts([play_base(world, part, process=process, seed=0) for part in parts])
    behaviour = play_behaviour(
        world,
        n_episodes=min(n_episodes, at_once),
        n_tokens=min(lengths),
        seed=0,
        stream=(stream,),
    )
    return base_evaluation(episodes, behaviour), episodes


def hand_made(texts, *, prompt="S: no\nT: no", empty_kl=0.25) -> Rollout:
    """A rollout with given continuations of a prompt, padded with the word `no`.

    A token of the agent costs its index times `empty_kl`.
    """
    world = small_world(prompt=prompt)
    length = len(encode(prompt))
    longest = max(len(encode(text)) for text in texts)
    padded = [[*encode(text), *[NO] * longest][:longest] for text in texts]
    tokens = torch.tensor([[*encode(prompt), *tokens] for tokens in padded])
    writers = world.parser.writers(tokens).numpy()
    shape = tokens.shape
    agents = (writers == Speaker.AGENT) & (np.arange(shape[1]) >= length)
    template = play_episodes(
        BasePolicy(world),
        world,
        n_episodes=len(texts),
        n_tokens=shape[1],
        budget_nats=0.0,
        accounting=Accounting.EXACT,
        seed=0,
        stream=(0,),
        keep_observations=False,
    )
    turns = world.parser.find_turns(tokens)
    position = np.arange(shape[1]) * np.ones(shape)
    return replace(
        template,
        tokens=tokens.numpy(),
        writers=writers,
        kl_nats=np.where(agents, empty_kl * position, 0.0),
        log_ratio_nats=np.where(agents, 2.0, 0.0),
        log_probs=np.where(agents, -0.5, 0.0),
        turns=turns,
        empty_turns=world.parser.are_empty(turns),
    )
