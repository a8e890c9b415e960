r"""The optimal planner under the strictest reading: KL with adaptive observations.

The adversary sees the actions too, so each history is an information set of its own (Definition
2, `toy_world.planners.worst_case`), and the constraint is a backward recursion,

    M(h) = KL_h + sum_a pi(a|h) max_o M(hao),    M(root) <= eps:

a planner with the budget that remains as part of its state, which also decides how to split it
over its actions. In the dual the adversary's mixed strategy splits the price `y(h)` of a nat over
the observations after each action, `sum_o y(hao) = y(h)`.

Newton's equations have as many unknowns as there are histories, and are solved exactly by a
backward and a forward recursion over the tree, in time proportional to its size. Let `dy` be the
direction of the prices and `dL`, `dG_a = sum_o dL(hao)` what it makes of L and G to first order,

    dL(h) = sum_a pi(a|h) dG_a - KL_h dy(h).

Newton's direction minimises the sum over h of

    x/(2y) Var_{a ~ pi}(dG_a - (G_a/y) dy) + curvature dy^2 / 2 + slope dy.

Let sigma be a multiplier for dy(h) and rho for dL(h) (rho is the change of x(h)): the subtree of h
answers the pair `(sigma, rho)` by its minimiser, which is linear,

    dy = -(sigma + E rho + g) / A,      dL = E dy - (K / x) rho + c,

and the recursion computes (A, E, K, g, c) of a history from those of its successors. For an
action the successors' responses add up, since their dy sum to dy(h): writing <.> for averages over
o with weights 1/A_o,

    1/A_a = sum_o 1/A_o,      E_a = <E_o>,      K_a = sum_o K_o + x(ha) sum_o (E_o - E_a)^2 / A_o,
    g_a = <g_o>,              c_a = sum_o c_o - sum_o (E_o - E_a) (g_o - g_a) / A_o,

and over actions, with `phi_a = E_a - ln(pi/beta)(a|h)` and weights proportional to
`pi_a / (y + K_a)`, whose sum is S,

    A = curvature + sum_a A_a + x S Var(phi),   E = <phi>,   K = <K_a>,
    g = slope + sum_a g_a + x S Cov(phi, c_a),  c = <c_a>.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from theory.constraints import adaptive_kl_nats
from theory.process import EnvironmentTable, PolicyTable, UtilityTable
from toy_world.planners.certificate import PricedPlan
from toy_world.planners.problem import Floats, Levels, Reading, last_axis_sums
from toy_world.planners.worst_case import AdversaryPrices, SoftPoint, worst_case_optimum


def adaptive_kl_optimum(
    beta: PolicyTable, nu: EnvironmentTable, utility: UtilityTable, *, budget_nats: float
) -> PricedPlan:
    """The best policy with KL at most `budget_nats` whatever an observing adversary does.

    Arguments, promises and errors as for `worst_case_optimum`. Cost: a few dozen passes over the
    tree.
    """
    return worst_case_optimum(
        beta,
        nu,
        utility,
        budget_nats=budget_nats,
        reading=Reading.ADAPTIVE,
        adversary=HistoryPrices,
    )


@dataclass(frozen=True, kw_only=True)
class _Responses:
    """What the subtrees below a level's histories and actions answer (see the module).

    Attributes:
        A: of histories, (n,).
        E: of histories, (n,).
        K: of histories, (n,).
        A_actions: `1 / sum_o 1/A_o`, (n, |A|); 0 at the last step, where nothing follows.
        E_actions: shape (n, |A|).
        phi: `E_a - ln(pi/beta)`, (n, |A|).
        rates: `x pi_a / (y + K_a)`, (n, |A|).
        shares: `rates` with sum 1, (n, |A|).
    """

    A: Floats
    E: Floats
    K: Floats
    A_actions: Floats
    E_actions: Floats
    phi: Floats
    rates: Floats
    shares: Floats


class HistoryPrices(AdversaryPrices):
    """Prices of histories: level t has one for each of (|A||O|)^t."""

    def uniform(self, price: float) -> Levels:
        """The price of the history before, split evenly over observations."""
        n_observations = self.problem.n_observations
        return tuple(
            np.full(len(level), price / n_observations**t)
            for t, level in enumerate(self.problem.beta)
        )

    def of_histories(self, prices: Levels) -> Levels:
        """The prices themselves."""
        return prices

    def newton(self, point: SoftPoint, curvature: Floats) -> Callable[[float], Levels]:
        """Newton's direction by recursion over the tree."""
        responses = _responses(point, curvature)
        return lambda tau: _direction(point, responses, tau=tau, budget_nats=self.budget_nats)

    def moved(self, prices: Levels, direction: Levels, step: float) -> Levels:
        """Every level moved, and split after each action in the proportions that this gives."""
        levels = [prices[0] + step * direction[0]]
        for rows, level, change in zip(
            self.problem.beta[:-1], prices[1:], direction[1:], strict=True
        ):
            split = (level + step * change).reshape(*rows.shape, -1)
            shares = split / split.sum(axis=-1, keepdims=True)
            levels.append((levels[-1][:, None, None] * shares).reshape(-1))
        return tuple(levels)

    def kl_nats(self, pi: PolicyTable) -> float:
        """M(root)."""
        return float(adaptive_kl_nats(pi, self.problem.beta))


def _responses(point: SoftPoint, curvature: Floats) -> list[_Responses]:
    """The responses of every level, first level first."""
    levels: list[_Responses] = []
    for t in range(len(point.pi) - 1, -1, -1):
        pi, x, y = point.pi[t], point.reach[t], point.prices[t]
        if levels:
            A_o, E_o, K_o = (
                part.reshape(*pi.shape, -1) for part in (levels[-1].A, levels[-1].E, levels[-1].K)
            )
            A_actions = 1 / last_axis_sums(1 / A_o)
            E_actions = last_axis_sums(E_o / A_o) * A_actions
            spread = last_axis_sums((E_o - E_actions[:, :, None]) ** 2 / A_o)
            K_actions = last_axis_sums(K_o) + x[:, None] * pi * spread
            own = np.zeros_like(y)
        else:
            A_actions, E_actions, K_actions = (np.zeros_like(pi) for _ in range(3))
            own = curvature
        phi = E_actions - point.log_ratio[t]
        rates = pi / (y[:, None] + K_actions)
        shares = rates / rates.sum(axis=-1, keepdims=True)
        rates = x[:, None] * rates
        E = last_axis_sums(shares * phi)
        levels.append(
            _Responses(
                A=own + last_axis_sums(A_actions) + last_axis_sums(rates * (phi - E[:, None]) ** 2),
                E=E,
                K=last_axis_sums(shares * K_actions),
                A_actions=A_actions,
                E_actions=E_actions,
                phi=phi,
                rates=rates,
                shares=shares,
            )
        )
    return levels[::-1]


def _direction(
    point: SoftPoint, responses: list[_Responses], *, tau: float, budget_nats: float
) -> Levels:
    """Newton's direction at every history for the given tau."""
    offsets = _offsets(point, responses, tau=tau, budget_nats=budget_nats)
    g, _, _, _ = offsets[0]
    directions = [-g / responses[0].A]
    rho = np.zeros(1)
    for t in range(len(point.pi) - 1):
        here, after = responses[t], responses[t + 1]
        _, c, g_actions, c_actions = offsets[t]
        dy = directions[-1][:, None]
        rho_actions = (
            here.rates * ((here.phi - here.E[:, None]) * dy + c_actions - c[:, None])
            + here.shares * rho[:, None]
        )
        # sigma makes the answers over observations sum to dy: an even share of it each, less
        # deviations that sum to 0, in the differences of E and g that cause them.
        shape = (*here.phi.shape, -1)
        ease = here.A_actions[:, :, None] / after.A.reshape(shape)
        apart = (after.E.reshape(shape) - here.E_actions[:, :, None]) * rho_actions[:, :, None]
        apart = apart + offsets[t + 1][0].reshape(shape) - g_actions[:, :, None]
        deviations = apart / after.A.reshape(shape)
        deviations = deviations - ease * last_axis_sums(deviations)[:, :, None]
        directions.append((ease * dy[:, :, None] - deviations).reshape(-1))
        rho = np.repeat(rho_actions.reshape(-1), ease.shape[-1])
    return tuple(directions)


def _offsets(
    point: SoftPoint, responses: list[_Responses], *, tau: float, budget_nats: float
) -> list[tuple[Floats, Floats, Floats, Floats]]:
    """(g, c, g_a, c_a) of every level."""
    offsets: list[tuple[Floats, Floats, Floats, Floats]] = []
    for t in range(len(point.pi) - 1, -1, -1):
        here = responses[t]
        slope = -point.reach[t] * point.kl[t]
        if offsets:
            shape = (*here.phi.shape, -1)
            after = responses[t + 1]
            A_o, E_o = after.A.reshape(shape), after.E.reshape(shape)
            g_o, c_o = (part.reshape(shape) for part in offsets[-1][:2])
            g_actions = last_axis_sums(g_o / A_o) * here.A_actions
            # Less g_a, which changes nothing but the rounding: the g_o are nearly equal.
            apart = (E_o - here.E_actions[:, :, None]) * (g_o - g_actions[:, :, None]) / A_o
            c_actions = last_axis_sums(c_o - apart)
        else:
            g_actions, c_actions = np.zeros_like(here.phi), np.zeros_like(here.phi)
            slope = slope - tau / point.prices[t]
        if t == 0:
            slope = slope + budget_nats
        c = last_axis_sums(here.shares * c_actions)
        covariance = here.rates * (here.phi - here.E[:, None]) * (c_actions - c[:, None])
        g = slope + last_axis_sums(g_actions) + last_axis_sums(covariance)
        offsets.append((g, c, g_actions, c_actions))
    return offsets[::-1]
