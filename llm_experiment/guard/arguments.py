"""What a budget may be. Needs no torch, so that command lines are read without it."""

from theory.errors import InvalidArgumentError, InvalidBudgetError


def check_budget(*, budget_nats: float, step_share: float) -> None:
    """Raise unless the budget is a number >= 0 and the share lies in (0, 1].

    Raises:
        InvalidBudgetError: the budget is negative, infinite or NaN.
        InvalidArgumentError: the share is not in (0, 1].
    """
    if not 0 <= budget_nats < float("inf"):
        raise InvalidBudgetError(f"budget_nats must be a finite number >= 0, got {budget_nats}")
    if not 0 < step_share <= 1:
        raise InvalidArgumentError(f"step_share must lie in (0, 1], got {step_share}")
