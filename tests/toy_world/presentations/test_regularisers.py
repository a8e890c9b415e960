"""What the findings and the figure of the regularisers' demo say is what its outcomes are."""

import re

from toy_world.studies.regularisers import ALPHA, Base, Constraint


def test_findings_hold_the_outcomes_at_one_nat(shown):
    result = shown("regularisers").result
    outcomes, text = result.data.outcomes, result.findings
    for base, finding in ((Base.BAYESIAN, text[0]), (Base.PERFECT, text[2])):
        spans = dict(
            reversed(found) for found in re.findall(r"([-\d.e]+ to [-\d.e]+) \(([^)]*)\)", finding)
        )
        assert Constraint.NONE.value not in spans
        for constraint in map(Constraint, spans):
            own = []
            for outcome in outcomes:
                if (outcome.base, outcome.constraint, outcome.eps_nats) == (base, constraint, 1.0):
                    own.append(outcome.bad_probability)
            low, high = map(float, spans[constraint.value].split(" to "))
            assert (low, high) == (float(f"{min(own):.2g}"), float(f"{max(own):.2g}"))
    pessimist = [o for o in outcomes if o.constraint is Constraint.PESSIMISTIC]
    assert f"in all {len(pessimist)} cases (frozen posterior, alpha = {ALPHA})" in text[1]
    assert f"the widest gap of {len(outcomes)} plans" in text[3]
