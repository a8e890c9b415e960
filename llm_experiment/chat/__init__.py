"""The chat between agent and partner: turns, episodes, reward, and the world that holds them."""
