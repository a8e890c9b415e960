"""Exact planners: the best value within a budget, under every constraint, with certificates."""
