"""Every lemma checked by machine: `python -m proofs_check` runs and prints the checks.

A check is a function whose keyword arguments are the constants of the statement. Its defaults are
the statement as claimed. A *mutation* of the statement is a call with other constants, under which
it should be false: a check that cannot tell the two apart is no evidence.
"""

import mightnt  # noqa: F401 - so that Ctrl-C is quiet from the start
