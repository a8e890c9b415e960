"""KL-constrained policies: divergences, constraints, budgets, projections, mixtures and bounds.

A policy pi is kept close to a trusted base policy beta by a bound on `KL(pi||beta)`. This library
is the mathematics of that constraint, after "RL, but don't do anything I wouldn't do" (arXiv
2410.06213): what the constraint means over a whole episode, how to spend a budget of it without
ever overspending, and when it fails to constrain because beta is itself an imitation. It knows no
model, no environment and no training; NumPy arrays and torch tensors both pass, and gradients flow.

What there is, by module:

- `theory.divergences`: KL, total variation, chi-squared and Rényi of log-probabilities, each
  total (never NaN) and with all its digits where the policies are nearly equal.
- `theory.projections`: the policy at a prescribed KL from a base, as a mixture or tilted.
- `theory.budget`: the KL budget of an episode, charged step by step. `theory.overspending` says
  what it leaks when the log-ratio is charged instead of the KL.
- `theory.process`: histories, policies, environments and value on finite trees (Definition 1).
- `theory.constraints`: KL and total variation of whole episodes in three readings (Definition 2).
- `theory.bayes_mixture`: Bayesian imitators, which Theorem 1 is about.
- `theory.pessimism`: the pessimistic imitator, which asks for help instead (Definition 4).
- `theory.missing_mass`: what acting costs where an imitator asks, and where the step goes.
- `theory.vetoes`: a pessimistic imitator for models of any size: events that were never seen.
- `theory.bounds`: the right-hand side of every statement.
- `theory.log_sum`: exact numbers `r + sum c_i ln b_i`, for KLs between rational policies.
- `theory.paper`: the labels of the paper's statements. `theory.errors`: what is raised.

Conventions:

- Divergences and budgets are in *nats* and descriptions in *bits*, and names say so (`_nats`,
  `_bits`); logarithms are natural. 1 bit is ln 2 nats.
- One step's policies are *log-probabilities* of shape (..., d): the last axis is the distribution,
  the axes before it are independent rows and broadcast. Probability 0 is `-inf`.
- A row may sum to less than 1. The rest is the probability that nothing comes: a program that
  does not halt, an imitator that asks for help. No divergence counts it as an outcome.
- On a tree, policies and environments are tables of *probabilities*, one array a step
  (`theory.process`). Tables of `Fraction` give exact results, floats give floats.
- Annotations such as `Float64[Array, "*rows d"]` say shapes; `theory.arrays` explains them.
- Wrong arguments raise a `MightntError` that says what is required and what was got.

A budget of half a nat, spent in one step on a proposal that costs more:

    >>> import numpy as np
    >>> from theory import Accounting, fixed_kl_mixture, kl_nats, open_ledger
    >>> base, proposal = np.log([0.9, 0.1]), np.log([0.1, 0.9])
    >>> round(float(kl_nats(proposal, base)), 3)  # 0.8 ln 9
    1.758
    >>> ledger = open_ledger(np.array([0.5]), accounting=Accounting.EXACT)
    >>> step = fixed_kl_mixture(proposal, base, ledger.remaining_nats)
    >>> ledger = ledger.charge(kl_nats=step.kl_nats)
    >>> print(step.kl_nats.round(3), ledger.remaining_nats.round(3))
    [0.5] [0.]

Over two steps, exactly: a policy that becomes certain if its first action was echoed. Observations
chosen in advance cannot follow the action, so the constraint of the paper sees half its KL:

    >>> from fractions import Fraction
    >>> from theory import HistoryTree, environment_table, expected_kl_nats, fixed_kl_nats
    >>> from theory import policy_table
    >>> tree = HistoryTree(n_actions=2, n_observations=2, horizon=2)
    >>> fair = (Fraction(1, 2), Fraction(1, 2))
    >>> beta = policy_table(tree, lambda history: fair)
    >>> pi = policy_table(tree, lambda history: (1, 0) if history in {(0, 0), (1, 1)} else fair)
    >>> echo = environment_table(tree, lambda history: [int(o == history[-1]) for o in (0, 1)])
    >>> print(fixed_kl_nats(pi, beta), "<", expected_kl_nats(pi, beta, echo))
    1/2 ln 2 < ln 2

Importing `theory` imports nothing else: a name's module is loaded when the name is first used.
"""

import importlib
from typing import Any, Final

_PUBLIC: Final = {
    "theory.errors": (
        "MightntError",
        "InvalidArgumentError",
        "InvalidBudgetError",
        "InvalidDistributionError",
        "InvalidHistoryError",
        "InvalidShapeError",
        "SolverError",
    ),
    "theory.paper": ("Statement",),
    "theory.divergences": (
        "kl_nats",
        "tvd",
        "chi_squared",
        "renyi_nats",
        "log_missing_mass",
        "with_missing_outcome",
    ),
    "theory.projections": ("KLProjection", "fixed_kl_mixture", "geometric_projection"),
    "theory.budget": ("Accounting", "BudgetLedger", "open_ledger"),
    "theory.overspending": (
        "OverspendingBet",
        "all_in_spending_nats",
        "realized_two_step_supremum",
    ),
    "theory.process": (
        "HistoryTree",
        "policy_table",
        "environment_table",
        "utility_table",
        "reach_probabilities",
        "joint_law",
        "action_law",
        "observation_laws",
        "values",
        "optimal_values",
        "action_values",
        "subtree",
    ),
    "theory.constraints": (
        "step_kl_nats",
        "fixed_kl_nats",
        "fixed_kl_per_observations",
        "adaptive_kl_nats",
        "adaptive_kl_to_go",
        "expected_kl_nats",
        "expected_kl_to_go",
        "expected_reverse_kl_nats",
        "fixed_tvd",
        "fixed_tvd_per_observations",
        "adaptive_tvd",
        "adaptive_tvd_to_go",
        "expected_tvd",
        "expected_chi_squared",
        "observation_sequence",
        "observation_strategy",
    ),
    "theory.bayes_mixture": (
        "Update",
        "stack_tables",
        "model_table",
        "posterior_weights",
        "policy_mixture",
        "joint_predictor",
        "observation_mixture",
        "observation_ratios",
        "normalised_log_weights",
        "update_log_weights",
        "predictive_log_probs",
    ),
    "theory.pessimism": ("top_set", "pessimistic_imitator", "help_probability"),
    "theory.missing_mass": ("Help", "acting_cost_nats", "may_act", "completed", "renormalised"),
    "theory.vetoes": (
        "EventEvidence",
        "event_prior",
        "never_weights",
        "is_vetoed",
        "graded_factors",
        "confidence_factors",
        "surest_alpha",
        "unvetoed_expectation_bound",
        "unvetoed_price_bound_nats",
        "false_vetoes_bound",
        "blocking_bound",
    ),
    "theory.bounds": (
        "Theorem1Bound",
        "theorem1_factor",
        "pointed_deviators_nats",
        "equally_pointed_deviators_nats",
        "halving_deviators_nats",
        "NoTriangleWitness",
        "no_triangle_witness",
        "ShortValue",
        "short_value_below",
        "third_term_bits",
        "elias_delta_bits",
        "top_set_size_bound",
        "demonstrator_stays_probability",
        "help_cubed_bound",
        "LargestShare",
        "largest_share",
    ),
    "theory.log_sum": ("LogSum", "kl_log_sum"),
}
"""Every public name, by the module that defines it; `__init__.pyi` is the same for type checkers.

No name may be that of a module of this package: once loaded, the module would stand in its place.
"""
_HOME: Final = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'theory' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # so that this is asked once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
