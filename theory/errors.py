"""The project's own exceptions; each message names the number that offends and the remedy."""


class MightntError(Exception):
    """Base class of every error that this project raises on purpose."""


class InvalidDistributionError(MightntError, ValueError):
    """Negative, NaN or over-full probabilities, or log-probabilities above 0."""


class InvalidShapeError(MightntError, ValueError):
    """Arrays whose shapes do not fit together."""


class InvalidBudgetError(MightntError, ValueError):
    """A divergence budget that is negative or NaN."""


class InvalidHistoryError(MightntError, ValueError):
    """A history of the wrong parity, or with a symbol outside its alphabet."""


class InvalidArgumentError(MightntError, ValueError):
    """Any other argument outside its domain."""


class SolverError(MightntError, RuntimeError):
    """A solver that did not converge; the message holds its bracket or residual."""


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
