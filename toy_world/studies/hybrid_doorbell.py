"""The same demonstrations, for imitators and for learners: stay near it, or learn from it.

The demonstrator answers the door in the doorbell world and never does `BAD`. Two rewards are at
hand. The *true* one pays 1/2 for a1 and nothing else; the *flawed* one also pays 1 for `BAD`
(`toy_world.worlds.setting`). In the demonstrations the two never differ.

- *Imitators*: the mixture of every policy program of at most L bits, and the pessimistic imitator
  of its top set, which asks. An agent plans for a reward within a budget of KL to it.
- *Learners*: the tabular oracle of `toy_world.hybrid` with the demonstrations as offline data. The
  pessimist acts by what it would hand over; a hybrid learner acts for some episodes and is paid
  the reward; another has no demonstrations. To them the world is a process of two states, silence
  before and a bell before, which is what it is. The novelty, a second bell, is to them another
  bell.

All act from silence, as in the demonstrations; and again just after the novelty, where imitators
have never been.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, unique
from fractions import Fraction
from types import MappingProxyType
from typing import Final

import numpy as np

from theory.bayes_mixture import Update
from theory.process import (
    EnvironmentTable,
    History,
    HistoryTree,
    PolicyTable,
    UtilityTable,
    policy_table,
    reach_probabilities,
    values,
)
from toy_world.hybrid.mdp import Data, FiniteMDP, Ints, no_data
from toy_world.hybrid.runs import learn
from toy_world.hybrid.tabular import TabularOracle
from toy_world.planners.ask import asking_optimum
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.studies.mixtures import Demonstration, Mixture, mixture_at
from toy_world.studies.outcomes import utilities
from toy_world.worlds.environments import BAD, WORLDS, WorldName
from toy_world.worlds.setting import PAY, TRUE_PAY, Setting, ever_probability, setting_of

WORLD: Final = WorldName.DOORBELL
HORIZON: Final = 4
"""Steps of an episode."""
BUDGETS_NATS: Final = (0.0, 1.0, 4.0, 10.0)
ALPHA: Final = Fraction(1, 256)
"""Of the pessimistic imitator."""
EPISODES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""N_1 of hybrid learners; whoever does not learn acts as many episodes as the last."""
DELTA: Final = 0.05


@unique
class Pay(Enum):
    """What an agent is paid."""

    TRUE = "true"
    FLAWED = "flawed"


PAYS: Final = MappingProxyType({Pay.TRUE: TRUE_PAY, Pay.FLAWED: PAY})


@unique
class Agent(Enum):
    """Who acts."""

    DEMONSTRATOR = "the demonstrator"
    BAYESIAN = "near the Bayesian imitator"
    PESSIMISTIC = "near the pessimistic imitator"
    PESSIMIST = "pessimist, demonstrations alone"
    HYBRID = "hybrid learner"
    ONLINE = "learner without demonstrations"


@dataclass(frozen=True, kw_only=True)
class DoorbellOutcome:
    """What becomes of an agent, a mean over runs if it learns.

    Attributes:
        agent: who.
        pay: what it is paid; None for the demonstrator.
        budget_nats: of an imitator's agent.
        n_episodes: of acting.
        true_value: of its last policy, the mean true pay of a step; at most 1/2.
        bad_probability: that its last policy ever takes `BAD` in an episode.
        novel_bad_probability: the same after the novelty.
        n_bad: how often it takes `BAD` in all its episodes.
        regret: what the best policy would have been truly paid more in them, in mean pay of a step.
    """

    agent: Agent
    pay: Pay | None
    budget_nats: float | None
    n_episodes: int
    true_value: float
    bad_probability: float
    novel_bad_probability: float
    n_bad: float
    regret: float


def doorbell_mdp(pay: Pay) -> FiniteMDP:
    """The doorbell world as a process: a state for silence before, one for a bell before."""
    world = WORLDS[WORLD]
    return FiniteMDP(
        rewards=np.array([[float(each) for each in PAYS[pay]]] * len(world.emission)),
        successors=np.array(world.successor),
        probabilities=np.array(world.emission).astype(np.float64),
        initial=np.array([1.0, 0.0]),
        horizon=HORIZON,
    )


def watched_until_silence(
    setting: Setting, n_steps: int, *, rng: np.random.Generator
) -> Demonstration:
    """A demonstration of `n_steps` steps less those from its last bell on, if it ends with one."""
    drawn = Demonstration.draw(setting, n_steps, rng=rng)
    states = setting.world.states_along(drawn.actions, drawn.observations)
    last = max(k for k, state in enumerate(states) if state == 0)
    return Demonstration(
        setting=setting, actions=drawn.actions[:last], observations=drawn.observations[:last]
    )


def offline_data(watched: Sequence[Demonstration], *, rng: np.random.Generator) -> Data:
    """Demonstrations as data of as many runs, each paid either reward: they never differ.

    Args:
        watched: one a run.
        rng: draws the rewards.
    """
    mdp = doorbell_mdp(Pay.TRUE)
    data = no_data(mdp, len(watched))
    for run, each in enumerate(watched):
        states = each.setting.world.states_along(each.actions, each.observations)[:-1]
        np.add.at(data.visits[run], (np.array(states), each.actions, each.observations), 1)
    return Data(
        visits=data.visits, rewards=rng.binomial(data.counts, mdp.rewards).astype(np.float64)
    )


@dataclass(frozen=True, kw_only=True)
class Situations:
    """The imitator's mixture in silence and just after the novelty."""

    familiar: Mixture
    novel: Mixture


def situations_after(watched: Demonstration, *, limit_bits: int) -> Situations:
    """Both, after all of a demonstration.

    Args:
        watched: the demonstration.
        limit_bits: L of the imitator's programs.
    """
    n_steps = len(watched.actions)
    points = [watched.familiar(n_steps), watched.novel(n_steps)]
    found = watched.posteriors_at(points, limit_bits=limit_bits)
    familiar, novel = (
        mixture_at(each, watched.setting, state=watched.state_at(point))
        for each, point in zip(found, points, strict=True)
    )
    return Situations(familiar=familiar, novel=novel)


def imitator_outcomes(situations: Situations) -> list[DoorbellOutcome]:
    """The demonstrator, and agents near the imitators, for both rewards."""
    both = (situations.familiar, situations.novel)
    found = [
        _without_learning(Agent.DEMONSTRATOR, None, None, [(each.tau, each.nu) for each in both])
    ]
    for pay in Pay:
        for budget in BUDGETS_NATS:
            laws = [(_bayesian_plan(each, pay, budget), each.nu) for each in both]
            found.append(_without_learning(Agent.BAYESIAN, pay, budget, laws))
        for budget in BUDGETS_NATS:
            laws = [(_asking_plan(each, pay, budget), each.nu) for each in both]
            found.append(_without_learning(Agent.PESSIMISTIC, pay, budget, laws))
    return found


def _bayesian_plan(mixture: Mixture, pay: Pay, budget_nats: float) -> PolicyTable:
    base = mixture.imitator(update=Update.ALL)
    utility = _utility(mixture, pay)
    return expected_kl_optimum(base, mixture.nu, utility, budget_nats=budget_nats).pi


def _asking_plan(mixture: Mixture, pay: Pay, budget_nats: float) -> PolicyTable:
    base = mixture.pessimist(ALPHA, update=Update.DEMONSTRATOR)
    plan = asking_optimum(
        base,
        mixture.nu,
        _utility(mixture, pay),
        help_policy=mixture.tau,
        budget_nats=budget_nats,
    )
    return plan.law


def _utility(mixture: Mixture, pay: Pay) -> UtilityTable:
    proxy, true = utilities(mixture.nu)
    return proxy if pay is Pay.FLAWED else true


def _without_learning(
    agent: Agent,
    pay: Pay | None,
    budget_nats: float | None,
    laws: Sequence[tuple[PolicyTable, EnvironmentTable]],
) -> DoorbellOutcome:
    """An agent that acts by one policy in all of its episodes, in both situations."""
    (familiar, silence), (novel, bell) = laws
    _, true_utility = utilities(silence)
    true_value = float(values(familiar, silence, true_utility)[0][0])
    return DoorbellOutcome(
        agent=agent,
        pay=pay,
        budget_nats=budget_nats,
        n_episodes=EPISODES[-1],
        true_value=true_value,
        bad_probability=ever_probability(familiar, silence, BAD),
        novel_bad_probability=ever_probability(novel, bell, BAD),
        n_bad=EPISODES[-1] * expected_count(familiar, silence, BAD),
        regret=EPISODES[-1] * (float(max(TRUE_PAY)) - true_value),
    )


def learner_outcomes(
    situations: Situations,
    data: Data,
    *,
    scale: float,
    rng: np.random.Generator,
) -> list[DoorbellOutcome]:
    """The pessimist, the hybrid learner, and the one without demonstrations.

    Args:
        situations: for the worlds from silence and from the novelty on.
        data: the demonstrations, one a run.
        scale: of the uncertainties.
        rng: draws episodes.
    """
    plans = [
        (Agent.PESSIMIST, data, 0),
        *((Agent.HYBRID, data, n) for n in EPISODES),
        (Agent.ONLINE, no_data(doorbell_mdp(Pay.TRUE), data.n_runs), EPISODES[-1]),
    ]
    found = []
    for pay in Pay:
        mdp = doorbell_mdp(pay)
        for agent, offline, n_online in plans:
            n_steps = int(offline.counts.sum(axis=(1, 2)).max())
            oracle = TabularOracle(
                successors=mdp.successors,
                initial=mdp.initial,
                horizon=HORIZON,
                most_visits=n_steps + max(n_online, 1) * HORIZON,
                delta=DELTA,
                scale=scale,
            )
            learned = learn(mdp, oracle, offline, checkpoints=(n_online,), rng=rng)
            online = (learned.data.counts - offline.counts).sum(axis=1).mean(axis=0)
            found.append(_learnt(agent, pay, learned.final, online, n_online, situations))
    return found


def _learnt(
    agent: Agent,
    pay: Pay,
    policies: Ints,
    online: np.ndarray[tuple[int], np.dtype[np.float64]],
    n_online: int,
    situations: Situations,
) -> DoorbellOutcome:
    """An agent that learnt: its last policies, shape (R, H, S), and its actions, shape (A,)."""
    different, runs = np.unique(policies, axis=0, return_counts=True)
    shares = runs / runs.sum()
    acting = [
        _without_learning(
            agent,
            pay,
            None,
            [
                (markov_table(policy, state=0), situations.familiar.nu),
                (markov_table(policy, state=1), situations.novel.nu),
            ],
        )
        for policy in different
    ]
    mean = {
        name: float(shares @ [getattr(each, name) for each in acting])
        for name in ("true_value", "bad_probability", "novel_bad_probability", "n_bad", "regret")
    }
    if n_online:
        truly_paid = float(online @ [float(each) for each in TRUE_PAY]) / HORIZON
        mean["n_bad"] = float(online[BAD])
        mean["regret"] = n_online * float(max(TRUE_PAY)) - truly_paid
    return DoorbellOutcome(
        agent=agent, pay=pay, budget_nats=None, n_episodes=n_online or EPISODES[-1], **mean
    )


def markov_table(policy: Ints, *, state: int) -> PolicyTable:
    """A learner's policy on the tree of histories from a state on.

    Args:
        policy: an action for each step and state, shape (H, S).
        state: of the world, before the first step.

    Returns:
        Level t of shape ((|A||O|)^t, |A|).
    """
    world = WORLDS[WORLD]
    tree = HistoryTree(
        n_actions=world.n_actions, n_observations=world.n_observations, horizon=len(policy)
    )

    def act(history: History) -> tuple[Fraction, ...]:
        chosen = policy[len(history) // 2, world.state_after(history, state=state)]
        return tuple(Fraction(int(a == chosen)) for a in range(world.n_actions))

    return tuple(level.astype(np.float64) for level in policy_table(tree, act))


def expected_count(law: PolicyTable, nu: EnvironmentTable, action: int) -> float:
    """How often `action` is taken in an episode, in expectation."""
    reach = reach_probabilities(law, nu)
    return sum(float(met @ rows[:, action]) for met, rows in zip(reach, law, strict=False))


def doorbell_outcomes(
    *, n_steps: int, limit_bits: int, n_runs: int, scale: float, rng: np.random.Generator
) -> tuple[DoorbellOutcome, ...]:
    """Every agent; the imitators have the first run's demonstration.

    Args:
        n_steps: how long a demonstrator is watched.
        limit_bits: L of the imitator's programs.
        n_runs: R.
        scale: of the learners' uncertainties.
        rng: source of randomness.
    """
    setting = setting_of(WORLD, horizon=HORIZON)
    watched = [watched_until_silence(setting, n_steps, rng=rng) for _ in range(n_runs)]
    situations = situations_after(watched[0], limit_bits=limit_bits)
    return (
        *imitator_outcomes(situations),
        *learner_outcomes(situations, offline_data(watched, rng=rng), scale=scale, rng=rng),
    )
