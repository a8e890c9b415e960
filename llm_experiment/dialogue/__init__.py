"""Dialogue tasks: who speaks with which words, and the process that the models learn from."""
