"""`notifyd doctor`: what is wrong with an installation, each finding with what to do."""

from __future__ import annotations

import asyncio
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click
from attrs import frozen

from notifyd.cli.common import config_option, json_option, load_config, not_ok, print_json, store_of
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
    return findings + await _store(settings)


def _permissions(path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # which loading tells of
    if mode & stat.S_IWOTH:
        yield Finding("permissions", ERROR, f"anybody may write {path}", f"chmod o-w {path}")


# --- the database -------------------------------------------------------------------------------------------


async def _store(settings: Settings) -> list[Finding]:
    findings = list(_disk(settings))
    try:
        async with store_of(settings, "doctor") as store:
            return findings + await _examined(store, settings)
    except StoreInUseError:
        return [*findings, Finding("store", OK, "the service has it open"), *await _asked(settings)]
    except StoreMissingError as error:
        todo = "the service makes an empty one unless store.create is false"
        return [*findings, Finding("store", WARNING, error.detail, todo)]
    except NotifydError as error:
        return [*findings, Finding("store", ERROR, error.detail, "see the runbook")]


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


async def _examined(store: Store, settings: Settings) -> list[Finding]:
    """Of a store that nobody else has open, or that nodes share."""
    began = time.perf_counter()
    await store.probe()
    took = time.perf_counter() - began
    level, todo = (WARNING, "see the runbook: answers are slow") if took > _SLOW else (OK, "")
    findings = [Finding("store", level, f"one write takes {took * 1000:.0f} ms", todo)]
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
    from prometheus_client.parser import text_string_to_metric_families

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
    gauges = (one for one in text_string_to_metric_families(text) if one.name == "notifyd_undecodable_rows")
    samples = (sample for gauge in gauges for sample in gauge.samples if sample.value)
    return [
        Finding(
            "rows",
            ERROR,
            f"{one.value:.0f} of {one.labels['table']} cannot be read",
            "its log names each; see the runbook",
        )
        for one in samples
    ] or [Finding("rows", OK, "all that the service has read can be read")]
