"""`notifyd doctor`: what is wrong with an installation, each finding with what to do."""

from __future__ import annotations

import asyncio
import re
import shutil
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click
from attrs import frozen

from notifyd.cli.common import config_option, json_option, load_config, not_ok, print_json
from notifyd.cli.output import print_table
from notifyd.errors import ConfigError, NotifydError, StoreInUseError, StoreMissingError

if TYPE_CHECKING:
    from notifyd.config.settings import Settings
    from notifyd.store import Store

OK: Final = "ok"
WARNING: Final = "warning"
ERROR: Final = "error"

_LOW: Final = 1 << 30
"""Bytes of free disk below which it is time to look."""
_SLOW: Final = 0.1
"""Seconds for one durable write, above which callers feel it."""
_BATCH: Final = 500
_UNDECODABLE: Final = re.compile(r'^notifyd_undecodable_rows\{table="([a-z_]+)"\} ([0-9.e+]+)$', re.MULTILINE)


@frozen
class Finding:
    """What was looked at, how it stands, and what to do where it does not stand well."""

    check: str
    level: str
    detail: str
    todo: str = ""


@click.command()
@config_option
@json_option
def doctor(config_path: Path, as_json: bool) -> None:
    """Look for what is wrong with configuration, plugins and database, and say what to do.

    The rows are all read where the service is stopped; where it runs it is asked what it has come upon. Exits with
    1 where something is wrong; a warning is none.
    """
    findings = asyncio.run(_examine(config_path))
    if as_json:
        print_json({"findings": [attrs.asdict(one) for one in findings]})
    else:
        print_table(
            ("check", "", "found", "to do"),
            [(one.check, one.level, one.detail, one.todo) for one in findings],
        )
    if any(one.level == ERROR for one in findings):
        raise not_ok()


async def _examine(path: Path) -> list[Finding]:
    from notifyd.config.doubts import doubts

    findings = list(_permissions(path))
    try:
        settings, discovered = load_config(path)
    except ConfigError as error:
        faults = [Finding("config", ERROR, str(fault), f"correct {path}") for fault in error.faults]
        return findings + faults
    findings.append(Finding("config", OK, f"{len(settings.channels)} channels, {len(settings.rules)} rules"))
    findings += [Finding("config", WARNING, str(fault), f"look at {path}") for fault in doubts(settings)]
    findings += [
        Finding("plugins", ERROR, str(fault), "upgrade or uninstall it") for fault in discovered.faults
    ]
    findings += [Finding("plugins", OK, f"{one.name} {one.version}") for one in discovered.plugins]
    return findings + [one async for one in _store(settings)]


def _permissions(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # which loading tells of
    if mode & stat.S_IWOTH:
        yield Finding("permissions", ERROR, f"anybody may write {path}", f"chmod o-w {path}")


# --- the database -------------------------------------------------------------------------------------------


async def _store(settings: Settings) -> AsyncIterator[Finding]:
    for finding in _disk(settings):
        yield finding
    try:
        store = await _opened(settings)
    except StoreInUseError:
        yield Finding("store", OK, "the service has it open")
        for finding in await _asked(settings):
            yield finding
        return
    except StoreMissingError as error:
        yield Finding(
            "store", WARNING, error.detail, "the service makes an empty one unless store.create is false"
        )
        return
    except NotifydError as error:
        yield Finding("store", ERROR, error.detail, "see the runbook")
        return
    try:
        for finding in await _examined(store, settings):
            yield finding
    except NotifydError as error:
        yield Finding("store", ERROR, error.detail, "see the runbook")
    finally:
        await store.aclose()


def _disk(settings: Settings) -> Iterator[Finding]:
    from notifyd.store.open import sqlite_path

    if not settings.store.url.startswith("sqlite"):
        return
    path = sqlite_path(settings.store.url)
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        yield Finding(
            "disk", ERROR, f"{path.parent}: {error.strerror}", "make the folder, for notifyd to write"
        )
        return
    size = sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*") if one.is_file())
    told = f"{size >> 20} MiB used by the database, {free >> 20} MiB free"
    yield Finding("disk", WARNING if free < _LOW else OK, told, "make room" if free < _LOW else "")


async def _opened(settings: Settings) -> Store:
    from notifyd.model import SECOND
    from notifyd.service.app import wall_clock
    from notifyd.store.open import open_store

    return await open_store(
        settings.store.url,
        node=f"{settings.server.node}/doctor",
        clock=wall_clock,
        create=False,
        timeout=settings.store.timeout / SECOND,
        driver=settings.store.driver,
    )


async def _examined(store: Store, settings: Settings) -> list[Finding]:
    """Of a store that nobody else has open, or that nodes share."""
    began = time.perf_counter()
    await store.probe()
    took = time.perf_counter() - began
    slow = Finding(
        "store", WARNING, f"one write takes {took * 1000:.0f} ms", "see the runbook: answers are slow"
    )
    findings = [slow if took > _SLOW else Finding("store", OK, f"one write takes {took * 1000:.0f} ms")]
    await _read_all(store)
    unreadable = [
        Finding("rows", ERROR, f"cannot be read: {row}", "see the runbook: notifyd_undecodable_rows is not 0")
        for row in await store.undecodable()
    ]
    return findings + (unreadable or [Finding("rows", OK, "all can be read")]) + await _keys(store, settings)


async def _read_all(store: Store) -> None:
    """Each row, so that those which cannot be read are known."""
    from notifyd.store import CollectionName

    for collection in CollectionName:
        after: str | None = ""
        while after is not None:
            _, after = await store.dump(collection, after, _BATCH)


async def _keys(store: Store, settings: Settings) -> list[Finding]:
    from notifyd.security.secrets import Keyring

    known = set(Keyring(settings.keys.seal).ids)
    missing = sorted(((await store.seal_keys()).ids or frozenset()) - known)
    return [
        Finding("keys", ERROR, f"rows may need the key {key}, which keys.seal has not", "put it back")
        for key in missing
    ]


# --- the service that runs ----------------------------------------------------------------------------------


async def _asked(settings: Settings) -> list[Finding]:
    """What the service on this machine has come upon, by its metrics."""
    import aiohttp

    scheme = "https" if settings.server.tls.cert else "http"
    url = f"{scheme}://{settings.server.listen}/metrics"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            # Its certificate is for the name that others call it by.
            session.get(url, ssl=False) as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        return [Finding("service", ERROR, f"{url}: {type(error).__name__}", "look at its log")]
    if answer.status != 200:
        return [Finding("service", WARNING, f"{url} answers {answer.status}", "see server.metrics_allowlist")]
    found = Counter({table: int(float(rows)) for table, rows in _UNDECODABLE.findall(text)})
    return [
        Finding("rows", ERROR, f"{rows} of {table} cannot be read", "its log names each; see the runbook")
        for table, rows in found.items()
        if rows
    ] or [Finding("rows", OK, "all that the service has read can be read")]
