"""`notifyd doctor`: what is wrong with an installation, each finding with what to do."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

from notifyd import __version__
from notifyd.cli.common import config_option, fault_lines, json_option, not_ok, print_json
from notifyd.cli.finding import ERROR, OK, WARNING, Finding
from notifyd.cli.output import print_table
from notifyd.cli.units import FOLDERS, Unit, find_unit
from notifyd.errors import ConfigError, Fault
from notifyd.text import counted

if TYPE_CHECKING:
    from notifyd.config.load import Reading
    from notifyd.registry.discovery import Discovered

_CREDENTIALS: Final = "$CREDENTIALS_DIRECTORY"
_CREDENTIAL_TODO: Final = "run doctor as root, with LoadCredential= in notifyd.service, or set the variable"


_NEEDED: Final = ("server.listen", "server.tls", "server.max_connections", "store", "keys.seal")
"""What has to be known to look at the files, the units and the database."""


@click.command()
@config_option
@json_option
@click.option(
    "--unit-dir",
    "unit_dirs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Where systemd's units are; may be given several times. By default, where systemd looks for them.",
)
def doctor(config_path: Path, as_json: bool, unit_dirs: tuple[Path, ...]) -> None:
    """Look for what is wrong with an installation, and say what to do.

    Configuration, plugins, files and their owners, units of systemd, database, clock, and the way to each channel:
    names are looked up and connections made, and nothing is sent. The rows are all read where the service is
    stopped; where it runs it is asked what it has come upon. Exits with 1 where something is wrong; a warning is
    none.
    """
    findings = asyncio.run(examine(config_path, unit_dirs or FOLDERS))
    if as_json:
        print_json({"findings": [attrs.asdict(one) for one in findings]})
    else:
        print_table(
            ("check", "", "found", "to do"),
            [(one.check, one.level, one.detail, one.todo) for one in findings],
        )
    if any(one.level == ERROR for one in findings):
        raise not_ok()


async def examine(path: Path, unit_dirs: Sequence[Path]) -> list[Finding]:
    """All that can be found out about the installation whose configuration is at `path`."""
    from notifyd.cli.doctor_machine import credentials, files, given_credentials, machine, unit_files
    from notifyd.cli.doctor_network import network
    from notifyd.cli.doctor_store import store
    from notifyd.registry.discovery import discover

    service, listener = (find_unit(f"notifyd.{kind}", unit_dirs) for kind in ("service", "socket"))
    discovered = discover()
    findings = [Finding("version", OK, f"notifyd {__version__}, Python {platform.python_version()}")]
    with given_credentials(service) as environ:
        reading, found = await _configuration(path, discovered, service, environ)
        findings += [*found, *_plugins(discovered), *credentials(path, service)]
    # What depends on a key that has a fault is not known, and the rest is looked at all the same.
    settings = reading.settings if reading and reading.told.knows(*_NEEDED) else None
    findings += [*files(path, settings, service), *unit_files(path, settings, service, listener)]
    stored, reached = await asyncio.gather(
        store(settings, listener) if settings else nothing(),
        network(reading.settings) if reading and reading.told.knows("egress") else nothing(),
    )
    return [*findings, *(machine(settings, service) if settings else ()), *stored, *reached]


async def nothing() -> list[Finding]:
    return []


async def _configuration(
    path: Path, discovered: Discovered, service: Unit | None, environ: Mapping[str, str]
) -> tuple[Reading | None, list[Finding]]:
    """What it says as far as it can be read, None where that is nowhere, and what is wrong with it."""
    from notifyd.cli.doctor_machine import at_home
    from notifyd.cli.trial import try_out
    from notifyd.config.load import read

    reading: Reading | None = None
    try:
        reading = read(path, discovered.brought, environ)
        reading = attrs.evolve(reading, settings=at_home(reading.settings, service))
        trial = await try_out(path, reading, discovered)
    except ConfigError as error:
        return reading, _faulty(path, error.faults)
    settings = reading.settings
    told = f"{counted(len(settings.channels), 'channel')}, {counted(len(settings.rules), 'rule')}"
    doubted = [
        Finding("config", WARNING, line, f"look at {path}") for line in fault_lines(path, trial.doubts)
    ]
    left_out = [
        Finding("plugins", WARNING, f"a template is left out: {fault}", "upgrade the plugin that brings it")
        for fault in trial.left_out
    ]
    return reading, [Finding("config", OK, told), *doubted, *left_out]


def _faulty(path: Path, faults: Sequence[Fault]) -> list[Finding]:
    return [
        Finding("config", ERROR, line, _CREDENTIAL_TODO if _CREDENTIALS in line else f"correct {path}")
        for line in fault_lines(path, faults)
    ]


def _plugins(discovered: Discovered) -> list[Finding]:
    broken = [Finding("plugins", ERROR, str(fault), "upgrade or uninstall it") for fault in discovered.faults]
    return broken + [Finding("plugins", OK, f"{one.name} {one.version}") for one in discovered.plugins]
