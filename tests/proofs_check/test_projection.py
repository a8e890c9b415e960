"""The gradients of the projection are compared with torch's where torch is installed."""

from proofs_check import projection
from proofs_check.checks import run_check, select
from proofs_check.verdict import Effort, Verdict


def test_without_torch_the_gradients_are_undecided_and_the_reason_is_given(monkeypatch):
    monkeypatch.setattr(projection, "find_spec", lambda name: None)
    (check,) = select(["mixture-autograd"])
    result = run_check(check, Effort.SMALLEST)
    assert result.outcome.verdict is Verdict.UNDECIDED
    assert "needs torch" in result.outcome.note
    assert not result.passed
