"""The store over one MongoDB database, for one daemon or several that share it.

Each step is one conditional write, or one transaction where several documents belong together:
see docs/adr/0016-one-transaction-a-step.md.
`store` is the whole; `driver` the one way to the database; `events`, `approvals`, `deliveries`, `windows`,
`digests`, `audit` and `nodes` are the steps and queries; the rest is what these are made of.
"""

from notifyd.store.mongo.store import MongoStore, open_mongo

__all__ = ["MongoStore", "open_mongo"]
