"""The pessimistic imitator at work: learning from a demonstrator, and standing up to an agent.

Two classes of models, with prior weights `w(p) = 2^-len(p)`:

- *all programs* of at most L bits (`toy_world.programs.posterior`), merged where they agree on a
  history and on its continuations. Asked at given situations.
- the *programs of short memory*: those that look back one step at most and know the time modulo 2
  at most. What they do for ever is a finite table, so that merging them is exact on every history
  (Statement.TOP_SET speaks of one fixed class of models) and long histories cost nothing.

In both a demonstrator mu = tau teaches, step by step; the top set, `nu_alpha` and the help
probability `theta_q` follow (Statement.PESSIMISTIC_IMITATOR). What is measured, both sides each:

- `|M^alpha| <= 1/alpha`;
- Ville: `P(mu in M^alpha_h at all h) >= 1 - alpha/w(mu)`, by enumeration of every history that mu
  can bring about up to some time (integers: exact), and by simulation far beyond;
- `E sum_t theta_q^3` against Statement.LIMITED_QUERYING, a bound taken from the literature;
- `KL(pi||nu_alpha) >= KL(pi||mu)` in both update rules (`Update`), in the smallest example in
  which one of them breaks it;
- an agent that optimises within a KL budget to `nu_alpha` and may ask: what it earns and asks,
  in one episode and over many, by the side of one with a Bayesian imitator.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from theory.bayes_mixture import PolicyStack, Update, policy_mixture, stack_tables
from theory.constraints import Nats, fixed_kl_nats
from theory.errors import InvalidArgumentError, InvalidBudgetError, UnreachableLengthError
from theory.pessimism import help_probability, pessimistic_imitator, top_set
from theory.process import (
    EnvironmentTable,
    History,
    HistoryTree,
    PolicyTable,
    UtilityTable,
    action_values,
    as_table,
    utility_table,
)
from toy_world.planners.ask import asking_optimum
from toy_world.planners.expected_kl import expected_kl_optimum
from toy_world.programs.columns import ColumnLayout, QueryPoint
from toy_world.programs.enumeration import enumerate_policies
from toy_world.programs.language import Language, Policy
from toy_world.programs.posterior import Posterior, posterior
from toy_world.programs.semantics import action_probabilities, trace_of
from toy_world.studies.theorem1 import Setting
from toy_world.worlds.demonstrator import Memory, demonstrate, likeliest_steps, memory_of
from toy_world.worlds.environments import BAD

LONGEST_PERIOD: Final = 2
"""Programs of short memory know the time modulo this."""
LEAST_WEIGHT: Final = 1e-280
"""Smaller posterior weights are taken for 0: planners divide by probabilities."""
PAY: Final = (Fraction(0), Fraction(1, 2), Fraction(1))
"""What the proxy utility pays for a step with a0, a1 and a2 = `BAD`."""
TRUE_PAY: Final = (Fraction(0), Fraction(1, 2), Fraction(0))
"""What the true utility pays: nothing for `BAD`."""


def pay_utility(tree: HistoryTree, pay: Sequence[Fraction]) -> UtilityTable:
    """The mean over the steps of what their actions pay, shape ((|A||O|)^m,), exact."""

    def mean(history: History) -> Fraction:
        return sum((pay[a] for a in history[::2]), Fraction(0)) / tree.horizon

    return utility_table(tree, mean)


def ever_probability(law: PolicyTable, nu: EnvironmentTable, action: int) -> float:
    """The probability that `action` is taken at least once; exactly 0 if `law` never takes it."""
    later: Any = np.zeros(nu[-1].size)
    for rows, observations in zip(reversed(law), reversed(nu), strict=True):
        happens = action_values(observations.astype(np.float64), later)
        happens[:, action] = 1.0
        later = (rows * happens).sum(axis=-1)
    return float(later[0])


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A posterior over behaviours on one tree, and the demonstrator and world there.

    Attributes:
        weights: of classes that differ somewhere on the tree, sum 1, shape (n,).
        models: what they do, level t of shape (n, (|A||O|)^t, |A|).
        tau: what the demonstrator does, level t of shape ((|A||O|)^t, |A|).
        nu: the world.
    """

    weights: NDArray[np.float64]
    models: PolicyStack
    tau: PolicyTable
    nu: EnvironmentTable

    @cached_property
    def place_of_tau(self) -> int:
        """Which class is the demonstrator's.

        Raises:
            UnreachableLengthError: none is; the mixture's programs are too short.
        """
        same = np.all(
            [
                (models == tau).all(axis=(1, 2))
                for models, tau in zip(self.models, self.tau, strict=True)
            ],
            axis=0,
        )
        if not same.any():
            raise UnreachableLengthError(
                "no program of the mixture does as the demonstrator does; allow more bits"
            )
        return int(same.argmax())

    def top_set(self, alpha: Fraction) -> NDArray[np.bool_]:
        """The top set at the root."""
        return top_set(self.weights, alpha)

    def imitator(self, *, update: Update) -> PolicyTable:
        """The Bayesian imitator `xi`."""
        return policy_mixture(self.weights, self.models, update=update)

    def pessimist(self, alpha: Fraction, *, update: Update) -> PolicyTable:
        """The pessimistic imitator `nu_alpha`."""
        return pessimistic_imitator(self.weights, self.models, alpha=alpha, update=update)


def mixture_at(found: Posterior, setting: Setting, *, state: int) -> Mixture:
    """The mixture of all programs at one situation, weights below `LEAST_WEIGHT` aside.

    Args:
        found: the posterior there.
        setting: world and demonstrator.
        state: the world's state there.
    """
    weights, models = found.by_continuation()
    weights[weights < LEAST_WEIGHT] = 0.0
    tau = tuple(level.astype(np.float64) for level in found.on_tree(setting.tau))
    nu = tuple(level.astype(np.float64) for level in setting.world.table(found.tree, state=state))
    return Mixture(weights=weights, models=models, tau=tau, nu=nu)


def mixtures_while_watching(
    setting: Setting, *, limit_bits: int, times: Sequence[int], rng: np.random.Generator
) -> tuple[Mixture, ...]:
    """The mixture of all programs of at most L bits after each of `times` steps of demonstration.

    Args:
        setting: world, demonstrator and horizon.
        limit_bits: L.
        times: increasing, each at least 0.
        rng: draws the demonstration.
    """
    actions, observations = demonstrate(setting.world, setting.tau, max(times), rng=rng)
    states = setting.world.states_along(actions, observations)
    situations = [QueryPoint(n_steps=k) for k in times]
    found = _posteriors(setting, limit_bits, actions, observations, situations)
    return tuple(
        mixture_at(each, setting, state=states[k]) for each, k in zip(found, times, strict=True)
    )


def novel_mixture(
    setting: Setting, *, limit_bits: int, n_steps: int, rng: np.random.Generator
) -> Mixture:
    """The same after `n_steps` of demonstration and then the world's novelty.

    While it happens the demonstrator takes its likeliest actions.
    """
    actions, observations = demonstrate(setting.world, setting.tau, n_steps, rng=rng)
    state = setting.world.states_along(actions, observations)[-1]
    recent = tuple(np.stack([actions, observations], axis=1).reshape(-1).tolist())
    extra = likeliest_steps(
        setting.tau, recent, setting.world.novelty[state], language=setting.language
    )
    situation = QueryPoint(n_steps=n_steps, extra=extra)
    (found,) = _posteriors(setting, limit_bits, actions, observations, [situation])
    return mixture_at(found, setting, state=setting.world.state_after(extra, state=state))


def _posteriors(
    setting: Setting,
    limit_bits: int,
    actions: NDArray[np.int64],
    observations: NDArray[np.int64],
    situations: Sequence[QueryPoint],
) -> list[Posterior]:
    layout = ColumnLayout(
        actions,
        observations,
        situations,
        n_actions=setting.world.n_actions,
        n_observations=setting.world.n_observations,
        horizon=setting.horizon,
    )
    enumeration = enumerate_policies(setting.language, layout, limit_bits)
    return [posterior(enumeration, index) for index in range(len(situations))]


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How an agent does in one episode, planned within a budget.

    Attributes:
        update: which actions update its imitator's posterior.
        alpha: the imitator's threshold; None for the Bayesian imitator.
        budget_nats: eps, of expected KL to the imitator.
        value: by the proxy utility.
        bound: no plan within the budget has a greater value.
        true_value: by the true utility.
        n_asks: the expected number of steps in which it asks.
        bad_probability: of ever taking `BAD`.
    """

    update: Update
    alpha: Fraction | None
    budget_nats: float
    value: float
    bound: float
    true_value: float
    n_asks: float
    bad_probability: float


def conduct_with_pessimist(
    mixture: Mixture, *, alpha: Fraction, update: Update, budget_nats: float
) -> Conduct:
    """The agent with the pessimistic imitator as base, which may ask the demonstrator."""
    base = mixture.pessimist(alpha, update=update)
    proxy, true = _pays(mixture.nu)
    plan = asking_optimum(base, mixture.nu, proxy, help_policy=mixture.tau, budget_nats=budget_nats)
    return Conduct(
        update=update,
        alpha=alpha,
        budget_nats=budget_nats,
        value=plan.value,
        bound=plan.bound,
        true_value=_value(plan.law, mixture.nu, true),
        n_asks=plan.expected_asks,
        bad_probability=ever_probability(plan.law, mixture.nu, BAD),
    )


def conduct_with_bayesian(mixture: Mixture, *, budget_nats: float) -> Conduct:
    """The agent with the Bayesian imitator as base; every action updates the posterior."""
    proxy, true = _pays(mixture.nu)
    base = mixture.imitator(update=Update.ALL)
    plan = expected_kl_optimum(base, mixture.nu, proxy, budget_nats=budget_nats)
    return Conduct(
        update=Update.ALL,
        alpha=None,
        budget_nats=budget_nats,
        value=plan.value,
        bound=plan.bound,
        true_value=_value(plan.pi, mixture.nu, true),
        n_asks=0.0,
        bad_probability=ever_probability(plan.pi, mixture.nu, BAD),
    )


def _pays(nu: EnvironmentTable) -> tuple[UtilityTable, UtilityTable]:
    """The proxy and the true utility on the tree of `nu`."""
    return _pays_on(*nu[0].shape[1:], len(nu))


@lru_cache(maxsize=16)
def _pays_on(
    n_actions: int, n_observations: int, horizon: int
) -> tuple[UtilityTable, UtilityTable]:
    tree = HistoryTree(n_actions=n_actions, n_observations=n_observations, horizon=horizon)
    proxy, true = (pay_utility(tree, pay).astype(np.float64) for pay in (PAY, TRUE_PAY))
    return proxy, true


def _value(law: PolicyTable, nu: EnvironmentTable, utility: UtilityTable) -> float:
    later: Any = utility
    for rows, observations in zip(reversed(law), reversed(nu), strict=True):
        later = (rows * action_values(observations, later)).sum(axis=-1)
    return float(later[0])


@dataclass(frozen=True, kw_only=True)
class DrivenOut:
    """Two models, of which an agent can drive the demonstrator out of the top set.

    Attributes:
        alpha: the threshold.
        weights: of mu and the other.
        models: their stack; mu is the first.
        pi: what the agent does: the bad action, always.
    """

    alpha: Fraction
    weights: tuple[Fraction, ...]
    models: PolicyStack
    pi: PolicyTable

    def kl_to_imitator(self, update: Update) -> Nats:
        """`KL(pi||nu_alpha)`, exact."""
        base = pessimistic_imitator(self.weights, self.models, alpha=self.alpha, update=update)
        return fixed_kl_nats(self.pi, base)

    def kl_to_demonstrator(self) -> Nats:
        """`KL(pi||mu)`, exact."""
        return fixed_kl_nats(self.pi, tuple(level[0] for level in self.models))


def driven_out() -> DrivenOut:
    """The smallest example in which the guarantee fails if every action updates the posterior.

    Two steps, two actions, one observation, two models of equal weight: mu takes the bad action
    with probability 1/10 in the first step and never again; the other always takes it. After the
    bad action the posterior of mu is 1/11, below alpha = 3/10, and what mu never does has cost
    ln 10 nats in all. One step is not enough: until the first action both rules agree. One model
    is not either.
    """
    bad, good = (as_table([[0, 1]]), as_table([[1, 0]]))
    mu: PolicyTable = (as_table([[Fraction(9, 10), Fraction(1, 10)]]), np.repeat(good, 2, axis=0))
    other: PolicyTable = (bad, np.repeat(bad, 2, axis=0))
    return DrivenOut(
        alpha=Fraction(3, 10),
        weights=(Fraction(1, 2), Fraction(1, 2)),
        models=stack_tables([mu, other]),
        pi=other,
    )


@dataclass(frozen=True, kw_only=True)
class ShortMemory:
    """All programs of short memory of at most L bits, merged by behaviour on every history.

    What they do depends on a *state*: 0 before the first step, and after t steps of which the
    last was (a, o), `1 + ((t mod 2) |A| + a) |O| + o`.

    Attributes:
        setting: world and demonstrator.
        limit_bits: L.
        weights: prior weights in units of 2^-L, exact, in order of the shortest program;
            shape (n,).
        programs: the shortest program of each class.
        rows: what each does in each state, exact (dyadic), shape (n, n_states, |A|).
        place_of_tau: which class is the demonstrator's.
    """

    setting: Setting
    limit_bits: int
    weights: NDArray[np.int64]
    programs: tuple[Policy, ...]
    rows: NDArray[np.float64]
    place_of_tau: int

    @property
    def weight_of_tau(self) -> Fraction:
        """`w(mu)`, normalised."""
        return Fraction(int(self.weights[self.place_of_tau]), int(self.weights.sum()))

    def state_after(self, t: Any, action: Any, observation: Any) -> Any:
        """The state after t >= 1 steps, the last of them (action, observation)."""
        world = self.setting.world
        parity = t % LONGEST_PERIOD
        return 1 + (parity * world.n_actions + action) * world.n_observations + observation

    def on_tree(self, t: int, state: int, horizon: int) -> PolicyStack:
        """What the models do after t steps in `state`, level j of shape (n, (|A||O|)^j, |A|)."""
        world = self.setting.world
        step = np.arange(world.n_actions * world.n_observations)
        actions, observations = np.divmod(step, world.n_observations)
        levels = [self.rows[:, [state]]]
        for j in range(1, horizon):
            states = self.state_after(t + j, actions, observations)
            levels.append(self.rows[:, np.tile(states, len(step) ** (j - 1))])
        return tuple(levels)

    def mixture(
        self, weights: NDArray[np.float64], *, t: int, state: int, world_state: int, horizon: int
    ) -> Mixture:
        """The mixture with the posterior `weights` after t steps."""
        world = self.setting.world
        models = self.on_tree(t, state, horizon)
        tree = HistoryTree(
            n_actions=world.n_actions, n_observations=world.n_observations, horizon=horizon
        )
        return Mixture(
            weights=weights,
            models=models,
            tau=tuple(level[self.place_of_tau] for level in models),
            nu=tuple(level.astype(np.float64) for level in world.table(tree, state=world_state)),
        )


def short_memory_class(setting: Setting, *, limit_bits: int) -> ShortMemory:
    """All programs of at most L bits that look back a step at most, and two for the time.

    Raises:
        UnreachableLengthError: the demonstrator is longer than L.
        InvalidArgumentError: the demonstrator's memory is longer.
    """
    language, tau = setting.language, setting.tau
    if not _is_short(memory_of(tau)):
        raise InvalidArgumentError(
            f"the demonstrator must look back one step at most, got {language.show(tau)}"
        )
    if language.length(tau) > limit_bits:
        raise UnreachableLengthError(
            f"the demonstrator's program has {language.length(tau)} bits, more than "
            f"{limit_bits}; allow at least as many"
        )
    histories = list(_histories_of_states(language))
    found: dict[bytes, tuple[Policy, NDArray[np.float64]]] = {}
    weights: dict[bytes, int] = {}
    for bits, program in language.policies.up_to(limit_bits):
        if _is_short(memory_of(program)):
            rows = _rows(program, histories, language)
            key = rows.tobytes()
            found.setdefault(key, (program, rows))
            weights[key] = weights.get(key, 0) + 2 ** (limit_bits - bits)
    return ShortMemory(
        setting=setting,
        limit_bits=limit_bits,
        weights=np.array([weights[key] for key in found], dtype=np.int64),
        programs=tuple(program for program, _ in found.values()),
        rows=np.stack([rows for _, rows in found.values()]),
        place_of_tau=list(found).index(_rows(tau, histories, language).tobytes()),
    )


def _is_short(memory: Memory | None) -> bool:
    return memory is not None and memory.n_steps <= 1 and memory.period <= LONGEST_PERIOD


def _histories_of_states(language: Language) -> Iterator[History]:
    """A history that leads to each state, in order."""
    yield ()
    for parity in range(LONGEST_PERIOD):
        for action in range(language.n_actions):
            for observation in range(language.n_observations):
                steps_before = (parity - 1) % LONGEST_PERIOD
                yield (*(0, 0) * steps_before, action, observation)


def _rows(program: Policy, histories: Sequence[History], language: Language) -> NDArray[np.float64]:
    sizes = {"n_actions": language.n_actions, "n_observations": language.n_observations}
    return np.array(
        [action_probabilities(program, trace_of(program, h, **sizes)) for h in histories],
        dtype=np.float64,
    )


@dataclass(frozen=True, kw_only=True)
class Guarantees:
    """Both sides of the guarantees for one alpha, by enumeration of all histories up to T.

    Attributes:
        alpha: the threshold.
        largest_top_set: of any history.
        stays: `P(mu in M^alpha at all t <= T)`.
        help_cubed: `E sum_{t<T} theta_q^3`, T terms.
    """

    alpha: Fraction
    largest_top_set: int
    stays: Fraction
    help_cubed: Fraction


def exact_guarantees(
    models: ShortMemory, *, alphas: Sequence[Fraction], n_steps: int
) -> tuple[Guarantees, ...]:
    """Both sides for every alpha, over every history that mu can bring about in T steps.

    In integers: weights are multiples of 2^-L and probabilities dyadic.

    Args:
        models: the class; its demonstrator acts, and each of its actions updates the posterior.
        alphas: thresholds.
        n_steps: T >= 1.
    """
    if n_steps < 1:
        raise InvalidArgumentError(f"n_steps must be >= 1, got {n_steps}")
    place = models.place_of_tau
    unit = _common_denominator(models.rows)
    rows = (models.rows * unit).astype(np.int64).astype(object)
    largest = dict.fromkeys(alphas, 0)
    left = dict.fromkeys(alphas, Fraction(0))
    cubes = dict.fromkeys(alphas, Fraction(0))
    waiting = deque([_Node(models)])
    while waiting:
        node = waiting.pop()
        for alpha in alphas:
            inside = top_set(node.weights, alpha)
            largest[alpha] = max(largest[alpha], int(inside.sum()))
            if node.t < n_steps:
                missing = unit - rows[inside, node.state].min(axis=0).sum()
                cubes[alpha] += node.probability * Fraction(missing, unit) ** 3
            if alpha not in node.left and not inside[place]:
                node.left.add(alpha)
                left[alpha] += node.probability
        if node.t < n_steps:
            waiting.extend(node.followers(rows, unit))
    return tuple(
        Guarantees(
            alpha=alpha,
            largest_top_set=largest[alpha],
            stays=1 - left[alpha],
            help_cubed=cubes[alpha],
        )
        for alpha in alphas
    )


class _Node:
    """A history that mu can bring about.

    Attributes:
        t: its steps.
        state: the models' state.
        world_state: the world's.
        probability: under mu.
        weights: of the models, up to a factor, exact.
        left: the thresholds at which mu has not always been in the top set.
    """

    def __init__(self, models: ShortMemory) -> None:
        self.models = models
        self.t, self.state, self.world_state = 0, 0, 0
        self.probability = Fraction(1)
        self.weights: Any = models.weights.astype(object)
        self.left: set[Fraction] = set()

    def followers(self, rows: Any, unit: int) -> Iterator["_Node"]:
        """The histories of one step more; `rows` are the models' in units of `1 / unit`."""
        models, world = self.models, self.models.setting.world
        acts = rows[models.place_of_tau, self.state]
        for action in np.flatnonzero(acts > 0).tolist():
            weights = self.weights * rows[:, self.state, action]
            share = self.probability * Fraction(acts[action], unit)
            for observation, seen in enumerate(world.emission[self.world_state][action]):
                if seen:
                    node = _Node(models)
                    node.t = self.t + 1
                    node.state = models.state_after(node.t, action, observation)
                    node.world_state = world.successor[self.world_state][action][observation]
                    node.probability = share * seen
                    node.weights = weights
                    node.left = set(self.left)
                    yield node


def _common_denominator(rows: NDArray[np.float64]) -> int:
    """The least power of 2 that makes all probabilities integers."""
    return math.lcm(*(value.as_integer_ratio()[1] for value in np.unique(rows).tolist()))


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Runs of a demonstrator, watched at one alpha.

    Attributes:
        alpha: the threshold.
        stayed: whether mu was in the top set at all t <= T, shape (n_runs,).
        help_probability: theta_q before each step, shape (n_runs, T).
        top_set_size: shape (n_runs, T).
    """

    alpha: Fraction
    stayed: NDArray[np.bool_]
    help_probability: NDArray[np.float64]
    top_set_size: NDArray[np.int64]

    @property
    def help_cubed(self) -> NDArray[np.float64]:
        """`sum_{t<T} theta_q^3` of each run."""
        return np.asarray((self.help_probability**3).sum(axis=1))


def watch(
    models: ShortMemory,
    *,
    alphas: Sequence[Fraction],
    n_steps: int,
    n_runs: int,
    rng: np.random.Generator,
) -> tuple[Watched, ...]:
    """Draw histories from the demonstrator in its world and follow the imitators along them.

    Args:
        models: the class.
        alphas: thresholds.
        n_steps: T >= 1.
        n_runs: how many histories, at least 1.
        rng: draws them.
    """
    for name, count in (("n_steps", n_steps), ("n_runs", n_runs)):
        if count < 1:
            raise InvalidArgumentError(f"{name} must be >= 1, got {count}")
    world, place = models.setting.world, models.place_of_tau
    emission = np.array(world.emission, dtype=np.float64)
    successor = np.array(world.successor)
    prior = models.weights / models.weights.sum()
    weights = np.tile(prior, (n_runs, 1))
    state = np.zeros(n_runs, dtype=np.int64)
    world_state = np.zeros(n_runs, dtype=np.int64)
    stayed = {alpha: np.ones(n_runs, dtype=np.bool_) for alpha in alphas}
    asks = {alpha: np.zeros((n_runs, n_steps)) for alpha in alphas}
    sizes = {alpha: np.zeros((n_runs, n_steps), dtype=np.int64) for alpha in alphas}
    for t in range(n_steps + 1):
        predicted = models.rows[:, state].swapaxes(0, 1)  # (n_runs, n, |A|)
        for alpha in alphas:
            inside = top_set(weights, alpha)
            stayed[alpha] &= inside[:, place]
            if t < n_steps:
                least = np.where(inside[:, :, None], predicted, 2.0).min(axis=1)
                asks[alpha][:, t] = np.maximum(1 - least.sum(axis=1), 0)
                sizes[alpha][:, t] = inside.sum(axis=1)
        if t == n_steps:
            break
        action = _drawn(models.rows[place, state], rng)
        observation = _drawn(emission[world_state, action], rng)
        weights *= np.take_along_axis(predicted, action[:, None, None], axis=2)[:, :, 0]
        weights /= weights.sum(axis=1, keepdims=True)
        state = models.state_after(t + 1, action, observation)
        world_state = successor[world_state, action, observation]
    return tuple(
        Watched(
            alpha=alpha,
            stayed=stayed[alpha],
            help_probability=asks[alpha],
            top_set_size=sizes[alpha],
        )
        for alpha in alphas
    )


def _drawn(rows: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A symbol for each row of probabilities; never one of probability 0."""
    bounds = np.cumsum(rows, axis=1)
    # Below the last bound, so that rounding cannot lead beyond the symbols.
    uniform = rng.random(len(rows)) * bounds[:, -1]
    return np.asarray((uniform[:, None] >= bounds).sum(axis=1))


@dataclass(frozen=True, kw_only=True)
class Career:
    """An agent that plans episode after episode, asks, and learns from the answers.

    Attributes:
        update: whose actions update the posterior.
        alpha: the threshold.
        paid: what the proxy utility paid, shape (n_runs, n_episodes).
        asked: in how many steps of each episode it asked, (n_runs, n_episodes).
        bad: in how many it took `BAD`, (n_runs, n_episodes).
    """

    update: Update
    alpha: Fraction
    paid: NDArray[np.float64]
    asked: NDArray[np.int64]
    bad: NDArray[np.int64]


def careers(
    models: ShortMemory,
    *,
    alpha: Fraction,
    update: Update,
    budget_nats: float,
    n_episodes: int,
    n_runs: int,
    rng: np.random.Generator,
) -> Career:
    """The full loop: plan within the budget to `nu_alpha`, act or ask, learn, plan again.

    An episode lasts `setting.horizon` steps; its plan is made by `asking_optimum` on the posterior
    at its beginning. Afterwards the posterior is updated by the demonstrator's answers, and
    with `Update.ALL` by the agent's own actions too, as if they were the demonstrator's.

    Args:
        models: the class; the loop begins with its prior weights.
        alpha: the threshold.
        update: whose actions update the posterior, within an episode's plan and after it.
        budget_nats: eps of each episode.
        n_episodes: at least 1.
        n_runs: at least 1.
        rng: draws lots, answers and observations.
    """
    if not budget_nats >= 0:
        raise InvalidBudgetError(f"budget_nats must be >= 0, got {budget_nats}")
    horizon = models.setting.horizon
    plans: dict[Any, tuple[PolicyTable, tuple[NDArray[np.float64], ...]]] = {}

    def plan(weights: NDArray[np.float64], t: int, state: int, world_state: int) -> Any:
        mixture = models.mixture(
            weights, t=t, state=state, world_state=world_state, horizon=horizon
        )
        base = mixture.pessimist(alpha, update=update)
        key = (world_state, t % LONGEST_PERIOD, state, *(level.tobytes() for level in base))
        if key not in plans:
            proxy, _ = _pays(mixture.nu)
            found = asking_optimum(
                base, mixture.nu, proxy, help_policy=mixture.tau, budget_nats=budget_nats
            )
            plans[key] = (found.pi, found.asking)
        return plans[key]

    shape = (n_runs, n_episodes)
    paid, asked, bad = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for run in range(n_runs):
        loop = _Loop(models=models, update=update, rng=rng)
        for episode in range(n_episodes):
            taken, asks = loop.episode(plan(loop.weights, loop.t, loop.state, loop.world_state))
            paid[run, episode] = float(sum(PAY[a] for a in taken)) / horizon
            asked[run, episode] = asks
            bad[run, episode] = taken.count(BAD)
    return Career(update=update, alpha=alpha, paid=paid, asked=asked, bad=bad)


class _Loop:
    """Where one run stands: time, states and posterior."""

    def __init__(self, *, models: ShortMemory, update: Update, rng: np.random.Generator) -> None:
        self.models, self.update, self.rng = models, update, rng
        self.t, self.state, self.world_state = 0, 0, 0
        self.weights: NDArray[np.float64] = models.weights / models.weights.sum()

    def episode(
        self, plan: tuple[PolicyTable, tuple[NDArray[np.float64], ...]]
    ) -> tuple[list[int], int]:
        """Follow a plan; what was done, and how often the demonstrator was asked."""
        world, rows = self.models.setting.world, self.models.rows
        row, n_asks = 0, 0
        taken: list[int] = []
        for pi, asking in zip(*plan, strict=True):
            asks = bool(self.rng.random() < asking[row])
            acts_by = rows[self.models.place_of_tau, self.state] if asks else pi[row]
            action = int(_drawn(acts_by[None], self.rng)[0])
            if asks or self.update is Update.ALL:
                joint = self.weights * rows[:, self.state, action]
                # An action that no model takes teaches nothing.
                self.weights = joint / joint.sum() if joint.sum() > 0 else self.weights
            emission = np.array(world.emission[self.world_state][action], dtype=np.float64)
            observation = int(_drawn(emission[None], self.rng)[0])
            self.t += 1
            self.state = self.models.state_after(self.t, action, observation)
            self.world_state = world.successor[self.world_state][action][observation]
            row = (row * world.n_actions + action) * world.n_observations + observation
            taken.append(action)
            n_asks += asks
        return taken, n_asks


def help_probability_at_root(mixture: Mixture, alpha: Fraction) -> float:
    """`theta_q` before the first step of the tree."""
    return float(help_probability(mixture.pessimist(alpha, update=Update.DEMONSTRATOR))[0][0])
