"""How much of the write-ahead log is in use: its file keeps its greatest size, so the size does not tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from notifyd.errors import StoreUnusableError

_MAGIC: Final = (0x377F0682, 0x377F0683)
_HEADER: Final = 32
_FRAME_HEADER: Final = 24


class WalGauge:
    """Counts the bytes of the log's present generation.

    The header and each frame bear two salts, renewed when the log starts over: frames of this generation are
    the ones whose salts are the header's, and come first (https://www.sqlite.org/fileformat2.html, 4.1). So a
    binary search of a dozen small reads finds the last. Locks are never taken on this file, so opening it
    beside SQLite does no harm.
    """

    def __init__(self, database: Path) -> None:
        self._path = f"{database}-wal"
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._last = (b"", 0)

    def close(self) -> None:
        os.close(self._descriptor)

    def used(self) -> int:
        """Raises `StoreUnusableError` where another hand has cut the log, and so what SQLite would find in it."""
        header = os.pread(self._descriptor, _HEADER, 0)
        if len(header) < _HEADER:
            return 0
        used, salts = self._count(header), header[16:24]
        if int.from_bytes(header[:4], "big") not in _MAGIC or (
            salts == self._last[0] and used < self._last[1]
        ):
            raise StoreUnusableError(f"{self._path}: was cut or overwritten while in use: restore a backup")
        self._last = salts, used
        return used

    def _count(self, header: bytes) -> int:
        frame = _FRAME_HEADER + int.from_bytes(header[8:12], "big")
        low, high = 0, (os.fstat(self._descriptor).st_size - _HEADER) // frame
        while low < high:
            middle = (low + high) // 2
            salts = os.pread(self._descriptor, 8, _HEADER + middle * frame + 8)
            low, high = (middle + 1, high) if salts == header[16:24] else (low, middle)
        return low * frame
