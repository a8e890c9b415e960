"""Every figure and table, regenerated from runs."""

import mightnt  # noqa: F401 - so that Ctrl-C is quiet from the start
