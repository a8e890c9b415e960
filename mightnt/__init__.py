"""The shell that all commands share: command lines, tables, progress, results, figures."""

import os
import signal
import sys

__version__ = "0.1.0"

# Only `python -m <command>` that is still looking for its module is called `-m`, and only our own
# script `mightnt`. Until the command's `command_line.run_command` takes over, Ctrl-C ends it
# without a word, not with what it imports.
if os.path.basename((sys.argv or [""])[0]) in ("-m", "mightnt"):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
