"""What channels keep: one document of `channel_state` for each channel and name, which its `_id` has together."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from notifyd.store import ChannelState
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.driver import Document


def _id(channel: str, name: str) -> Document:
    return {"_id": f"{channel}/{name}"}  # no channel's name has a slash


def _state(found: Document) -> ChannelState:
    channel, _, name = str(found["_id"]).partition("/")
    return ChannelState(channel, name, str(found.get("sealed", "")))


async def every(base: Base) -> list[ChannelState]:
    return [_state(one) for one in await base.channel_state.find({})]


async def find(base: Base, channel: str, name: str) -> ChannelState | None:
    found = await base.channel_state.find_one(_id(channel, name))
    return None if found is None else _state(found)


async def keep(base: Base, state: ChannelState, before: str | None) -> bool:
    key, change = _id(state.channel, state.name), {"$set": {"sealed": state.sealed}}
    if before is not None:
        return await base.channel_state.update_one({**key, "sealed": before}, change)
    try:
        await base.channel_state.update_one(key, change, upsert=True)
    except DuplicateKeyError:  # another node has inserted it meanwhile
        await base.channel_state.update_one(key, change)
    return True


async def drop(base: Base, channel: str, name: str) -> None:
    await base.channel_state.delete_one(_id(channel, name))
