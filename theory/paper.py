"""The paper's statements by label, and our own: the one place where printed numbers stand.

Cohen, Hutter, Bengio, Russell, "RL, but don't do anything I wouldn't do" (arXiv 2410.06213,
UAI 2025), and FGOIL: Cohen, Hutter, Nanda, "Fully General Online Imitation Learning"
(arXiv 2102.08686, JMLR 23, 2022). Statements on learning from demonstrations and interaction are
of Huang, Li, Shi, Shen and Yang, "Augmenting Online RL with Offline Data is All You Need"
(arXiv 2505.13768, UAI 2025), by their content.
"""

from enum import Enum, unique


@unique
class Statement(Enum):
    """A statement that this toolkit implements or checks; the value is its citation.

    Example:
        >>> from theory import Statement
        >>> print(Statement.LITTLE_CONSTRAINT)
        Theorem 1 (little constraint in novel situations)
    """

    VALUE = "Definition 1 (value)"
    KL_CONSTRAINT = "Definition 2 (KL constraint)"
    NO_TRIANGLE = "Proposition 1 (no triangle inequality)"
    LITTLE_CONSTRAINT = "Theorem 1 (little constraint in novel situations)"
    SIMPLE_EVENTS = "Proposition 2 (frequency of simple unprecedented events)"
    TVD_CONSTRAINT = "Theorem 2 (TVD constraint)"
    TOP_SET = "Definition 3 (top set)"
    PESSIMISTIC_IMITATOR = "Definition 4 (pessimistic Bayesian imitator)"
    LIMITED_QUERYING = "Theorem 3 (limited querying; FGOIL Theorem 2)"
    NOTHING_UNPRECEDENTED = "Theorem 4 (KL to the demonstrator is bounded)"
    HYBRID_UNCERTAINTY = "Hybrid learning: uncertainties cover (Huang et al. 2025)"
    HYBRID_LOWER_BOUNDS = "Hybrid learning: lower bounds (Huang et al. 2025)"
    EVENT_VETOES = "Event vetoes (this toolkit's own)"

    def __str__(self) -> str:
        """The citation, as printed in tables."""
        return self.value
