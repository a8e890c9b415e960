"""The dialogue tasks, one module each: a new task is a new file here that offers `TASK`."""
