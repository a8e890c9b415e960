"""Learning from demonstrations and from interaction: confidence-based learners in finite worlds."""
