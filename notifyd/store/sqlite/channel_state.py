"""The steps over `channel_state`: a few small sealed texts, by channel and name."""

from __future__ import annotations

from sqlite3 import Connection
from typing import Final

from notifyd.store import ChannelState
from notifyd.store.sqlite.rows import sql, upsert

_ALL: Final = "SELECT channel, name, sealed FROM channel_state"
_ONE: Final = sql(_ALL, "WHERE channel = ? AND name = ?")
_KEEP: Final = upsert("channel_state", ("channel", "name", "sealed"), ("channel", "name"))
_CHANGE: Final = "UPDATE channel_state SET sealed = ? WHERE channel = ? AND name = ? AND sealed = ?"
_DROP: Final = "DELETE FROM channel_state WHERE channel = ? AND name = ?"


def every(db: Connection) -> list[ChannelState]:
    return [ChannelState(*row) for row in db.execute(_ALL)]


def find(db: Connection, channel: str, name: str) -> ChannelState | None:
    row = db.execute(_ONE, (channel, name)).fetchone()
    return None if row is None else ChannelState(*row)


def keep(db: Connection, state: ChannelState, before: str | None) -> bool:
    if before is None:
        return bool(db.execute(_KEEP, (state.channel, state.name, state.sealed)).rowcount)
    return bool(db.execute(_CHANGE, (state.sealed, state.channel, state.name, before)).rowcount)


def drop(db: Connection, channel: str, name: str) -> int:
    return db.execute(_DROP, (channel, name)).rowcount
