"""The store over one MongoDB database, for one daemon or several that share it.

No step needs a transaction: each is one conditional write, and what goes before or after it can be repeated.
`store` is the whole; `driver` the one way to the database; `events`, `approvals`, `deliveries`, `windows`,
`digests`, `audit` and `nodes` are the steps and queries; the rest is what these are made of.
"""

from notifyd.store.mongo.store import MongoStore, open_mongo

__all__ = ["MongoStore", "open_mongo"]
