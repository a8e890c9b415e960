"""The planners' problems as convex programs for cvxpy and Clarabel: an independent solver.

In sequence form: x(ha) is the probability of the actions in ha given its observations, a linear
function of nothing but x itself (`sum_a x(ha) = x(h)`), value is linear in x, and the steps' KL,
`sum_a x(ha) ln(x(ha) / (x(h) beta(a|h)))`, are relative entropies, jointly convex in x(ha), x(h).
"""

import time
import warnings
from dataclasses import dataclass

import cvxpy as cp
import numpy as np

from theory.process import observation_laws
from toy_world.planners.problem import Reading, observation_prefixes


@dataclass(frozen=True, kw_only=True)
class Solution:
    """`solver_seconds`: processor time of Clarabel alone, without cvxpy's translation."""

    value: float
    status: str
    solver_seconds: float


def solve_kl_program(beta, nu, utility, *, budget_nats, reading, tolerance=1e-10) -> Solution:
    """Value of the optimum under a KL budget, by Clarabel.

    Its `status` is "optimal" where `tolerance` was met: rarely at tiny budgets and beyond
    horizon 6, where the value can be off by much more, or missing ("failed").
    """
    n_actions, n_observations = nu[0].shape[1:]
    horizon = len(beta)
    world = observation_laws(nu)
    flows, parents, constraints = [], [], []
    parent = np.ones(1)
    for t in range(horizon):
        flow = cp.Variable((len(beta[t]), n_actions), nonneg=True)
        constraints.append(cp.sum(flow, axis=1) == parent)
        flows.append(flow)
        parents.append(parent)
        # x(hao) = x(ha): every entry |O| times, in table order.
        repeat = np.kron(np.eye(flow.size), np.ones((n_observations, 1)))
        parent = repeat @ cp.reshape(flow, (flow.size,), order="C")
    kl = []
    for t in range(horizon):
        base = cp.multiply(
            beta[t], cp.reshape(parents[t], (len(beta[t]), 1), order="C") @ np.ones((1, n_actions))
        )
        kl.append(cp.sum(cp.rel_entr(flows[t], base), axis=1))
    gains = (world[-1] * utility).reshape(-1, n_actions, n_observations).sum(axis=-1)
    value = cp.sum(cp.multiply(gains, flows[-1]))
    match reading:
        case Reading.EXPECTED:
            spent = sum(world[t] @ kl[t] for t in range(horizon))
            constraints.append(spent <= budget_nats)
        case Reading.FIXED:
            prefixes = observation_prefixes(
                n_actions=n_actions, n_observations=n_observations, horizon=horizon
            )
            for sequence in range(n_observations ** (horizon - 1)):
                spent = sum(
                    (prefixes[t] == sequence // n_observations ** (horizon - 1 - t)) * 1.0 @ kl[t]
                    for t in range(horizon)
                )
                constraints.append(spent <= budget_nats)
        case Reading.ADAPTIVE:
            # later(ha) >= M(hao) for every o, M(h) = KL_h + sum_a later(ha), all times x.
            to_go = kl[-1]
            for t in range(horizon - 2, -1, -1):
                later = cp.Variable(len(beta[t]) * n_actions)
                repeat = np.kron(np.eye(later.size), np.ones((n_observations, 1)))
                constraints.append(repeat @ later >= to_go)
                total = np.kron(np.eye(len(beta[t])), np.ones((1, n_actions)))
                to_go = kl[t] + total @ later
            constraints.append(to_go <= budget_nats)
    problem = cp.Problem(cp.Maximize(value), constraints)
    options = {"tol_gap_abs": tolerance, "tol_gap_rel": tolerance, "tol_feas": tolerance}
    data, chain, inverse = problem.get_problem_data(cp.CLARABEL, solver_opts=options)
    start = time.process_time()
    answer = chain.solve_via_data(problem, data, solver_opts=options)
    solver_seconds = time.process_time() - start
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        try:
            problem.unpack_results(answer, chain, inverse)
        except cp.SolverError:
            return Solution(value=np.nan, status="failed", solver_seconds=solver_seconds)
    return Solution(
        value=float(problem.value), status=problem.status, solver_seconds=solver_seconds
    )
