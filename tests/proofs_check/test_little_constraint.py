"""The cases of Theorem 1 are those that its words name."""

from dataclasses import replace

from proofs_check.little_constraint import ALPHABETS, LANGUAGE, SCOPES, cases
from proofs_check.verdict import Effort
from toy_world.programs.semantics import has_happened, trace_of


def test_every_event_of_a_case_has_just_occurred_for_the_first_time():
    scope = replace(SCOPES[Effort.SMALLEST], history_steps=2)
    found = list(cases(scope))
    assert {len(case.history) for case in found} == {2, 4}
    for case in found:
        occurred = [
            has_happened(case.event, trace_of(case.event, case.history[:n], **ALPHABETS))
            for n in range(0, len(case.history) + 1, 2)
        ]
        assert occurred == [False] * (len(occurred) - 1) + [True]
        parts = (LANGUAGE.length(case.event), LANGUAGE.length(case.policy))
        assert case.delta_bits == LANGUAGE.switch_bits + sum(parts)
