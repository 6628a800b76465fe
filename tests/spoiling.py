"""Rows as nobody of notifyd writes them, put into a store behind its back."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final

import pymongo
from attrs import frozen

from notifyd.store import CollectionName
from notifyd.store.open import sqlite_path
from notifyd.store.sqlite.rows import sql

GONE: Final = object()
"""Instead of a value: the member is not there."""

NO_UTF8: Final = object()
"""Instead of a value: bytes that are no UTF-8, as text."""

_PARTS: Final = {"message": ("messages", "delivery"), "plan": ("plans", "event")}
_MONGO: Final[Mapping[str, str]] = {CollectionName.APPROVALS: "pack_approvals"}


@frozen
class Spoiler:
    """`url` is the store's, which may be open."""

    url: str

    @property
    def sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    def spoil(self, collection: str, key: Mapping[str, Any], member: str, value: Any) -> None:
        """Set a member of one row."""
        if self.sqlite:
            self._spoil_row(collection, key, member, value)
        else:
            self._spoil_document(collection, key, member, value)

    def value(self, collection: str, key: Mapping[str, Any], member: str) -> Any:
        """A member of one row, as it is kept; None where it is not there."""
        if not self.sqlite:
            with self._client() as client:
                (document,) = self._documents(client, collection).find(dict(key))
                return document.get(member)
        table, where = self._place(collection, key, member)
        with closing(self._connect()) as db:
            db.text_factory = lambda text: text.decode(errors="backslashreplace")
            row = db.execute(sql("SELECT", member, "FROM", table, "WHERE", where), key).fetchone()
            return row and row[0]

    def remove(self, collection: str, key: Mapping[str, Any]) -> None:
        if not self.sqlite:
            with self._client() as client:
                self._documents(client, collection).delete_one(dict(key))
            return
        with closing(self._connect()) as db:
            db.execute(sql("DELETE FROM", collection, "WHERE", _all(key)), key)

    def _spoil_row(self, collection: str, key: Mapping[str, Any], member: str, value: Any) -> None:
        table, where = self._place(collection, key, member)
        given = "CAST(:value AS TEXT)" if value is NO_UTF8 else ":value"
        statement = sql("UPDATE", table, "SET", member, "=", given, "WHERE", where)
        if value is GONE:
            statement = sql("DELETE FROM", table, "WHERE", where)
        with closing(self._connect()) as db:
            done = db.execute(statement, {**key, "value": b"\xc3(" if value is NO_UTF8 else value})
            assert done.rowcount == 1

    def _place(self, collection: str, key: Mapping[str, Any], member: str) -> tuple[str, str]:
        """The table that has a member, and the condition on its row."""
        where = _all(key)
        if member not in _PARTS:
            return collection, where
        table, its_key = _PARTS[member]
        return table, sql(its_key, "= (SELECT rowid FROM", collection, "WHERE", where, ")")

    def _spoil_document(self, collection: str, key: Mapping[str, Any], member: str, value: Any) -> None:
        change = {"$unset": {member: ""}} if value is GONE else {"$set": {member: value}}
        with self._client() as client:
            assert self._documents(client, collection).update_one(dict(key), change).matched_count == 1

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(sqlite_path(self.url), isolation_level=None, timeout=20)

    def _client(self) -> pymongo.MongoClient[Any]:
        return pymongo.MongoClient(self.url)

    def _documents(self, client: pymongo.MongoClient[Any], collection: str) -> Any:
        return client.get_default_database()[_MONGO.get(collection, collection)]


def _all(key: Mapping[str, Any]) -> str:
    return " AND ".join(f"{name} = :{name}" for name in key)
