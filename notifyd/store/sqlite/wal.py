"""How much of the write-ahead log is in use: its file keeps its greatest size, so the size does not tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

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
        self._descriptor = os.open(f"{database}-wal", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._descriptor)

    def used(self) -> int:
        header = os.pread(self._descriptor, _HEADER, 0)
        if len(header) < _HEADER:
            return 0
        frame = _FRAME_HEADER + int.from_bytes(header[8:12], "big")
        low, high = 0, (os.fstat(self._descriptor).st_size - _HEADER) // frame
        while low < high:
            middle = (low + high) // 2
            salts = os.pread(self._descriptor, 8, _HEADER + middle * frame + 8)
            low, high = (middle + 1, high) if salts == header[16:24] else (low, middle)
        return low * frame
