"""Every lemma checked by machine."""
