"""The PPO experiment with a per-episode KL budget, on a known demonstrator or on Mixtral."""
