"""Results that the processes of one machine share: made by one of them, mapped by all.

A folder in the machine's temporary folder (`TMPDIR`) holds, for each name, an array and what goes
with it. The first process that asks for a name makes it while others that need it wait; if it dies,
one of them makes it. Arrays are mapped, so that the machine holds them in memory once, however many
processes work on them, and can let go of them when it is short of memory.

Whoever uses a folder holds a shared lock on it. A process that begins or is done removes every
folder that nobody uses any more, those of processes that were killed included. What is removed is
given another name first, so that a folder of its own name can be begun anew meanwhile.
"""

import contextlib
import fcntl
import os
import pickle
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from theory.errors import ResultsError

Made: TypeAlias = tuple[NDArray[Any], Any]
"""An array, and what goes with it: anything that can be pickled."""

_USERS: Final = "users"
_ARRAY: Final = "npy"
_REST: Final = "pickle"
_GONE: Final = ".gone-"
"""Begins the name of a folder that is being removed."""


class MachineFolder:
    """A folder of shared results, held until it is released or the process ends."""

    def __init__(self, key: str, *, root: Path | None = None) -> None:
        """Open the folder of `key`, or begin it.

        Args:
            key: says what is in it; equal keys mean equal results.
            root: where such folders are; this user's within the temporary folder by default.

        Raises:
            ResultsError: the folder would lie where somebody else might write.
        """
        self._root = own_root() if root is None else root
        self.path = self._root / key
        self._users = _held(self.path)
        remove_unused(self._root)  # this process may need the room

    def of(self, makers: dict[str, Callable[[], Made]]) -> dict[str, Made]:
        """The results of some names.

        Those that nobody makes yet are made here first; only then are the others waited for. So
        several processes that begin together make different ones side by side.

        Args:
            makers: what makes each; deterministic.

        Returns:
            Each result, its array mapped: it can be written to, and nobody else sees that.

        Raises:
            ResultsError: there is no room for one.
        """
        for wait in (False, True):
            for name, make in makers.items():
                with _alone(self.path / f"{name}.lock", wait=wait) as mine:
                    if mine and not (self.path / f"{name}.{_REST}").exists():
                        self._write(name, make())
        return {name: self._read(name) for name in makers}

    def _write(self, name: str, made: Made) -> None:
        array, rest = made
        unfinished = self.path / f"{name}.unfinished"
        try:
            np.save(self.path / f"{name}.{_ARRAY}", array)
            unfinished.write_bytes(pickle.dumps(rest))
        except OSError as error:
            raise ResultsError(
                f"cannot keep tables in {self.path}: {error}; set TMPDIR, where the process "
                "starts, to a folder with more room"
            ) from error
        # Its being there says that both are whole.
        unfinished.replace(self.path / f"{name}.{_REST}")

    def _read(self, name: str) -> Made:
        mapped = np.load(self.path / f"{name}.{_ARRAY}", mmap_mode="c")
        return np.asarray(mapped), pickle.loads((self.path / f"{name}.{_REST}").read_bytes())

    def release(self) -> None:
        """Say that this process is done, and remove folders that nobody uses.

        What was mapped stays as it is until it is let go of.
        """
        os.close(self._users)
        remove_unused(self._root)


def own_root() -> Path:
    """This user's folder within the temporary folder, where nobody else can write.

    Raises:
        ResultsError: something of that name belongs to somebody else, or is open to others.
    """
    root = Path(tempfile.gettempdir()) / f"mightnt-tables-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ResultsError(
            f"{root} is not a folder that this user alone can use; remove it, or set TMPDIR"
        )
    return root


def remove_unused(root: Path) -> None:
    """Remove every folder within `root` that no process holds."""
    for path in root.iterdir():
        if path.name.startswith(_GONE):  # by somebody who was killed, or is at it
            shutil.rmtree(path, ignore_errors=True)
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            users = os.open(path / _USERS, os.O_RDWR)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(users).st_nlink:  # else the folder is another one by now
                    gone = Path(tempfile.mkdtemp(prefix=_GONE, dir=root))
                    path.rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(users)


def _held(path: Path) -> int:
    """The descriptor of a shared lock on a folder that is there once it is held."""
    while True:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            users = os.open(path / _USERS, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # removed in between
        fcntl.flock(users, fcntl.LOCK_SH)
        if os.fstat(users).st_nlink:
            return users
        os.close(users)  # removed while this process waited for the lock


@contextlib.contextmanager
def _alone(path: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process has the lock, which it does after waiting for it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)
