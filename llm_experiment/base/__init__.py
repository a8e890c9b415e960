"""Base policies: language models, exact processes and ensembles behind one protocol."""
