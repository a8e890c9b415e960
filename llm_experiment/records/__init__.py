"""A run's folder on disk: written whole, and read in one way."""
