"""The shell that all commands share: command lines, tables, progress, results, figures."""

import signal
import sys

__version__ = "0.1.0"

# Only `python -m <command>` that is still looking for its module is called `-m`. Until its
# `command_line.run_command` takes over, Ctrl-C ends it without a word, not with what it imports.
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
