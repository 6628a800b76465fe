"""A running notifyd for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import pytest

from notifyd.render.render import TemplateSet
from tests.daemon import Daemon, daemon

_load_once = cache(TemplateSet.load)


@pytest.fixture
def templates_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling all templates is most of a start. The set is immutable, so the tests can share one."""
    monkeypatch.setattr(TemplateSet, "load", _load_once)


@pytest.fixture
async def notifyd(tmp_path: Path, templates_once: None) -> AsyncIterator[Daemon]:
    async with daemon(tmp_path) as running:
        yield running
