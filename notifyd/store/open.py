"""From `store.url` to an open store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from attrs import frozen

from notifyd.config.settings import StoreDriver
from notifyd.errors import ConfigError, Fault
from notifyd.model import Clock
from notifyd.store import CommitObserver, Store
from notifyd.store.sqlite import open_sqlite


@frozen
class StoreOptions:
    """What every kind of store is opened with.

    `node` is this daemon's name among those that share the store; `create` lets an empty store be made where there
    is none, and `upgrade` one of an earlier notifyd be brought to the newest schema. `timeout` is how long an
    operation may wait for the database, in seconds. `clock_skew` is how far the clocks of nodes may be from the
    database's, in seconds (None trusts them), and `driver` what speaks with it.
    """

    node: str
    clock: Clock
    create: bool = True
    upgrade: bool = True
    timeout: float = 2.0
    observer: CommitObserver | None = None
    clock_skew: float | None = None
    driver: StoreDriver = StoreDriver.PYMONGO


Opener: TypeAlias = Callable[[str, StoreOptions], Awaitable[Store]]


async def open_store(url: str, options: StoreOptions) -> Store:
    """Open the store that `url` names; close it with its `aclose`.

    Raises `ConfigError` for a URL that names none, `StoreMissingError` where there is no store and `create` is
    false, `StoreOutdatedError` where its schema is older and `upgrade` is false, `StoreInUseError` and
    `StoreError` as its kind does. A URL may hold a password, so no message repeats more of it than its scheme.
    """
    return await _opener(url)(url, options)


def check_url(url: str) -> None:
    """Raises `ConfigError` where `open_store` would for the URL alone, and opens nothing."""
    if _opener(url) is _open_sqlite:
        sqlite_path(url)
    elif not url.partition("://")[2].partition("?")[0].partition("/")[2]:
        raise _config_error("must name a database, as in mongodb://host/notifications")
    else:
        from notifyd.store.mongo.driver import check_mongo_url  # the driver is imported only where it is used

        check_mongo_url(url)


def _opener(url: str) -> Opener:
    scheme, separator, _ = url.partition("://")
    opener = OPENERS.get(scheme)
    if not separator or opener is None:
        given = f"not {scheme}://" if separator and scheme.isalnum() else "and this is not one"
        known = ", ".join(f"{name}://" for name in OPENERS)
        raise _config_error(f"must be a URL that begins with one of {known}, {given}")
    return opener


def sqlite_path(url: str) -> Path:
    """The file that `sqlite:///relative.db` or `sqlite:////absolute.db` names. Raises `ConfigError`."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path or path.endswith("/") or path == ":memory:" or "?" in path:
        raise _config_error(
            "must name a file, as in sqlite:///./notifyd.db (from the working directory) "
            "or sqlite:////var/lib/notifyd/notifyd.db, and takes no options"
        )
    return Path(path)


def _config_error(message: str) -> ConfigError:
    return ConfigError([Fault("store.url", message)])


async def _open_sqlite(url: str, options: StoreOptions) -> Store:
    return await open_sqlite(
        sqlite_path(url),
        node=options.node,
        clock=options.clock,
        create=options.create,
        upgrade=options.upgrade,
        timeout=options.timeout,
        observer=options.observer,
    )


async def _open_mongo(url: str, options: StoreOptions) -> Store:
    from notifyd.store.mongo import open_mongo  # the driver is imported only where it is used

    return await open_mongo(
        url,
        node=options.node,
        clock=options.clock,
        create=options.create,
        upgrade=options.upgrade,
        timeout=options.timeout,
        clock_skew=options.clock_skew,
        driver=options.driver,
        observer=options.observer,
    )


OPENERS: Final[Mapping[str, Opener]] = {
    "sqlite": _open_sqlite,
    "mongodb": _open_mongo,
    "mongodb+srv": _open_mongo,
}
"""The kinds of store, by URL scheme. An opener imports its driver when it is called."""
