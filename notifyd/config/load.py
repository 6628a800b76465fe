"""Loading a configuration: one TOML file, checked as a whole, into frozen records.

TOML is read, placeholders are resolved, each part is structured strictly, and what the parts say of one
another is checked. Then there is a `Settings`, or every fault is raised at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Final

from attrs import frozen

from notifyd.config.brought import Brought
from notifyd.config.describe import as_toml, describe, secrets
from notifyd.config.faults import Findings, Told, by_name, meant
from notifyd.config.placeholders import Resolver
from notifyd.config.reader import Reader, with_defaults
from notifyd.config.settings import Server, Settings
from notifyd.config.structure import Structurer
from notifyd.config.syntax import document, read_text
from notifyd.errors import ConfigError, Fault

__all__ = [
    "FROZEN",
    "Reading",
    "as_toml",
    "describe",
    "frozen_changes",
    "load_server",
    "read",
    "reads",
    "secrets",
]

FROZEN: Final = (
    "server.listen",
    "server.node",
    "store.url",
    "store.timeout",
    "store.driver",
    "dispatch.clock_skew",
)
"""What only a restart can change."""


@frozen
class Reading:
    """A configuration as far as it can be read, and every fault: where there are none, `settings` is all of it.

    What has a fault is left out, or is at its default: `told` says of a path whether it is known. A rule that has
    no name of its own goes by its place, such as `rules[2]`.
    """

    settings: Settings
    faults: tuple[Fault, ...]

    @property
    def told(self) -> Told:
        return Told(self.faults)

    def whole(self) -> Settings:
        """All of it. Raises `ConfigError` with every fault."""
        if self.faults:
            raise ConfigError(self.faults)
        return self.settings


def read(path: Path, brought: Brought, environ: Mapping[str, str] = os.environ) -> Reading:
    """The configuration in a file, checked, as far as it can be read. Relative paths start from the file's folder.

    Raises `ConfigError` where the file cannot be read, with a fault at its path, or where it is not TOML, with one
    at `PATH:LINE:COLUMN`.
    """
    return reads(read_text(path), brought, environ, base=path.parent, source=str(path))


def reads(
    text: str,
    brought: Brought,
    environ: Mapping[str, str] = os.environ,
    *,
    base: Path = Path(),
    source: str = "config",
) -> Reading:
    """The same for a text. `source` is what a syntax error calls it. Raises `ConfigError`."""
    raw = document(text, source)
    if not raw:
        raise ConfigError([Fault(source, "has no key at all: restore it, or begin with conf/notifyd.toml")])
    resolver, findings = Resolver(environ, base), Findings()
    resolved = resolver.resolve(raw, findings)
    unresolved, missing = findings.faults, findings.pointers
    revealed = resolver.revealed
    structurer = Structurer(base, revealed.add, revealed.hide_parts)
    settings = Reader(resolved, brought, structurer, findings).read()
    # A value that could not be resolved, or whose key is misspelt, is missing here, which is not a second fault.
    missing |= {path for fault in findings.faults if (path := meant(fault))}
    rest = [fault for fault in findings.faults if fault.pointer not in missing]
    rename = by_name(raw.get("rules"))
    faults = [*unresolved, *(Fault(f.pointer, revealed.hide(f.message)) for f in rest)]
    return Reading(settings, tuple(Fault(rename(fault.pointer), fault.message) for fault in faults))


def load_server(path: Path, environ: Mapping[str, str] = os.environ) -> Server:
    """`[server]` of the file at `path`, and no other table: for whoever looks for a service that runs.

    A fault elsewhere in the file, or a secret that cannot be read here, says nothing about a running service.
    Raises `ConfigError`.
    """
    raw = document(read_text(path), str(path))
    resolver, findings = Resolver(environ, path.parent), Findings()
    at = findings.under("server")
    table = resolver.resolve(raw.get("server", {}), at)
    revealed = resolver.revealed
    structurer = Structurer(path.parent, revealed.add, revealed.hide_parts)
    # A value that could not be resolved is missing, which is not a second fault.
    server = None if findings.faults else structurer.into(table, Server, at)
    if findings.faults or server is None:
        raise ConfigError(Fault(fault.pointer, revealed.hide(fault.message)) for fault in findings.faults)
    return with_defaults(server)


def frozen_changes(old: Settings, new: Settings) -> list[str]:
    """The keys that differ and cannot change in a running service."""
    return [key for key in FROZEN if attrgetter(key)(old) != attrgetter(key)(new)]
