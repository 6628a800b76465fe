"""What a node knows of the others."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define

from notifyd.errors import StoreError
from notifyd.flow.nodes import ALIVE, Nodes
from notifyd.model import Instant
from tests.fakes import NOW, TurnableClock


@define
class Beats:
    """The one operation of a store that nodes need: each answer in turn, or its fault."""

    answers: list[int | Exception]
    until: Instant = 0

    async def beat(self, now: Instant, until: Instant) -> int:
        self.until = until
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def nodes(*answers: int | Exception) -> tuple[Nodes, Beats]:
    beats = Beats(list(answers))
    store: Any = beats
    return Nodes(store=store, clock=TurnableClock()), beats


async def test_until_its_first_beat_a_node_knows_of_itself_alone() -> None:
    known, beats = nodes(3)
    assert known() == 1
    await known.beat()
    assert known() == 3
    assert beats.until == NOW + ALIVE


async def test_while_its_beats_fail_it_goes_by_what_it_knew(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    known, _ = nodes(2, 2, StoreError("connection lost"), 1)
    await known.beat()
    await known.beat()
    with pytest.raises(StoreError):
        await known.beat()
    assert known() == 2
    await known.beat()
    assert known() == 1
    assert caplog.messages == ["nodes alive: 2", "nodes alive: 1"]
