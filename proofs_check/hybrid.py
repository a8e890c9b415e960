r"""Hybrid learning: uncertainties cover the truth, whatever the learner does, and rates from below.

*A step's errors add up.* `V^pi - V_hat^pi` is the expectation, in the estimated process, of what
each step's reward and successors are off by. With m steps left neither costs more than m times the
radius that bounds both, so `|V^pi - V_hat^pi| <= E_hat sum_h m radius(s_h, a_h)`.

*Coverage by enumeration.* A learner's whole life in a tiny world is a finite tree: every reward and
successor of every episode, the first episodes the demonstrator's, the others the optimist's own.
Its branches have rational probabilities, and on each the toolkit's oracle says what it believes.
The probability that it is ever off by more than its uncertainty, for whichever policy, has to be at
most delta. (In longer lives or larger worlds the union bounds are wide and it is 0: such a case
says nothing and counts as vacuous.)

*Why the ellipsoid covers.* With S the sum of phi times the noise of rewards in [0, 1], and Lambda
the ridge's matrix, `M_t = det(Lambda_t/lambda)^{-1/2} exp(2 |S_t|^2)`, the length in
`Lambda_t^-1`, has mean at most 1 at every time; Ville's inequality does the rest.

*From below.* Of two worlds that differ in one arm by 2 Delta no learner knows which it is in before
it has some `1/Delta^2` samples of that arm. What the best learner loses, which is shown every arm
in every round, is exact: `Delta/2 (1 - TV)` a round. That is put beside the rates; in general the
lower bounds are quoted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proofs_check.sabotage import Sabotage, returning, with_result
from proofs_check.verdict import (
    Check,
    Effort,
    Kind,
    Mutation,
    Outcome,
    Verdict,
    examine_all,
    verdict_of,
)
from theory.paper import Statement
from toy_world.hybrid import concentrability as rates
from toy_world.hybrid.concentrability import (
    concentrability,
    regret_rate,
    sub_optimality_rate,
    tabular_step_levels,
)
from toy_world.hybrid.linear_bandit import LinearEstimate, LinearOracle
from toy_world.hybrid.mdp import Data, FiniteMDP, Ints, Model, no_data, one_hot
from toy_world.hybrid.oracle import Attitude, Estimate, Oracle
from toy_world.hybrid.tabular import TabularEstimate, TabularOracle

TOLERANCE: Final = 1e-12
"""Of the toolkit's floats against exact numbers of size 1."""
ONE: Final = Fraction(1)
HALF: Final = Fraction(1, 2)
DELTA: Final = Fraction(1, 4)

Step = tuple[Fraction, Fraction]
"""Of one state: its reward, and the probability that the first state follows."""


def simulation(effort: Effort, *, factor: Fraction = ONE) -> Outcome:
    """`|V - V_hat| <= c E_hat sum_h m radius` (c = 1), and the toolkit's value of the right side.

    The radius of a state is exactly what its reward or its successors are off by, whichever is
    more.
    """
    grid = (Fraction(0), ONE) if effort is Effort.SMALLEST else (Fraction(0), HALF, ONE)
    horizon = 2
    processes = list(product(product(grid, repeat=2), repeat=2))

    def decide(case: tuple[tuple[Step, ...], tuple[Step, ...]]) -> Verdict:
        truth, believed = case
        radius = [
            max(abs(p[0] - q[0]), abs(p[1] - q[1])) for p, q in zip(truth, believed, strict=True)
        ]
        error = _value(truth, [r for r, _ in truth], 0, horizon) - _value(
            believed, [r for r, _ in believed], 0, horizon
        )
        covered = _value(believed, radius, 1, horizon)
        computed = float(_estimate(believed, radius, horizon).uncertainties(_only(horizon))[0])
        return verdict_of(
            abs(error) <= factor * covered and abs(computed - float(covered)) <= TOLERANCE,
            informative=error != 0,
        )

    return examine_all(product(processes, repeat=2), decide, show=_show_processes)


def _value(process: tuple[Step, ...], pay: list[Fraction], power: int, horizon: int) -> Fraction:
    """The sum from state 0 of `pay m^power`, m the steps left, exactly."""
    later = [Fraction(0), Fraction(0)]
    for left in range(1, horizon + 1):
        later = [
            pay[s] * left**power + stay * later[0] + (1 - stay) * later[1]
            for s, (_, stay) in enumerate(process)
        ]
    return later[0]


def _estimate(process: tuple[Step, ...], radius: list[Fraction], horizon: int) -> TabularEstimate:
    stays = np.array([[float(stay)] for _, stay in process])
    return TabularEstimate(
        believed=Model(
            rewards=np.array([[[float(reward)] for reward, _ in process]]),
            pay_left=np.zeros((1, 2, 1)),
            probabilities=np.stack([stays, 1 - stays], axis=-1)[None],
            successors=np.array([[[0, 1]], [[0, 1]]]),
            initial=np.array([1.0, 0.0]),
            horizon=horizon,
        ),
        radius=np.array([[[float(r)] for r in radius]]),
    )


def _only(horizon: int) -> Ints:
    """The policy where there is one action."""
    return np.zeros((1, horizon, 2), dtype=np.int64)


def _show_processes(case: tuple[tuple[Step, ...], tuple[Step, ...]]) -> str:
    truth, believed = (
        ", ".join(f"(r = {reward}, stays or returns {stay})" for reward, stay in process)
        for process in case
    )
    return f"truth {truth}; believed {believed}"


@dataclass(frozen=True, kw_only=True)
class Life:
    """A learner's whole life: the world, and for how long it watches and acts.

    Attributes:
        rewards: exact, shape S of rows of A; a reward is 1 with this probability.
        successors: shape S of rows of A of K states.
        probabilities: exact, likewise.
        horizon: H; episodes begin in state 0.
        n_offline: episodes of the policy that always takes action 0.
        n_online: episodes of the optimist.
    """

    rewards: tuple[tuple[Fraction, ...], ...]
    successors: tuple[tuple[tuple[int, ...], ...], ...]
    probabilities: tuple[tuple[tuple[Fraction, ...], ...], ...]
    horizon: int
    n_offline: int
    n_online: int

    @property
    def mdp(self) -> FiniteMDP:
        """The world in float64."""
        return FiniteMDP(
            rewards=np.array(self.rewards).astype(np.float64),
            successors=np.array(self.successors),
            probabilities=np.array(self.probabilities).astype(np.float64),
            initial=np.eye(len(self.rewards))[0],
            horizon=self.horizon,
        )

    def episodes(self, policy: Ints) -> Iterator[tuple[Fraction, Ints, NDArray[np.float64]]]:
        """Every episode of a policy, shape (H, S): probability, visits and sums of rewards."""
        empty = no_data(self.mdp, 1)
        yield from self._continued(policy, 0, 0, ONE, empty.visits[0], empty.rewards[0])

    def _continued(
        self,
        policy: Ints,
        h: int,
        s: int,
        probability: Fraction,
        visits: Ints,
        rewards: NDArray[np.float64],
    ) -> Iterator[tuple[Fraction, Ints, NDArray[np.float64]]]:
        if h == self.horizon:
            yield probability, visits, rewards
            return
        a = int(policy[h, s])
        for k, reward in product(range(len(self.successors[s][a])), (0, 1)):
            mean = self.rewards[s][a]
            chance = self.probabilities[s][a][k] * (mean if reward else 1 - mean)
            if chance:
                more_visits, more_rewards = visits.copy(), rewards.copy()
                more_visits[s, a, k] += 1
                more_rewards[s, a] += reward
                yield from self._continued(
                    policy,
                    h + 1,
                    self.successors[s][a][k],
                    probability * chance,
                    more_visits,
                    more_rewards,
                )


def failure_probability(life: Life, oracle: Oracle) -> Fraction:
    """That some policy's value is ever off by more than the oracle's uncertainty, exactly.

    Args:
        life: the world and how long.
        oracle: what the learner believes of data.
    """
    mdp = life.mdp
    chances, data = [ONE], no_data(mdp, 1)
    estimate = oracle(data)
    off = _ever_off(mdp, estimate, data.n_runs)
    failed = sum((chances[i] for i in np.flatnonzero(off)), Fraction(0))
    for episode in range(life.n_offline + life.n_online):
        acting = estimate.best(Attitude.OPTIMISM).policies
        if episode < life.n_offline:
            acting = np.zeros_like(acting)
        branches = [
            (chances[i] * chance, data.visits[i] + visits, data.rewards[i] + rewards)
            for i in np.flatnonzero(~off)
            for chance, visits, rewards in life.episodes(acting[i])
        ]
        if not branches:
            break
        chances = [chance for chance, _, _ in branches]
        data = Data(
            visits=np.stack([visits for _, visits, _ in branches]),
            rewards=np.stack([rewards for _, _, rewards in branches]),
        )
        estimate = oracle(data)
        off = _ever_off(mdp, estimate, data.n_runs)
        failed += sum((chances[i] for i in np.flatnonzero(off)), Fraction(0))
    return failed


def _ever_off(mdp: FiniteMDP, estimate: Estimate, n_runs: int) -> NDArray[np.bool_]:
    """In which runs some policy's value is off by more than its uncertainty, shape (R,)."""
    off = np.zeros(n_runs, dtype=bool)
    for actions in product(range(mdp.n_actions), repeat=mdp.horizon * mdp.n_states):
        policy = np.array(actions).reshape(1, mdp.horizon, mdp.n_states)
        same = np.repeat(policy, n_runs, axis=0)
        error = np.abs(estimate.values(same) - mdp.model(1).values(policy))
        off |= error > estimate.uncertainties(same) + TOLERANCE
    return off


def _bandit(means: tuple[Fraction, ...], *, n_offline: int, n_online: int) -> Life:
    """One state and one step."""
    return Life(
        rewards=(means,),
        successors=(((0,),) * len(means),),
        probabilities=(((ONE,),) * len(means),),
        horizon=1,
        n_offline=n_offline,
        n_online=n_online,
    )


def _chain(stay: Fraction, *, n_online: int) -> Life:
    """Two steps, one action; a reward in the second state, which is left for the first."""
    return Life(
        rewards=((Fraction(0),), (ONE,)),
        successors=(((0, 1),), ((0, 1),)),
        probabilities=(((stay, 1 - stay),), ((ONE, Fraction(0)),)),
        horizon=2,
        n_offline=0,
        n_online=n_online,
    )


def tabular_covers(effort: Effort, *, scale: float = 1.0) -> Outcome:
    """`P(ever |V^pi - V_hat^pi| > c U_hat^pi, some pi) <= delta` (c = 1) over whole lives."""
    long = 8 if effort is Effort.SMALLEST else 10
    lives = [
        *(_bandit((mean,), n_offline=0, n_online=long) for mean in (HALF, Fraction(1, 4))),
        *(
            _bandit((Fraction(1, 4), mean), n_offline=offline, n_online=8 - offline)
            for mean in (Fraction(0), Fraction(3, 4))
            for offline in (0, 4)
        ),
        _chain(HALF, n_online=4),
    ]

    def decide(life: Life) -> Verdict:
        oracle = TabularOracle.of(
            life.mdp,
            n_episodes=life.n_offline + life.n_online,
            delta=float(DELTA),
            scale=scale,
        )
        failed = failure_probability(life, oracle)
        return verdict_of(failed <= DELTA, informative=failed > 0)

    return examine_all(lives, decide)


FEATURES: Final = (((ONE, Fraction(0)), (HALF, HALF), (Fraction(0), ONE)),)
"""Of one context and three actions, shape (1, 3, 2)."""
RIDGE: Final = 0.5


def _linear_life(theta: tuple[Fraction, Fraction], *, n_offline: int, n_online: int) -> Life:
    means = tuple(phi[0] * theta[0] + phi[1] * theta[1] for phi in FEATURES[0])
    return _bandit(means, n_offline=n_offline, n_online=n_online)


def linear_covers(effort: Effort, *, scale: float = 1.0) -> Outcome:
    """The same for the linear oracle (c scales beta)."""
    n_rounds = 11 if effort is Effort.THOROUGH else 9
    thetas = ((HALF, HALF), (Fraction(1, 4), Fraction(3, 4)), (HALF, Fraction(1, 8)))

    def decide(case: tuple[tuple[Fraction, Fraction], int]) -> Verdict:
        theta, offline = case
        oracle = LinearOracle(
            features=np.array(FEATURES).astype(np.float64),
            contexts=np.ones(1),
            longest=math.hypot(*map(float, theta)),
            ridge=RIDGE,
            delta=float(DELTA),
            scale=scale,
        )
        life = _linear_life(theta, n_offline=offline, n_online=n_rounds - offline)
        failed = failure_probability(life, oracle)
        return verdict_of(failed <= DELTA, informative=failed > 0)

    return examine_all(product(thetas, (0, 4)), decide)


def ellipsoid(effort: Effort, *, exponent: float = 2.0) -> Outcome:
    """`E det(Lambda/lambda)^{-1/2} exp(c |S|^2_{Lambda^-1}) <= 1` (c = 2) at every time.

    Actions take turns; what is enumerated is every sequence of rewards.
    """
    n_rounds = 6 if effort is Effort.SMALLEST else 9
    thetas = ((HALF, HALF), (Fraction(1, 4), Fraction(3, 4)), (Fraction(0), ONE))
    features = np.array(FEATURES[0]).astype(np.float64)

    def decide(case: tuple[tuple[Fraction, Fraction], float]) -> Verdict:
        theta, ridge = case
        means = [phi[0] * theta[0] + phi[1] * theta[1] for phi in FEATURES[0]]
        matrix = ridge * np.eye(2)
        sums, chances = np.zeros((1, 2)), np.ones(1)
        worst, moved = 0.0, False
        for t in range(n_rounds):
            mean, phi = float(means[t % len(means)]), features[t % len(means)]
            matrix = matrix + np.outer(phi, phi)
            sums = np.concatenate([sums + (1 - mean) * phi, sums - mean * phi])
            chances = np.concatenate([chances * mean, chances * (1 - mean)])
            lengths = np.einsum("ni,ij,nj->n", sums, np.linalg.inv(matrix), sums)
            volume = np.linalg.det(matrix / ridge)
            worst = max(worst, float(chances @ np.exp(exponent * lengths)) / math.sqrt(volume))
            moved = moved or 0 < mean < 1
        return verdict_of(worst <= 1 + TOLERANCE, informative=moved)

    return examine_all(product(thetas, (0.1, 1.0)), decide)


def lower_bounds(effort: Effort, *, scale: Fraction = Fraction(1, 32)) -> Outcome:
    """What the best learner loses in the worse of two worlds, against c times both rates.

    N_0 demonstrations take arm 1, of unknown mean `1/2 +- Delta`, in a share q of the episodes;
    arm 0 has mean 1/2. `Delta = 1/(4 sqrt(q N_0 + N_1))`.
    """
    n_offline = 8 if effort is Effort.SMALLEST else 24
    cases = [
        (share, n_online)
        for share in (Fraction(1, 4), HALF, Fraction(3, 4))
        for n_online in (0, 4, 16)
    ]

    def decide(case: tuple[Fraction, int]) -> Verdict:
        share, n_online = case
        known = int(share * n_offline)
        delta = Fraction(1, 4 * math.isqrt(known + n_online))
        losses = [_least_loss(delta, known + t) for t in range(n_online + 1)]
        life = _bandit((HALF, HALF + delta), n_offline=0, n_online=0)
        behaviour = np.array([[[1 - float(share), float(share)]]])
        C = concentrability(
            life.mdp,
            tabular_step_levels(life.mdp, behaviour),
            policy=one_hot(np.array([[1]]), 2),
            behaviour=behaviour,
        )
        gap_rate, regret = (
            rate(n_offline=n_offline, n_online=n_online, concentrability=C)
            for rate in (sub_optimality_rate, regret_rate)
        )
        told = n_offline / C + n_online
        return verdict_of(
            math.isclose(gap_rate, told**-0.5, rel_tol=TOLERANCE)
            and math.isclose(regret, n_online * told**-0.5, rel_tol=TOLERANCE)
            and float(losses[-1]) >= float(scale) * gap_rate
            and float(sum(losses[:-1], Fraction(0))) >= float(scale) * regret
        )

    return examine_all(cases, decide, show=lambda c: f"q = {c[0]}, N_1 = {c[1]}")


def _least_loss(delta: Fraction, n_samples: int) -> Fraction:
    """`Delta/2 (1 - TV)` of n samples of mean 1/2 + Delta and 1/2 - Delta, exactly."""
    high, low = HALF + delta, HALF - delta
    overlap = sum(
        math.comb(n_samples, k)
        * min(high**k * low ** (n_samples - k), low**k * high ** (n_samples - k))
        for k in range(n_samples + 1)
    )
    return delta / 2 * overlap


CHECKS: Final = (
    Check(
        label="hybrid-simulation",
        words="Errors of single steps, times the steps left, bound the error of a policy's value.",
        formula="|V - V_hat| <= E_hat sum_h m max(|r - r_hat|, TV(P, P_hat))",
        kind=Kind.EXHAUSTIVE,
        scope="2 states, 2 steps, rewards and probabilities in halves, all pairs of processes; the "
        "toolkit's floats to 1e-12",
        examine=simulation,
        mutations=(Mutation(name="nine tenths", constants={"factor": Fraction(9, 10)}),),
        statements=(Statement.HYBRID_UNCERTAINTY,),
        least_informative=100,
        sabotages=(
            Sabotage(
                name="nine tenths of it",
                owner=TabularEstimate,
                attribute="uncertainties",
                fault=with_result(lambda found: 0.9 * found),
            ),
        ),
    ),
    Check(
        label="hybrid-tabular-covers",
        words="The tabular uncertainty covers the values of all policies at all times with "
        "probability 1 - delta, on demonstrations and on what the optimist brought about.",
        formula="P(some t, pi: |V^pi - V_hat^pi| > U_hat^pi) <= delta",
        kind=Kind.NUMERIC,
        scope="every life of up to 10 episodes with 1 or 2 arms, of 4 in a chain of 2 steps; "
        "delta = 1/4; rational probabilities, float radii with 1e-12 of tolerance",
        examine=tabular_covers,
        mutations=(Mutation(name="half the width", constants={"scale": 0.5}),),
        statements=(Statement.HYBRID_UNCERTAINTY,),
        least_informative=3,
        sabotages=(
            Sabotage(
                name="the logarithm of the events is a quarter",
                owner=TabularOracle,
                attribute="log_events",
                fault=with_result(lambda found: found / 4),
            ),
            Sabotage(
                name="actions never taken are certain",
                owner=TabularOracle,
                attribute="radius",
                fault=with_result(lambda found: np.where(found == 1, 0.0, found)),
            ),
        ),
    ),
    Check(
        label="hybrid-linear-covers",
        words="So does the linear one.",
        formula="P(some t, a: |phi_a . (theta - theta_hat)| > beta |phi_a|) <= delta",
        kind=Kind.NUMERIC,
        scope="every life of 9 rounds, 3 actions in 2 dimensions, 3 theta, 0 or 4 demonstrations; "
        "delta = 1/4",
        examine=linear_covers,
        mutations=(Mutation(name="half the width", constants={"scale": 0.5}),),
        statements=(Statement.HYBRID_UNCERTAINTY,),
        least_informative=3,
        sabotages=(
            Sabotage(
                name="half the width",
                owner=LinearEstimate,
                attribute="uncertainties",
                fault=with_result(lambda found: 0.5 * found),
            ),
        ),
    ),
    Check(
        label="hybrid-ellipsoid",
        words="The mixture over directions that stands behind the ellipsoid has mean at most 1.",
        formula="E det(Lambda/lambda)^(-1/2) exp(2 |S|^2 in Lambda^-1) <= 1",
        kind=Kind.NUMERIC,
        scope="every sequence of 9 rewards of 3 actions in turn, 3 theta, 2 ridges",
        examine=ellipsoid,
        mutations=(Mutation(name="c = 3", constants={"exponent": 3.0}),),
        statements=(Statement.HYBRID_UNCERTAINTY,),
        least_informative=4,
    ),
    Check(
        label="hybrid-lower-bounds",
        words="No learner does better than the rates, up to a constant, neither in what it hands "
        "over nor in regret.",
        formula="gap >= c / sqrt(N_0/C(pi*|rho) + N_1), regret >= c N_1 / sqrt(N_0/C + N_1)",
        kind=Kind.LITERATURE,
        scope="both sides evaluated for the best learner in two worlds of 2 arms, c = 1/32",
        examine=lower_bounds,
        mutations=(Mutation(name="c = 1", constants={"scale": ONE}),),
        statements=(Statement.HYBRID_LOWER_BOUNDS,),
        least_informative=9,
        sabotages=(
            Sabotage(
                name="the rate is 32 times as large",
                owner=rates,
                attribute="sub_optimality_rate",
                fault=with_result(lambda rate: 32 * rate),
            ),
            Sabotage(
                name="the regret's rate is 32 times as large",
                owner=rates,
                attribute="regret_rate",
                fault=with_result(lambda rate: 32 * rate),
            ),
            *(
                Sabotage(name="a rate of 0", owner=rates, attribute=name, fault=returning(0.0))
                for name in ("sub_optimality_rate", "regret_rate")
            ),
        ),
        source="Huang, Li, Shi, Shen and Yang (arXiv 2505.13768), lower bounds",
    ),
)
