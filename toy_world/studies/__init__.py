"""What the paper's statements say in these worlds: the computation behind every demo.

- Proposition 1 (no triangle inequality): `no_triangle`.
- Theorem 1 (little constraint in novel situations): `theorem1`; with a joint predictor
  `joint_predictor` and `ordinary_joint_worlds`; its loose ends `waiting_agent`; on a universal
  machine `first_deviation`.
- Proposition 2 (simple events): `simple_events`.
- Theorem 2 (TVD constraint): `theorem2`, `claim_frequencies`, `perfect_base`.
- Definitions 3 and 4, Theorems 3 and 4 (pessimism): `guarantees` over the programs of
  `short_memory`, `posterior_manipulation`, `pessimism`, `lifelong_runs`.
- What demonstrations buy a learner: `hybrid`, and beside imitators `hybrid_doorbell`.
- What a budget buys: `frontiers`, `single_multiplier`; which regulariser resists: `regularisers`.

They share the mixture of all programs in the situations that a demonstration leads to
(`mixtures`), and what becomes of an agent's plan (`outcomes`).
"""
