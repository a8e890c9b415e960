"""The shell that every command shares: command lines, progress, results on disk, figures."""
