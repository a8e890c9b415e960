"""A run as one page to look at: its data and its page."""
