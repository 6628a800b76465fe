"""How reloads end, told to whoever asked for one by a signal: a file in the service's runtime folder.

systemd makes the folder (`RuntimeDirectory=`) and names it to the service and to its `ExecReload=` alike, in
`$RUNTIME_DIRECTORY` (https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import asdict, evolve, frozen

log = logging.getLogger(__name__)

_NAME: Final = "reloads.json"


@frozen
class Reloads:
    """Of the process `pid`: how many reloads have begun and have ended, and whether the last one was taken."""

    pid: int
    begun: int = 0
    ended: int = 0
    taken: bool = True


def folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where the file is; None where the service has no such folder."""
    first = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None


def read(where: Path) -> Reloads:
    """Raises OSError where no service tells of itself there, ValueError where the file is another's.

    Whoever reads it, root perhaps, signals the process that it names. A signal to 0 or -1 is one to many, and the
    file is the service's to write: it may name none but a process of its own user.
    """
    file = where / _NAME
    try:
        found = Reloads(**json.loads(file.read_bytes()))
    except TypeError:
        found = None
    if found is None or not _is_sound(found):
        raise ValueError(f"{file} is not the file of a running service")
    if Path("/proc", str(found.pid)).stat().st_uid != file.stat().st_uid:
        raise ValueError(f"{file} names a process of another user")
    return found


def _is_sound(found: Reloads) -> bool:
    counts = (found.pid, found.begun, found.ended)
    return all(type(count) is int and 0 <= count < 1 << 31 for count in counts) and found.pid > 0


class Record:
    """The service's side. A folder that cannot be written is logged: the reload itself goes on."""

    def __init__(self, where: Path | None) -> None:
        self._where = where
        self._said = Reloads(os.getpid())
        self._write(self._said)

    def begin(self) -> None:
        self._write(evolve(self._said, begun=self._said.begun + 1))

    def end(self, *, taken: bool) -> None:
        self._write(evolve(self._said, ended=self._said.begun, taken=taken))

    def _write(self, said: Reloads) -> None:
        self._said = said
        if self._where is None:
            return
        fresh = self._where / f"{_NAME}.new"
        try:
            fresh.write_text(json.dumps(asdict(said)))
            fresh.replace(self._where / _NAME)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._where / _NAME, error.strerror)
