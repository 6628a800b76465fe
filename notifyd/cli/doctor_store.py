"""What `notifyd doctor` looks at in the store, or asks of the service that has it open."""

from __future__ import annotations

import asyncio
import errno
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from notifyd import __version__
from notifyd.cli.common import store_of
from notifyd.cli.finding import ERROR, OK, WARNING, Finding
from notifyd.cli.units import Unit
from notifyd.config.settings import Settings
from notifyd.errors import NotifydError, StoreInUseError, StoreMissingError, StoreOutdatedError
from notifyd.security.secrets import Keyring
from notifyd.store import CollectionName, Store
from notifyd.store.open import sqlite_path
from notifyd.store.sqlite.files import broken_pages
from notifyd.text import counted

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

_LOW: Final = 1 << 30
"""Bytes of free disk below which it is time to look."""
_FULL: Final = 16 << 20
"""Bytes below which the next events, or the log that takes them, may not fit."""
_SLOW: Final = 0.1
"""Seconds for one durable write, above which callers feel it."""
_WRITES: Final = 5
_BATCH: Final = 500
_LATER: Final = 60.0
"""Seconds by which a file may be from later than now: another machine may have written it."""


async def store(settings: Settings, listener: Unit | None) -> list[Finding]:
    """The database itself where nobody has it open, or where nodes share it; else what the service tells of it."""
    findings = list(_file(settings)) if settings.store.url.startswith("sqlite") else []
    try:
        async with store_of(settings, "doctor") as opened:
            findings += await _examined(opened, settings)
        if settings.store.url.startswith("sqlite"):
            findings += await asyncio.to_thread(_pages, sqlite_path(settings.store.url))
    except StoreInUseError as error:
        return [
            *findings,
            Finding("store", OK, "the service has it open"),
            *await _asked(settings, error.detail),
        ]
    except StoreMissingError as error:
        findings.append(_missing(settings, error))
    except StoreOutdatedError as error:
        findings.append(Finding("store", WARNING, error.detail, "follow the page on upgrading"))
    except NotifydError as error:
        return [*findings, _unusable(settings, error)]
    return [*findings, *([] if listener else _address(settings))]


def _unusable(settings: Settings, error: NotifydError) -> Finding:
    if settings.store.url.startswith("sqlite"):
        return Finding("store", ERROR, error.detail, "see the runbook")
    # What a driver tells of each server of a set says the same once more.
    detail = error.detail.partition(" (configured timeouts")[0].partition(", Timeout: ")[0]
    return Finding(
        "store", ERROR, detail, "see that it runs, and that store.url, network and firewall lead to it"
    )


def _missing(settings: Settings, error: StoreMissingError) -> Finding:
    if settings.store.url.startswith("sqlite"):
        path = sqlite_path(settings.store.url)
        log = path.with_name(f"{path.name}-wal")
        if log.exists():
            todo = "put the database back that belongs to it, or take it away: see the runbook"
            return Finding("store", ERROR, f"{log} has lost its database", todo)
    todo = "the service makes an empty one unless store.create is false: restore it, if there was one"
    return Finding("store", WARNING, error.detail, todo)


# --- the file -------------------------------------------------------------------------------------------------


def _file(settings: Settings) -> Iterator[Finding]:
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
    level = ERROR if free < _FULL else WARNING if free < _LOW else OK
    yield Finding("disk", level, told, "" if level == OK else f"make room on the disk of {path.parent}")
    yield from _identity(path)


def _pages(path: Path) -> list[Finding]:
    """A broken page of an index keeps the service from starting, and no row from being read."""
    todo = 'see the runbook: "The database is corrupt"'
    broken = [Finding("store", ERROR, f"{path} is corrupt: {fault}", todo) for fault in broken_pages(path)]
    return broken or [Finding("store", OK, "no page is broken")]


def _identity(path: Path) -> Iterator[Finding]:
    """Is it one file, and the one that the service has open?"""
    for process in _deleted(path):
        detail = f"the process {process} has a {path.name} open that is no longer in {path.parent}"
        yield Finding("store", ERROR, detail, 'see the runbook: "The database is not in its place"')
    try:
        found = path.stat()
    except OSError:
        return
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        detail = f"{path} has {found.st_nlink} names, and its -wal file has one"
        yield Finding("store", WARNING, detail, "remove the other hard links")
    if found.st_mtime > time.time() + _LATER:
        detail = f"{path} was written {found.st_mtime - time.time():.0f} s from now: the clock was set back"
        yield Finding(
            "clock", WARNING, detail, "set the clock, by NTP; what is due by the other waits for it"
        )


def _deleted(path: Path) -> Iterator[str]:
    """The processes that have a file of this name open which was deleted or moved, as far as may be seen."""
    gone = Path(f"{path.resolve()} (deleted)")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(one.readlink() == gone for one in (process / "fd").iterdir()):
                yield process.name
        except OSError:
            continue


# --- what is in it --------------------------------------------------------------------------------------------


async def _examined(opened: Store, settings: Settings) -> list[Finding]:
    """Of a store that nobody else has open, or that nodes share."""
    took = [await _write(opened) for _ in range(_WRITES)]
    level, todo = (WARNING, "see the runbook: answers are slow") if sorted(took)[2] > _SLOW else (OK, "")
    told = f"a write takes {sorted(took)[_WRITES // 2] * 1000:.0f} ms, {max(took) * 1000:.0f} ms at most"
    await _read_all(opened)
    unreadable = [
        Finding("rows", ERROR, f"cannot be read: {row}", "see the runbook: notifyd_undecodable_rows is not 0")
        for row in await opened.undecodable()
    ]
    rows = unreadable or [Finding("rows", OK, "all can be read")]
    return [Finding("store", level, told, todo), *rows, *await _keys(opened, settings)]


async def _write(opened: Store) -> float:
    began = time.perf_counter()
    await opened.probe()
    return time.perf_counter() - began


async def _read_all(opened: Store) -> None:
    """Each row, so that those which cannot be read are known."""
    for collection in CollectionName:
        after: str | None = ""
        while after is not None:
            _, after = await opened.dump(collection, after, _BATCH)


async def _keys(opened: Store, settings: Settings) -> list[Finding]:
    known = set(Keyring(settings.keys.seal).ids)
    missing = sorted(((await opened.seal_keys()).ids or frozenset()) - known)
    return [
        Finding("keys", ERROR, f"rows may need the key {key}, which keys.seal has not", "put it back")
        for key in missing
    ]


# --- the service ----------------------------------------------------------------------------------------------


def _address(settings: Settings) -> Iterator[Finding]:
    """Could a service that is stopped listen?"""
    listen = settings.server.listen
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(where)
            tried.listen()
    except OSError as error:
        if error.errno != errno.EACCES:  # the service may be allowed to
            detail = f"server.listen: {listen}: {error.strerror}"
            yield Finding(
                "listen", ERROR, detail, "see what listens there (ss -ltnp), or correct server.listen"
            )
    else:
        yield Finding("listen", OK, f"{listen} is free")


async def _asked(settings: Settings, owner: str) -> list[Finding]:
    """What the service on this machine has come upon, by its metrics. `owner` is who has the database open."""
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
    except aiohttp.ClientConnectorError:
        detail = f"{owner}, and nothing answers at {url}: it may run with another configuration, or hang"
        return [Finding("service", ERROR, detail, "see with which --config it was started, and its log")]
    except (aiohttp.ClientError, TimeoutError) as error:
        return [Finding("service", ERROR, f"{url}: {type(error).__name__}", "look at its log")]
    if answer.status != 200:
        return [Finding("service", WARNING, f"{url} answers {answer.status}", "see server.metrics_allowlist")]
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    unreadable = [
        Finding(
            "rows",
            ERROR,
            f"{one.value:.0f} of {one.labels['table']} cannot be read",
            "its log names each; see the runbook",
        )
        for one in samples
        if one.name == "notifyd_undecodable_rows" and one.value
    ]
    rows = unreadable or [Finding("rows", OK, "all that the service has read can be read")]
    states = [one for sample in samples for one in _state(sample.name, sample.value, sample.labels)]
    return [*rows, *states, *failed_drills(samples)]


def failed_drills(samples: Sequence[Sample]) -> Iterator[Finding]:
    """The channels whose last fire drill has failed."""
    last, good = (
        {one.labels["channel"]: one.value for one in samples if one.name == f"notifyd_drill_{name}"}
        for name in ("last_timestamp_seconds", "last_success_timestamp_seconds")
    )
    for channel, tried in last.items():
        if tried > good.get(channel, 0):
            detail = f"the last fire drill of the channel {channel} has failed"
            yield Finding("service", WARNING, detail, f"notifyd channels test {channel}")


def _state(name: str, value: float, labels: Mapping[str, str]) -> Iterator[Finding]:
    """What one of its metrics says that somebody has to look at."""
    channel, log = labels.get("channel"), "its log says why"
    match name:
        case "notifyd_build_info" if labels["version"] != __version__:
            detail = f"runs {labels['version']}, and {__version__} is installed"
            yield Finding("service", WARNING, detail, "systemctl restart notifyd")
        case "notifyd_ready" if not value:
            yield Finding("service", ERROR, "is not ready", log)
        case "notifyd_config_last_reload_successful" if not value:
            detail = "runs with an earlier configuration, as the last reload was refused"
            yield Finding("service", WARNING, detail, log)
        case "notifyd_breaker_open" if value:
            detail = f"the channel {channel} fails: its breaker is open"
            yield Finding("service", WARNING, detail, f"notifyd channels test {channel}")
        case "notifyd_dead_letters" if value:
            dead = counted(int(value), "dead delivery", "dead deliveries")
            detail = f"the channel {channel} has {dead}"
            yield Finding("service", WARNING, detail, "notifyd dead list")
