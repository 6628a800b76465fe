"""What a channel keeps from one life of the daemon to the next: sealed, in the store, under the channel's name.

The type is sealed with it: a channel that takes another's name is not given the token of another vendor.
"""

from __future__ import annotations

from typing import Final

from attrs import define, frozen

from notifyd.errors import SealError, StoreError, TransientError
from notifyd.plugin import check_room, check_state
from notifyd.security.secrets import Keyring
from notifyd.store import ChannelState, Store

CHANNEL_STATE: Final = "channel-state"
"""The label of the key that it is sealed under."""

_END: Final = "\n"
"""Behind the type, whose name has none."""

DRILLS: Final = "drill."
"""Before the name of a channel: where the times of its fire drills are kept. No channel's own name has a dot."""


@define
class States:
    """Where channels keep it: no store is there while the first configuration is being opened."""

    store: Store | None = None

    def of(self, channel: str, type_: str, keyring: Keyring) -> StoredState:
        return StoredState(channel, type_, keyring, self)


@frozen
class StoredState:
    """The `notifyd.plugin.State` of one channel. `TransientError` is raised where the store does not do its
    part."""

    channel: str
    type: str
    keyring: Keyring
    states: States

    async def get(self, name: str) -> str | None:
        check_state(name)
        try:
            found = await self._store.channel_state(self.channel, name)
            kept = self.keyring.open(CHANNEL_STATE, found.sealed).decode() if found else ""
        except StoreError as error:
            raise TransientError(f"what is kept cannot be read: {error}") from error
        except SealError:
            return None  # its key was given up
        type_, _, value = kept.partition(_END)
        return value if type_ == self.type else None

    async def set(self, name: str, value: str) -> None:
        check_state(name, value)
        sealed = self.keyring.seal(CHANNEL_STATE, f"{self.type}{_END}{value}".encode())
        try:
            if await self._store.channel_state(self.channel, name) is None:
                check_room(name, await self._names())
            await self._store.keep_channel_state(ChannelState(self.channel, name, sealed))
        except StoreError as error:
            raise TransientError(f"it cannot be kept: {error}") from error

    async def delete(self, name: str) -> None:
        check_state(name)
        try:
            await self._store.drop_channel_state(self.channel, name)
        except StoreError as error:
            raise TransientError(f"it cannot be let go: {error}") from error

    async def _names(self) -> frozenset[str]:
        """What is kept under the channel's name, whatever its type was. Asked for a new name alone."""
        states = await self._store.channel_states()
        return frozenset(one.name for one in states if one.channel == self.channel)

    @property
    def _store(self) -> Store:
        if self.states.store is None:
            raise TransientError("a channel's state is there once the service runs, and not while it opens")
        return self.states.store
