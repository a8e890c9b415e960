"""Every figure and table, regenerated from runs."""
