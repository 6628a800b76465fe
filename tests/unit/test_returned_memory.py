"""What a start has used and needs no more goes back to the machine."""

from __future__ import annotations

import linecache
import platform
from pathlib import Path

import pytest
from attrs import frozen

from notifyd.service.daemon import _return_memory

MIB = 1024 * 1024


def resident() -> int:
    """In bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give back by themselves")
def test_freed_memory_between_used_blocks_is_given_back() -> None:
    blocks = [bytearray(2000) for _ in range(20_000)]  # too large for Python's own arenas
    kept = blocks[::200]  # so that no end of the heap is free
    before = resident()
    del blocks
    _return_memory()
    assert resident() < before - 20 * MIB
    assert len(kept) == 100


def test_the_source_of_generated_methods_is_forgotten_and_the_methods_work() -> None:
    @frozen
    class Made:
        number: int

    assert any("attrs generated" in name for name in linecache.cache)
    _return_memory()
    assert not linecache.cache
    assert Made(1) == Made(1)
