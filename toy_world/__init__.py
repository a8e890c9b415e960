"""Mixtures over every program up to L bits, small worlds, exact constrained planners, demos."""
