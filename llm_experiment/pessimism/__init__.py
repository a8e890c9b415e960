"""Event vetoes learnt from demonstrations, audited on others, and used to generate text."""
