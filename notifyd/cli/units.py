"""The units of notifyd that are installed for systemd, as far as they say how the service runs.

What a unit file may hold is in systemd.syntax(7); where they are looked for, in systemd.unit(5).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

FOLDERS: Final = tuple(
    map(
        Path,
        (
            "/etc/systemd/system",
            "/run/systemd/system",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
            "/lib/systemd/system",
        ),
    )
)
"""Where units are, those that win first."""


@frozen
class Unit:
    """A unit file with its drop-ins: every setting with its values, in order."""

    path: Path
    settings: Mapping[str, tuple[str, ...]]

    def all(self, key: str) -> tuple[str, ...]:
        return self.settings.get(key, ())

    def last(self, key: str) -> str | None:
        """The value in force of a setting that has one."""
        values = self.all(key)
        return values[-1] if values else None

    @property
    def command(self) -> list[str]:
        """The words of `ExecStart`; none where they cannot be told apart."""
        try:
            return shlex.split((self.last("ExecStart") or "").lstrip("@-:+!"))
        except ValueError:
            return []

    @property
    def credentials(self) -> Mapping[str, Path | None]:
        """Each credential that the service is given, with the file it is copied from; None where it is no file."""
        found: dict[str, Path | None] = {}
        for value in (*self.all("LoadCredential"), *self.all("LoadCredentialEncrypted")):
            name, _, source = value.partition(":")
            found[name] = Path(source) if source.startswith("/") else None
        for value in (*self.all("SetCredential"), *self.all("SetCredentialEncrypted")):
            found.setdefault(value.partition(":")[0], None)
        return found


def find_unit(name: str, folders: Sequence[Path] = FOLDERS) -> Unit | None:
    """The first unit of that name, with the drop-ins of all `folders`; None where none can be read."""
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        return None
    drop_ins = {
        one.name: one for folder in reversed(folders) for one in (folder / f"{name}.d").glob("*.conf")
    }
    settings: dict[str, tuple[str, ...]] = {}
    for path in (found, *(drop_ins[key] for key in sorted(drop_ins))):
        _read(path, settings)
    return Unit(found, settings)


def _read(path: Path, settings: dict[str, tuple[str, ...]]) -> None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.replace("\\\n", " ").splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";", "[")):
            # An empty value takes back what was said before.
            before = settings.get(key.strip(), ()) if value.strip() else ()
            settings[key.strip()] = (*before, value.strip()) if value.strip() else ()
