"""The PPO experiment with a per-episode KL budget, on a known demonstrator or on Mixtral."""

import mightnt  # noqa: F401 - so that Ctrl-C is quiet from the start
