"""A universal monotone machine, and every program of up to L bits on it."""
