"""Keeps a key of `keys.seal` from being dropped while stored rows need it: they would wait for ever."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from attrs import evolve

from notifyd.errors import ConfigError, Fault, SealError
from notifyd.flow.reseal import key_uses
from notifyd.registry.state import CHANNEL_STATE, DRILLS
from notifyd.security.secrets import Keyring, sealed_under
from notifyd.store import SealKeys, Store

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
    await _renew_channel_states(store, keyring)
    keyring.adopt_identity_keys(noted.identity_keys)
    # What does not open here stays: its key may come back.
    fresh = SealKeys(ids, {**noted.identity_keys, **keyring.keep_identity_keys()})
    if noted.ids != ids or _sealed_by(noted) != _sealed_by(fresh):
        await store.note_seal_keys(fresh)


def _sealed_by(keys: SealKeys) -> dict[str, str]:
    return {kid: sealed_under(text) for kid, text in keys.identity_keys.items()}


async def _renew_channel_states(store: Store, keyring: Keyring) -> None:
    """Seal what channels keep under the first key: there is little of it, and the others are free of it at once.

    What does not open is left, and what was changed meanwhile is as its channel wrote it.
    """
    for state in await store.channel_states():
        if sealed_under(state.sealed) != keyring.sealing_id:
            with suppress(SealError):
                anew = keyring.seal(CHANNEL_STATE, keyring.open(CHANNEL_STATE, state.sealed))
                await store.keep_channel_state(evolve(state, sealed=anew), before=state.sealed)


async def _lacking(store: Store, ids: frozenset[str]) -> dict[str, Mapping[str, int]]:
    """The needed rows of each key that is not among `ids`."""
    uses: dict[str, Counter[str]] = {key: Counter(use.needed) for key, use in (await key_uses(store)).items()}
    for state in await store.channel_states():
        if state.channel.startswith(DRILLS):
            continue  # a key that was given up costs one drill more
        uses.setdefault(sealed_under(state.sealed), Counter())["channel states"] += 1
    return {key: needed for key, needed in sorted(uses.items()) if needed and key and key not in ids}


def _refusal(key: str, rows: Mapping[str, int]) -> str:
    return (
        f"lacks the key {key}, which rows need ({_told(rows)}): put it back, behind the others, and move them by "
        "'notifyd keys reseal', or give them up by a start with --abandon-sealed"
    )


def _told(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{collection}: {count}" for collection, count in rows.items())
