"""Readiness asks the store, but an open endpoint cannot make it ask often."""

from __future__ import annotations

import asyncio

import pytest
from attrs import define

from notifyd.errors import StoreError, UnavailableError
from notifyd.web import ops
from notifyd.web.ops import Readiness


@define
class Disk:
    """Something to probe that may be full."""

    full: bool = False
    probes: int = 0

    async def probe(self) -> None:
        self.probes += 1
        await asyncio.sleep(0)
        if self.full:
            raise StoreError("the disk is full", retry_after=30)


async def test_a_full_disk_is_not_ready_and_says_why() -> None:
    with pytest.raises(UnavailableError, match="the disk is full"):
        await Readiness(Disk(full=True).probe, lambda: False).check()


@pytest.mark.parametrize("full", [True, False])
async def test_many_who_ask_at_once_share_one_probe_and_its_result(full: bool) -> None:
    disk = Disk(full)
    readiness = Readiness(disk.probe, lambda: False)
    results = await asyncio.gather(*(readiness.check() for _ in range(20)), return_exceptions=True)
    results += await asyncio.gather(readiness.check(), return_exceptions=True)
    assert {type(result) for result in results} == ({UnavailableError} if full else {type(None)})
    assert disk.probes == 1


async def test_a_probe_is_repeated_once_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "PROBE_LIFE", 0.0)
    disk = Disk(full=True)
    readiness = Readiness(disk.probe, lambda: False)
    with pytest.raises(UnavailableError):
        await readiness.check()
    disk.full = False
    await readiness.check()
    assert disk.probes == 2


async def test_a_daemon_that_is_stopping_is_not_ready_and_does_not_probe() -> None:
    disk = Disk()
    with pytest.raises(UnavailableError, match="being stopped"):
        await Readiness(disk.probe, lambda: True).check()
    assert disk.probes == 0
