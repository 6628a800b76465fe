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
async def notifyd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    # Compiling all templates is most of a start. The set is immutable, so the tests can share one.
    monkeypatch.setattr(TemplateSet, "load", _load_once)
    async with daemon(tmp_path) as running:
        yield running
