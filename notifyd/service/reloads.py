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
    """Raises OSError where no service tells of itself there, ValueError where the file is another's."""
    try:
        return Reloads(**json.loads((where / _NAME).read_bytes()))
    except TypeError:
        raise ValueError(f"{where / _NAME} is not the file of a running service") from None


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
