"""Fixtures that tests in several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import mongodb
from tests.mongodb import MongoServer


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[MongoServer]:
    """A MongoDB, started with the first test that asks for it."""
    with mongodb.server() as server:
        yield server
