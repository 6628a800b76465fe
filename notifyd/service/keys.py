"""Keeps a key of `keys.seal` from being dropped while stored rows need it: they would wait for ever."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from notifyd.errors import ConfigError, Fault
from notifyd.security.secrets import Keyring, sealed_under
from notifyd.store import CollectionName, Store

log = logging.getLogger(__name__)


async def check_seal_keys(store: Store, keyring: Keyring, *, abandon: bool = False) -> None:
    """Note the keys of `keyring` as the store's. `abandon` gives up the rows that need another, and says so.

    Raises `ConfigError` where rows need another and are not given up, and then notes nothing. Raises `StoreError`.
    """
    known, ids = await store.known_seal_keys(), frozenset(keyring.ids)
    if known is None or known - ids:
        lacking = await _lacking(store, ids)
        if lacking and not abandon:
            raise ConfigError([Fault("keys.seal", _refusal(key, rows)) for key, rows in lacking.items()])
        for key, rows in lacking.items():
            log.warning("keys.seal lacks key %s: never sent are %s", key, _told(rows))
    if known != ids:
        await store.note_seal_keys(ids)


async def _lacking(store: Store, ids: frozenset[str]) -> dict[str, Counter[CollectionName]]:
    """The needed rows of each key that is not among `ids`."""
    found: dict[str, Counter[CollectionName]] = {}
    for one in await store.sealed_by_key():
        key = sealed_under(one.header)
        if key and one.needed and key not in ids:
            found.setdefault(key, Counter())[one.collection] += one.rows
    return dict(sorted(found.items()))


def _refusal(key: str, rows: Mapping[CollectionName, int]) -> str:
    return (
        f"lacks the key {key}, which rows need ({_told(rows)}): put it back until they are done, "
        "or give them up by a start with --abandon-sealed"
    )


def _told(rows: Mapping[CollectionName, int]) -> str:
    return ", ".join(f"{collection}: {count}" for collection, count in rows.items())
