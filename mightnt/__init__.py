"""The shell that all commands share: command lines, tables, progress, results, figures."""

__version__ = "0.1.0"
