"""Keeps a key of `keys.seal` from being dropped while stored rows need it: they would wait for ever."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from notifyd.errors import ConfigError, Fault
from notifyd.flow.reseal import key_uses
from notifyd.security.secrets import Keyring, sealed_under
from notifyd.store import CollectionName, SealKeys, Store

log = logging.getLogger(__name__)


async def agree_on_keys(store: Store, keyring: Keyring, *, abandon: bool = False) -> None:
    """Note the keys of `keyring` as the store's, and have it know events again that came under earlier ones.

    `abandon` gives up the rows that need a key which is not there, and says so. Raises `ConfigError` where there
    are such rows and they are not given up, and then notes nothing. Raises `StoreError`.
    """
    noted, ids = await store.seal_keys(), frozenset(keyring.ids)
    if noted.ids is None or noted.ids - ids:
        lacking = await _lacking(store, ids)
        if lacking and not abandon:
            raise ConfigError([Fault("keys.seal", _refusal(key, rows)) for key, rows in lacking.items()])
        for key, rows in lacking.items():
            log.warning("keys.seal lacks key %s: never sent are %s", key, _told(rows))
    keyring.adopt_identity_keys(noted.identity_keys)
    # What does not open here stays: its key may come back.
    fresh = SealKeys(ids, {**noted.identity_keys, **keyring.keep_identity_keys()})
    if noted.ids != ids or _sealed_by(noted) != _sealed_by(fresh):
        await store.note_seal_keys(fresh)


def _sealed_by(keys: SealKeys) -> dict[str, str]:
    return {kid: sealed_under(text) for kid, text in keys.identity_keys.items()}


async def _lacking(store: Store, ids: frozenset[str]) -> dict[str, Mapping[CollectionName, int]]:
    """The needed rows of each key that is not among `ids`."""
    uses = await key_uses(store)
    return {key: use.needed for key, use in sorted(uses.items()) if use.needed and key not in ids}


def _refusal(key: str, rows: Mapping[CollectionName, int]) -> str:
    return (
        f"lacks the key {key}, which rows need ({_told(rows)}): put it back, behind the others, and move them by "
        "'notifyd keys reseal', or give them up by a start with --abandon-sealed"
    )


def _told(rows: Mapping[CollectionName, int]) -> str:
    return ", ".join(f"{collection}: {count}" for collection, count in rows.items())
