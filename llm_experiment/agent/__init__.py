"""The agent: its policy near the base policy, its rollouts and its training."""
