"""What each demo shows: its data computed by a study, tables, findings, and the figure."""
