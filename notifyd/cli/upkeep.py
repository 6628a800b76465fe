"""`notifyd purge`, `export` and `import`: what a store keeps, and where."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import define, field

from notifyd.cli.common import (
    Failure,
    config_failure,
    config_option,
    json_option,
    load_config,
    print_json,
    store_of,
)
from notifyd.cli.output import print_table
from notifyd.cli.remote import Remote, calling, remote_options
from notifyd.client import PURGE, Client
from notifyd.errors import (
    ArchiveError,
    ConfigError,
    StoreInUseError,
    StoreMissingError,
    StoreOutdatedError,
    UnavailableError,
)
from notifyd.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from notifyd.config.settings import Settings
    from notifyd.flow.retention import Retention

COLLECTIONS: Final = ("events", "approvals", "incidents", "deliveries", "audit")


@define
class Tally:
    """Counts by collection, shown as bars on a terminal while they grow."""

    counts: dict[str, int] = field(factory=lambda: dict.fromkeys(COLLECTIONS, 0))
    _bars: Progress | None = None
    _tasks: dict[str, Any] = field(factory=dict)

    def add(self, collection: str, count: int) -> None:
        self.counts[collection] += count
        if self._bars is not None and collection in self._tasks:
            self._bars.update(self._tasks[collection], completed=self.counts[collection])

    @contextmanager
    def shown(self, totals: Mapping[str, int]) -> Iterator[Tally]:
        """Bars on standard error, where that is a terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), disable=not is_watched()) as self._bars:
            self._tasks = {name: self._bars.add_task(name, total=total) for name, total in totals.items()}
            yield self
        self._bars = None


def is_watched() -> bool:
    return sys.stderr.isatty()


# --- purge -------------------------------------------------------------------------------------------------


@click.command()
@remote_options
@json_option
@click.option("--dry-run", is_flag=True, help="Only count what would be removed.")
@click.option("--offline", is_flag=True, help="Open the store of a service that is stopped.")
def purge(remote: Remote, as_json: bool, dry_run: bool, offline: bool) -> None:
    """Remove what is older than [retention] keeps, of all tenants, as the service does every hour."""
    if offline:
        with failing():
            tally = asyncio.run(_purge_offline(remote.settings, dry_run))
    else:
        with calling(as_json):
            tally = _purge_online(remote.operator(), dry_run)
    if as_json:
        print_json({"dryRun": dry_run, "removed": tally.counts})
    else:
        print_table(("collection", "would be removed" if dry_run else "removed"), list(tally.counts.items()))


def _purge_online(client: Client, dry_run: bool) -> Tally:
    tally = Tally()
    totals = _ask(client, Tally(), dry_run=True).counts if is_watched() and not dry_run else {}
    with tally.shown(totals):
        return _ask(client, tally, dry_run=dry_run)


def _ask(client: Client, tally: Tally, *, dry_run: bool) -> Tally:
    """Ask until there is no more to do; each answer takes about a second."""
    cursor: str | None = ""
    while cursor is not None:
        body = {"dryRun": dry_run} | ({"cursor": cursor} if cursor else {})
        answer = client.post(PURGE, json.dumps(body).encode()).document
        for collection, count in answer["removed"].items():
            tally.add(collection, count)
        cursor = answer["nextCursor"]
    return tally


async def _purge_offline(settings: Settings, dry_run: bool) -> Tally:
    from notifyd.flow.retention import Retention
    from notifyd.metrics import Metrics
    from notifyd.model import wall_clock

    tally = Tally()
    async with store_of(settings, "purge") as store:
        retention = Retention(store=store, settings=lambda: settings, metrics=Metrics(), clock=wall_clock)
        totals = (
            (await _pass(retention, Tally(), dry_run=True)).counts if is_watched() and not dry_run else {}
        )
        with tally.shown(totals):
            return await _pass(retention, tally, dry_run=dry_run)


async def _pass(retention: Retention, tally: Tally, *, dry_run: bool) -> Tally:
    async for batch in retention.batches(dry_run=dry_run):
        tally.add(batch.collection, batch.removed)
    return tally


# --- export and import -------------------------------------------------------------------------------------


@click.command()
@config_option
@json_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def export(config_path: Path, as_json: bool, file: Path) -> None:
    """Write all that the store has to FILE, as JSON Lines. The service is to be stopped.

    Repeated after it was cut short, it goes on where it was, unless the store has been used since. Messages
    and tokens are sealed under keys.seal, which whoever imports the file needs too. Rows that cannot be read are
    left out and named, and then the exit code is 1.
    """
    if str(file) == "-":  # standard output for other commands; a file of that name would be found by nobody
        raise click.UsageError("an export is a file that it can go on with: name one")
    settings = _settings(config_path)
    with failing():
        rows, left_out = asyncio.run(_export(settings, file))
    document = {"file": str(file), "rows": rows, "leftOut": left_out}
    _print(as_json, document, f"{counted(sum(rows.values()), 'row is', 'rows are')} in {file}")
    if left_out:
        lost = counted(left_out, "row cannot be read and is", "rows cannot be read and are")
        raise Failure(f"{lost} left out: see the runbook")


@click.command("import")
@config_option
@json_option
@click.option("--create", is_flag=True, help="Make the store where there is none, as on a new machine.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def import_(config_path: Path, as_json: bool, create: bool, file: Path) -> None:
    """Take the rows of FILE, which an export wrote, into the store. The service is to be stopped.

    A row that is there already stays as it is, so this can be repeated, and goes on after it was cut short.
    """
    settings = _settings(config_path)
    with failing("or make one with --create"):
        rows, new = asyncio.run(_import(settings, file, create))
    told = f"{counted(sum(rows.values()), 'row is', 'rows are')} in the store, {new} of them new"
    _print(as_json, {"file": str(file), "rows": rows, "new": new}, told)


def _print(as_json: bool, document: Mapping[str, Any], line: str) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(line)


def _settings(path: Path) -> Settings:
    try:
        settings, _ = load_config(path)
    except ConfigError as error:
        raise config_failure(path, error) from None
    return settings


async def _export(settings: Settings, file: Path) -> tuple[dict[str, int], int]:
    from notifyd.model import wall_clock
    from notifyd.security.secrets import Keyring
    from notifyd.store import CollectionName, archive

    keyring = Keyring(settings.keys.seal)
    async with store_of(settings, "export") as store:
        totals = {name.value: await store.count(name) for name in CollectionName}
        with Tally().shown(totals) as tally:
            header = await archive.export(store, file, keyring, wall_clock(), tally.add)
        return dict(header.rows), len(await store.undecodable())


async def _import(settings: Settings, file: Path, create: bool) -> tuple[dict[str, int], int]:
    from notifyd.security.secrets import Keyring
    from notifyd.store import archive

    keyring = Keyring(settings.keys.seal)
    totals = archive.checked_header(file, keyring).rows  # before a store is made for it
    async with store_of(settings, "import", create=create) as store:
        with Tally().shown(totals) as tally:
            header, new = await archive.restore(store, file, keyring, tally.add)
    return dict(header.rows), new


@contextmanager
def failing(if_missing: str = "") -> Iterator[None]:
    """Turns a store or a file that cannot be used into a failure; `if_missing` is said where there is no store."""
    try:
        yield
    except StoreInUseError as error:
        raise Failure(error.detail, "stop the service first") from None
    except StoreMissingError as error:
        raise Failure(error.detail, *filter(None, [if_missing])) from None
    except (ArchiveError, ConfigError, StoreOutdatedError, UnavailableError) as error:
        raise Failure(error.detail) from None
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None
