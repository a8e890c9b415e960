"""Says that machine code is being made, which takes some seconds, once after an installation."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Final

NOTICE: Final = "making machine code for this processor, once after an installation: some 15 s"
"""What is printed on stderr."""


@contextlib.contextmanager
def compilation_shown() -> Iterator[None]:
    """Print the notice if anything is compiled meanwhile and somebody watches."""
    logger = logging.getLogger("theory.compiled")
    handler, level = _FirstOnScreen(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _FirstOnScreen(logging.Handler):
    """Prints the notice in place of the first record."""

    _shown = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._shown and sys.stderr.isatty():
            print(NOTICE, file=sys.stderr)
        self._shown = True
