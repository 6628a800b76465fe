"""Where the daemons of a test keep what they have: an embedded store, or a database of a MongoDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymongo
from attrs import frozen
from bson.raw_bson import RawBSONDocument

from notifyd.store.open import sqlite_path


@frozen
class Database:
    """One that nobody has used yet."""

    url: str

    def content(self) -> bytes:
        """All that is in it, as it is kept."""
        return _documents(self.url) if self.url.startswith("mongodb") else _files(sqlite_path(self.url))


def _files(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(path.name + "*"))


def _documents(url: str) -> bytes:
    client: pymongo.MongoClient[Any]
    with pymongo.MongoClient(url, document_class=RawBSONDocument) as client:
        database = client.get_default_database()
        found = (each for name in database.list_collection_names() for each in database[name].find())
        return b"".join(document.raw for document in found)
