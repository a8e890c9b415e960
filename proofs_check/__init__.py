"""Every lemma checked by machine: `python -m proofs_check` prints the ledger.

A check is a function whose keyword arguments are the constants of the statement, its defaults
being the statement as claimed; so a *mutation* of the statement is a call with other constants,
and a check that cannot tell the two apart is no evidence.
"""
