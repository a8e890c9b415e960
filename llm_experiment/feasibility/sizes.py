"""Sizes of models with random weights, which a dry run can use in place of trained ones.

Apart from `random_models`, which makes them, so that a command line can name them without torch.
"""

from enum import Enum


class RandomSize(Enum):
    """How large a model with random weights is."""

    TINY = "tiny"
    """Seconds on any machine."""
    SMALL = "small"
    """A Mixtral scaled down, its vocabulary whole: a minute or two on one processor core."""
    MIXTRAL_8X7B = "mixtral-8x7b"
    """The published sizes: 46.7 billion weights."""
