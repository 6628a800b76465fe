"""The store over one SQLite file, for one daemon on one machine.

`store` is the whole, made by `opening`; `writer` and `readers` are its two ways to the file; `events`,
`approvals`, `deliveries` and `audit` are the steps and queries; the rest is what these are made of.
"""

from notifyd.store.sqlite.opening import open_sqlite
from notifyd.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore", "open_sqlite"]
