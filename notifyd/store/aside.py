"""The rows that a store has set aside, because they do not decode or no step can do anything with them.

It is kept in memory and not in the database: another version of notifyd reads the row, or this one once it is
repaired, and nothing has to be undone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from notifyd.errors import UndecodableRowError
from notifyd.store import CommitObserver
from notifyd.store.upkeep import CollectionName, SetAsideRow
from notifyd.text import one_line

AGAIN: Final = 60.0
"""Seconds after which a row that is set aside is tried again, as others are."""

LOOKED_AT: Final = 500
"""How many of a table's rows that are set aside are looked at again at once."""

_SHOWN: Final = 200

DECISIONS: Final = "decisions"
"""The decisions of earlier rounds, which are no table of their own to those who look at one."""

SILENCES: Final = "silences"

DEPUTIES: Final = "deputies"

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    CollectionName.EVENTS: ("tenant", "key"),
    CollectionName.APPROVALS: ("tenant", "run_id", "approval_id"),
    DECISIONS: ("tenant", "run_id", "approval_id", "actor"),
    CollectionName.INCIDENTS: ("tenant", "run_id", "approval_id", "policy_id"),
    CollectionName.DELIVERIES: ("tenant", "id"),
    CollectionName.AUDIT: ("tenant", "id"),
    SILENCES: ("tenant", "id"),
    DEPUTIES: ("tenant", "id"),
}
"""By table: the members that a row is known by."""

log = logging.getLogger("notifyd.store")


@frozen
class _Entry:
    """`place` as the database has it; `tried` is when it was last looked at (monotonic). `noted`: by a step."""

    row: SetAsideRow
    place: Any
    tried: float
    noted: bool


class SetAside:
    """Used by the threads of a store. `found` counts how often a row was found not to decode."""

    def __init__(self, observer: CommitObserver | None = None) -> None:
        self._observer = observer
        self._entries: dict[str, dict[str, _Entry]] = {table: {} for table in KEYS}
        self._lock = threading.Lock()
        self.found = 0
        for table in KEYS:
            self._tell(table)

    def put(
        self,
        table: str,
        place: Any,
        members: Mapping[str, Any],
        fault: str,
        *,
        noted: bool = False,
    ) -> bool:
        """Set a row aside, or note that it is not right still. False where it is set aside already."""
        row = SetAsideRow(table, str(place), _name(table, members), fault)
        entries = self._entries[table]
        with self._lock:
            self.found += 1
            fresh = row.place not in entries
            entries[row.place] = _Entry(row, place, time.monotonic(), noted)
            self._tell(table)
        if fresh:
            log.error("set aside: %s", row)
        return fresh

    def refuse(self, table: str, place: Any, members: Mapping[str, Any], fault: str) -> UndecodableRowError:
        """Set a row aside that does not decode; the error that tells so."""
        self.put(table, place, members, fault)
        row = SetAsideRow(table, str(place), _name(table, members), fault)
        return UndecodableRowError(f"this notifyd cannot read {row}")

    def decoded(self, table: str, place: Any) -> None:
        """A row was read. One that a step has noted stays: reading it is not what went wrong."""
        entries = self._entries[table]
        if not entries:
            return  # as nearly always
        entry = entries.get(str(place))
        if entry is not None and not entry.noted:
            self.drop(table, place)

    def drop(self, table: str, place: Any) -> None:
        """A row is right again, or gone."""
        with self._lock:
            entry = self._entries[table].pop(str(place), None)
            self._tell(table)
        if entry is not None:
            log.info("set aside no more: %s row %s (%s)", table, entry.row.place, entry.row.name)

    def places(self, table: str) -> list[Any]:
        """Where the rows are that are set aside."""
        with self._lock:
            return [entry.place for entry in self._entries[table].values()]

    def undecodable(self, table: str) -> list[Any]:
        """Where the rows are that do not decode: nothing can become of them, however long one waits."""
        with self._lock:
            return [entry.place for entry in self._entries[table].values() if not entry.noted]

    def untried(self, table: str, limit: int) -> list[Any]:
        """Those of them that have not been tried for a while, up to `limit`, the longest ago first."""
        since = time.monotonic() - AGAIN
        with self._lock:
            found = [one for one in self._entries[table].values() if one.tried <= since]
        return [one.place for one in sorted(found, key=lambda one: one.tried)[:limit]]

    def passed_over(self, table: str) -> list[Any]:
        """Those of them that are not to be tried again yet."""
        since = time.monotonic() - AGAIN
        with self._lock:
            return [one.place for one in self._entries[table].values() if one.tried > since]

    def lapse(self) -> None:
        """Forget what steps have noted and not noted again: they have got on with it."""
        since = time.monotonic() - 3 * AGAIN
        for table, entries in self._entries.items():
            with self._lock:
                lapsed = [one.place for one in entries.values() if one.noted and one.tried < since]
            for place in lapsed:
                self.drop(table, place)

    def rows(self) -> list[SetAsideRow]:
        with self._lock:
            return [entry.row for entries in self._entries.values() for entry in entries.values()]

    def _tell(self, table: str) -> None:
        if self._observer is not None:
            self._observer.undecodable(table, len(self._entries[table]))


def _name(table: str, members: Mapping[str, Any]) -> str:
    """The row's key, for people: what is no text of it is called that."""
    return ", ".join(f"{name} {_shown(members.get(name))}" for name in KEYS[table])


def _shown(value: Any) -> str:
    return one_line(value)[:_SHOWN] if type(value) is str else "that is no text"
