"""Fixtures that tests in several folders share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import hypothesis
import pytest

from tests import forks, mongodb
from tests.mongodb import MongoServer
from tests.often import look_often

# How long an example takes tells of the machine's other work and not of the code.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("any-machine")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Tests are a million objects that stay: the collector need not look at them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[MongoServer]:
    """A MongoDB, started with the first test that asks for it."""
    with mongodb.server() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def _fork_servers() -> Iterator[None]:
    """Ends what processes were forked from."""
    yield
    for server in forks.SERVERS:
        server.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due by a clock that the test has turned is found at once."""
    look_often(monkeypatch)
