"""The project's own exceptions; each message names the number that offends and the remedy."""


class MightntError(Exception):
    """Base class of every error that this project raises on purpose.

    Example:
        >>> from theory import MightntError, no_triangle_witness
        >>> try:
        ...     no_triangle_witness(0.0)
        ... except MightntError as error:
        ...     print(error)
        epsilon must be positive and finite, got 0.0
    """


class InvalidDistributionError(MightntError, ValueError):
    """Probabilities that are negative, NaN or sum to more than 1; log-probabilities above 0.

    Example:
        >>> from theory import demonstrator_stays_probability
        >>> demonstrator_stays_probability(alpha=0.1, weight=2.0)
        Traceback (most recent call last):
        theory.errors.InvalidDistributionError: weight must lie in (0, 1], got 2.0
    """


class InvalidShapeError(MightntError, ValueError):
    """Arrays whose shapes do not fit together.

    Example:
        >>> from theory import kl_log_sum
        >>> kl_log_sum([1, 0], [1, 0, 0])
        Traceback (most recent call last):
        theory.errors.InvalidShapeError: p and q must list the same outcomes, got 2 and 3
    """


class InvalidBudgetError(MightntError, ValueError):
    """A divergence budget that is negative or NaN, or a step that costs more than is left.

    Example:
        >>> from theory import largest_share
        >>> largest_share(0.5, -1.0)
        Traceback (most recent call last):
        theory.errors.InvalidBudgetError: budget_nats must be >= 0, got -1.0
    """


class InvalidHistoryError(MightntError, ValueError):
    """A history of odd length where an even one is needed, or with a symbol outside its alphabet.

    Example:
        >>> from theory import HistoryTree
        >>> HistoryTree(n_actions=2, n_observations=2, horizon=1).index((0, 5))
        Traceback (most recent call last):
        theory.errors.InvalidHistoryError: observation at position 1 must lie in 0..1, got 5
    """


class InvalidArgumentError(MightntError, ValueError):
    """Any other argument outside its domain.

    Example:
        >>> from theory import elias_delta_bits
        >>> elias_delta_bits(0)
        Traceback (most recent call last):
        theory.errors.InvalidArgumentError: number must be >= 1, got 0
    """


class SolverError(MightntError, RuntimeError):
    """A solver that did not converge; the message holds its bracket or residual.

    Example:
        >>> from theory import MightntError, SolverError
        >>> issubclass(SolverError, MightntError) and issubclass(SolverError, RuntimeError)
        True
    """


class UnreachableLengthError(MightntError, ValueError):
    """A description-length limit too small for the question; the message says which would do."""


class ResultsError(MightntError, RuntimeError):
    """A result that cannot be written, read or resumed."""


class MissingDataError(ResultsError):
    """Results that no command has made yet; the message says which command makes them."""


class ModelError(MightntError, RuntimeError):
    """A model, tokenizer or device that is missing, incomplete or unfit; the message says which."""


class ClusterError(MightntError, ConnectionError):
    """A cluster that is not installed, not reachable or unfit; the message says what to do."""
