"""What the paper's statements say in these worlds: the computation behind every demo."""
