"""The stores that the contract suite runs against: another kind is one more entry of `KINDS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from notifyd.store import Store
from notifyd.store.open import open_store
from tests.store.makers import NODE, TurnableClock

Reopen = Callable[[], Awaitable[Store]]


class Deployment:
    """One database of a kind, opened and opened again, as a daemon that restarts does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store: Store | None = None

    async def open(self) -> Store:
        await self.close()
        self.store = await open_store(self.url, node=NODE, clock=TurnableClock())
        return self.store

    async def close(self) -> None:
        if self.store is not None:
            await self.store.aclose()


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/notifyd.db"


KINDS: dict[str, Callable[[Path], str]] = {"sqlite": _sqlite}
"""A kind's name, and from a test's own folder to the URL of an empty database."""


@pytest.fixture(params=KINDS)
async def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployment]:
    deployment = Deployment(KINDS[request.param](tmp_path))
    yield deployment
    await deployment.close()


@pytest.fixture
async def store(deployment: Deployment) -> Store:
    """An empty store."""
    return await deployment.open()


@pytest.fixture
def reopen(deployment: Deployment, store: Store) -> Reopen:
    """Close `store` and open the same database again."""
    return deployment.open
