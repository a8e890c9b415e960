"""Mixtures over every program up to L bits, small worlds, exact constrained planners, demos."""

import mightnt  # noqa: F401 - so that Ctrl-C is quiet from the start
