"""Optimal policies within a budget, each with a bound on every other.

Every planner takes the base policy beta, the environment nu and the utility U on one history tree
(`theory.process`), and returns a `Plan` (`certificate`).

| what the budget limits | observations | planner |
|---|---|---|
| KL to beta | expected in nu | `expected_kl.expected_kl_optimum`, `.expected_kl_frontier` |
| KL to beta | fixed in advance | `fixed_kl.fixed_kl_optimum` |
| KL to beta | chosen adaptively | `adaptive_kl.adaptive_kl_optimum` |
| KL of acting, with asking for help as an action | expected in nu | `ask.asking_optimum` |
| total variation distance to beta | all three, also exact | `tvd.tvd_optimum` |
| reverse KL or chi-squared to beta | expected in nu | `divergence.divergence_optimum` |

What they share: the problem and its soft policy (`problem`), plans and the check of prices
(`certificate`), the optimum under one constraint from its relaxations (`lagrangian`), the
interior-point method against an adversary (`worst_case`), linear programs (`linear_program`).
"""
