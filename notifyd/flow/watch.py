"""Callers that wait for an approval to change.

What this node writes wakes them, and a look each second at what other nodes have written.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from notifyd.errors import TooManyWaitingError
from notifyd.model import ApprovalKey
from notifyd.store import Store

LOOK: Final = 1.0
"""Seconds between looks at what other nodes have written, while anybody waits."""

MAX_WAITING: Final = 256
"""How many requests of one client may wait at once on a node."""


class Watch:
    """One caller's place, set from the start of the wait to its end."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def woken(self, seconds: float) -> bool:
        """Wait until there may be a change since the last call; False where there is none in `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        woken = self._woken.is_set()
        self._woken.clear()
        return woken


class Watches:
    """The places of one node. `nodes` tells how many nodes share the store: where there is one, nobody looks."""

    def __init__(self, *, nodes: Callable[[], int]) -> None:
        self._nodes = nodes
        self._places: dict[ApprovalKey, set[Watch]] = {}
        self._waiting: Counter[str] = Counter()
        self._seen: Mapping[ApprovalKey, int] = {}

    @contextmanager
    def place(self, key: ApprovalKey, client: str) -> Iterator[Watch]:
        """A place for `client`, woken by every change from now on. Raises `TooManyWaitingError`."""
        if self._waiting[client] >= MAX_WAITING:
            raise TooManyWaitingError(f"{MAX_WAITING} requests of this client wait already", retry_after=5.0)
        watch = Watch()
        self._waiting[client] += 1
        self._places.setdefault(key, set()).add(watch)
        try:
            yield watch
        finally:
            self._waiting.subtract([client])
            self._waiting += Counter()  # drops those that are at zero
            self._leave(key, watch)

    def _leave(self, key: ApprovalKey, watch: Watch) -> None:
        self._places[key].discard(watch)
        if not self._places[key]:
            del self._places[key]

    def note(self, key: ApprovalKey) -> None:
        """The approval may have changed."""
        for watch in self._places.get(key, ()):
            watch.wake()

    def wake_all(self) -> None:
        """Have everybody look again: there may be a reason not to wait."""
        for key in self._places:
            self.note(key)

    async def look(self, store: Store) -> int:
        """Wake who waits for what other nodes have written since the last look; answers how many approvals.

        One query for each tenant, however many wait. An approval that is looked at for the first time counts as
        changed: it may have been written between the caller's reading and this. Raises `StoreError`.
        """
        if self._nodes() < 2 or not self._places:
            self._seen = {}
            return 0
        found = await store.approval_versions(list(self._places))
        changed = [key for key, version in found.items() if self._seen.get(key) != version]
        self._seen = found
        for key in changed:
            self.note(key)
        return len(changed)

    def __len__(self) -> int:
        """How many places are taken."""
        return sum(map(len, self._places.values()))
