"""Whether a run fits this machine, and how long it would take."""
