"""A disk that can be filled, and have room again."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from attrs import define, field


class Disk(Protocol):
    """Where the database is. `fault` is what its being full is called."""

    folder: Path
    fault: str

    def fill(self, pid: int) -> None:
        """Leave no room to the process that has the database."""

    def free(self, pid: int) -> None: ...


@define
class SmallDisk:
    """A file system of its own, in memory. A file that takes up the rest fills it."""

    folder: Path
    fault: str = "the disk is full"

    def fill(self, pid: int) -> None:
        for size in (1 << 20, 4096):
            self._write_while_there_is_room(bytes(size))

    def _write_while_there_is_room(self, block: bytes) -> None:
        with (self.folder / "ballast").open("ab", buffering=0) as file:
            try:
                while file.write(block) == len(block):
                    pass
            except OSError:
                return

    def free(self, pid: int) -> None:
        (self.folder / "ballast").unlink()


@define
class LimitedFiles:
    """No file of the daemon's may grow beyond the largest there is."""

    folder: Path
    fault: str = "I/O error"
    limits: tuple[int, int] = field(factory=lambda: resource.getrlimit(resource.RLIMIT_FSIZE))

    def fill(self, pid: int) -> None:
        largest = max(path.stat().st_size for path in self.folder.glob("notifyd.db*"))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, self.limits[1]))

    def free(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, self.limits)


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Disk]:
    """A disk of this size at `folder`, which is there; files that may not grow where none may be mounted."""
    if not _mount(folder, mebibytes):
        yield LimitedFiles(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607 - its place differs


def _mount(folder: Path, mebibytes: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
