r"""The optimal planner under the paper's own constraint: KL with fixed observations.

The adversary commits to all observations in advance, so its information sets are observation
sequences (Definition 2, `toy_world.planners.worst_case`): one multiplier `mu(o) >= 0` for each
sequence `o = o_1 ... o_{m-1}` (the last observation follows every action), and the price of a nat
at h is the sum of mu(o) over the o that continue h's observations. So the temperature of the soft
policy depends on the history. (A single temperature, tuned until the greatest KL meets the budget,
is not optimal: `toy_world.demo_planners` shows the loss.)

Newton's equations are dense, in |O|^(m-1) unknowns. With `D_o` the KL of the action sequences
given o, the gradient of the dual is `eps - D_o`. For its Hessian write `D_{o|ha}` for the KL that
follows h and a, a vector over the o that continue h. A price moves L(h) by `-D_{.|h}`, and

    Hessian of L(root) = sum_h x(h) / y(h)  Cov_{a ~ pi(.|h)} [ D_{.|ha} + ln(pi/beta)(a|h) ],

each summand a block on the o that continue h: the second derivative of `y ln sum_a beta exp(G/y)`
along `dG_a = -D_{.|ha}`, `dy = 1`.
"""

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from theory.constraints import fixed_kl_nats
from theory.process import EnvironmentTable, PolicyTable, UtilityTable
from toy_world.planners.certificate import PricedPlan
from toy_world.planners.problem import (
    Floats,
    Levels,
    PlanningProblem,
    Reading,
    observation_prefixes,
)
from toy_world.planners.worst_case import AdversaryPrices, SoftPoint, worst_case_optimum


def fixed_kl_optimum(
    beta: PolicyTable, nu: EnvironmentTable, utility: UtilityTable, *, budget_nats: float
) -> PricedPlan:
    """The best policy with KL at most `budget_nats` given any observations fixed in advance.

    Arguments, promises and errors as for `worst_case_optimum`. Cost: a few dozen solutions of
    |O|^(m-1) dense linear equations.
    """
    return worst_case_optimum(
        beta,
        nu,
        utility,
        budget_nats=budget_nats,
        reading=Reading.FIXED,
        adversary=ObservationPrices,
    )


class ObservationPrices(AdversaryPrices):
    """Prices of observation sequences: level t has one for each of |O|^t."""

    def __init__(self, problem: PlanningProblem, budget_nats: float) -> None:
        super().__init__(problem, budget_nats)
        self._prefixes = observation_prefixes(
            n_actions=problem.beta[0].shape[1],
            n_observations=problem.n_observations,
            horizon=len(problem.beta),
        )
        self._by_observations = [np.argsort(prefix, kind="stable") for prefix in self._prefixes]

    def uniform(self, price: float) -> Levels:
        """The same price for every sequence of a length."""
        sizes = [self.problem.n_observations**t for t in range(len(self.problem.beta))]
        return tuple(np.full(size, price / size) for size in sizes)

    def of_histories(self, prices: Levels) -> Levels:
        """The price of each history's observations."""
        return tuple(level[p] for level, p in zip(prices, self._prefixes, strict=True))

    def newton(self, point: SoftPoint, curvature: Floats) -> Callable[[float], Levels]:
        """Newton's direction by a Cholesky factor of the dense Hessian."""
        kl, hessian = self._derivatives(point)
        gradient = self.budget_nats - kl
        mu = point.prices[-1][self._by_observations[-1]].reshape(len(kl), -1)[:, 0]
        factor = cho_factor(hessian + np.diag(curvature))
        return lambda tau: self._with_sums(cho_solve(factor, tau / mu - gradient))

    def moved(self, prices: Levels, direction: Levels, step: float) -> Levels:
        """The last level moved, the others its sums."""
        return self._with_sums(prices[-1] + step * direction[-1])

    def kl_nats(self, pi: PolicyTable) -> float:
        """The greatest KL over observation sequences."""
        return float(fixed_kl_nats(pi, self.problem.beta))

    def _with_sums(self, last: Floats) -> Levels:
        levels = [last]
        for _ in self.problem.beta[1:]:
            levels.append(levels[-1].reshape(-1, self.problem.n_observations).sum(axis=-1))
        return tuple(reversed(levels))

    def _derivatives(self, point: SoftPoint) -> tuple[Floats, Floats]:
        """`D_o`, shape (n,), and the Hessian of L(root), shape (n, n), n = |O|^(m-1)."""
        horizon, n_observations = len(point.pi), self.problem.n_observations
        n = n_observations ** (horizon - 1)
        hessian = np.zeros((n, n))
        later = np.zeros((point.pi[-1].size, 1))
        for t in range(horizon - 1, -1, -1):
            pi = point.pi[t]
            n_futures = n_observations ** (horizon - 1 - t)
            later = later.reshape(*pi.shape, n_futures)
            moves = later + point.log_ratio[t][:, :, None]
            moves = moves - (pi[:, :, None] * moves).sum(axis=1, keepdims=True)
            weights = (point.reach[t] / point.prices[t])[:, None] * pi
            n_prefixes = n_observations**t
            scaled = (np.sqrt(weights)[:, :, None] * moves)[self._by_observations[t]]
            scaled = scaled.reshape(n_prefixes, -1, n_futures)
            blocks = hessian.reshape(n_prefixes, n_futures, n_prefixes, n_futures)
            prefix = np.arange(n_prefixes)
            blocks[prefix, :, prefix, :] += scaled.transpose(0, 2, 1) @ scaled
            later = point.kl[t][:, None] + (pi[:, :, None] * later).sum(axis=1)
        return later[0], hessian
