"""Definitions, constraints, budget accounting, mixtures and bounds of the paper."""
