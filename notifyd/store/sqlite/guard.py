"""Is the file still the one that a start would open, and whole? Where not, nothing more is acknowledged.

SQLite goes on with the open files, whatever has become of their names, and commits to a file that nobody will open
again. So the files are checked after each commit, before its callers are told.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Final

from attrs import frozen

from notifyd.errors import StoreError, StoreUnusableError
from notifyd.store.sqlite.files import store_error

_MAGIC: Final = b"SQLite format 3\0"
_HEADER: Final = 32
_ADVICE: Final = "put it back, and see the runbook before the service is stopped"

_log = logging.getLogger("notifyd.store")


class _MisplacedError(StoreUnusableError):
    """A file is not where it was; it may come back."""


@frozen
class _Content:
    """What the database's header says (https://www.sqlite.org/fileformat2.html, 1.3), and the file's size."""

    header: bytes
    size: int

    @property
    def changes(self) -> int:
        """Grows only."""
        return int.from_bytes(self.header[24:28], "big")

    @property
    def declared(self) -> int:
        """The bytes that its pages take up."""
        page = int.from_bytes(self.header[16:18], "big")
        return int.from_bytes(self.header[28:32], "big") * (65536 if page == 1 else page)

    def may_follow(self, earlier: _Content) -> bool:
        """SQLite cuts a file only to what its header declares, after a VACUUM."""
        shrunk = self.size < earlier.size and self.size < self.declared
        return self.header[:16] == _MAGIC and self.changes >= earlier.changes and not shrunk


class FileGuard:
    """Shared by all who use the open file. `broken` is set once it is found corrupt, until the process ends.

    A file that is not in its place is `astray`, and is taken up again if it comes back: it is the same one, with
    its log and its lock.

    Its descriptor is closed after SQLite's own: closing any of a file gives up the process's locks on it
    (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, named: Path, path: Path) -> None:
        """`named` leads to `path`, the open database, as it will at the next start. Raises OSError."""
        self._path = path
        names = [named.absolute(), *(f"{path}{suffix}" for suffix in ("-wal", "-shm", ".lock"))]
        self._names = [(str(name), _identity(str(name))) for name in names]
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._content = self._look()
        self._latch = threading.Lock()
        self.broken: StoreUnusableError | None = None
        self.astray = False

    def close(self) -> None:
        os.close(self._descriptor)

    def check(self) -> None:
        """Raises `StoreUnusableError` where a start would not find, in a whole file, what was just committed."""
        self.check_whole()
        try:
            self._check_names()
        except _MisplacedError as fault:
            if not self.astray:
                _log.critical("%s; until it is back no event is taken", fault)
            self.astray = True
            raise
        if self.astray:
            _log.warning("%s: is in its place again", self._path)
            self.astray = False

    def check_if_astray(self) -> None:
        """So that nothing more is committed to a file that was not in its place."""
        if self.astray:
            self.check()

    def check_whole(self) -> None:
        """Raises `StoreUnusableError` where the file is broken, wherever it is."""
        content = self._look()
        if content != self._content:
            if not content.may_follow(self._content):
                # Header and size may be of two moments while the log is copied into it.
                content = self._look()
            if not content.may_follow(self._content):
                self._condemn(
                    StoreUnusableError(f"{self._path}: was overwritten while in use: restore a backup")
                )
            self._content = content
        if self.broken is not None:
            raise StoreUnusableError(self.broken.detail)

    def fault(self, error: BaseException) -> StoreError:
        """`store_error`, remembered where it says that the file is broken."""
        fault = store_error(self._path, error)
        if isinstance(fault, StoreUnusableError) and not isinstance(fault, _MisplacedError):
            self._condemn(fault)
        return fault

    def _look(self) -> _Content:
        return _Content(os.pread(self._descriptor, _HEADER, 0), os.fstat(self._descriptor).st_size)

    def _check_names(self) -> None:
        for name, identity in self._names:
            try:
                found = _identity(name)
            except OSError as error:
                raise _MisplacedError(f"{name}: is not in its place ({error.strerror}): {_ADVICE}") from error
            if found != identity:
                raise _MisplacedError(f"{name}: another file is in its place: {_ADVICE}")

    def _condemn(self, fault: StoreUnusableError) -> None:
        with self._latch:
            if self.broken is not None:
                return
            self.broken = fault
        _log.critical("%s; until a restart no event is taken", fault)


def _identity(name: str) -> tuple[int, int]:
    """Which file a name leads to."""
    found = os.stat(name)  # noqa: PTH116 - half the time of `Path.stat`, at each commit
    return found.st_dev, found.st_ino
