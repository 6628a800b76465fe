"""The databases that whole daemons are run on: what holds of one has to hold of the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.databases import Database
from tests.mongodb import MongoServer


@pytest.fixture(params=["sqlite", "mongodb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A test that asks for this runs once on each kind."""
    if request.param == "sqlite":
        return Database(f"sqlite:///{tmp_path}/notifyd.db")
    server: MongoServer = request.getfixturevalue("mongo_server")
    return Database(server.database())
