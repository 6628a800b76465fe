"""The databases that whole daemons are run on, as what holds of one has to hold of the other; and one demo."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from attrs import frozen

from tests.e2e.databases import Database
from tests.mongodb import MongoServer


@pytest.fixture(params=["sqlite", "mongodb"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A test that asks for this runs once on each kind."""
    if request.param == "sqlite":
        return Database(f"sqlite:///{tmp_path}/notifyd.db")
    server: MongoServer = request.getfixturevalue("mongo_server")
    return Database(server.database())


@frozen
class Played:
    """A demo that has been played to its end in a pipe: what it said, what it left in `folder`, its seconds."""

    code: int
    stdout: str
    stderr: str
    folder: Path
    seconds: float


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Tests that look at what one demo says and leaves share it."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "notifyd", "demo", "--out", str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    return Played(done.returncode, done.stdout, done.stderr, folder, time.monotonic() - begun)
