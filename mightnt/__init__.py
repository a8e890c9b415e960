"""The shell that every command shares: command lines, tables, progress, results on disk, figures."""

__version__ = "0.1.0"
