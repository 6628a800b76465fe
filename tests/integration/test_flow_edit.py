"""What was sent tells the end of its approval, where its channel can change it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from notifyd.model import Delivery, Message, State
from notifyd.plugin import ChannelContext, ChannelType, PermanentError, Receipt, TransientError, hookimpl
from notifyd.registry.discovery import discover
from notifyd.registry.registry import open_registry
from tests import events
from tests.daemon import CONFIG, Clock, Inbox, settings
from tests.fakes import Channels, NoOptions
from tests.flows import Flow, flow
from tests.waiting import until, until_async

TEXT = """
[resume]
allowed_origins = ["https://runner.acme.example"]

[dispatch]
backoff = "1ms..2ms"

[channels.board]
type = "board"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval" && event.action == "requested"'
channels = ["board"]
"""


@define(eq=False)
class Board:
    """A channel whose messages can be changed. `edits` has each change with what it was of."""

    sent: list[Message] = field(factory=list)
    edits: list[tuple[str, Message]] = field(factory=list)
    refs: bool = True
    fault: Exception | None = None
    edit_faults: list[Exception] = field(factory=list)
    gate: asyncio.Event = field(factory=asyncio.Event)

    async def send(self, message: Message) -> Receipt:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        self.sent.append(message)
        return Receipt(ref=f"note-{len(self.sent)}" if self.refs else "")

    async def edit(self, ref: str, message: Message) -> Receipt:
        if self.edit_faults:
            raise self.edit_faults.pop(0)
        self.edits.append((ref, message))
        return Receipt()

    async def aclose(self) -> None:
        """Nothing is open."""


def boarded(folder: Path, board: Board, text: str = TEXT) -> Any:
    channels = Channels()

    def opened(_config: NoOptions, _context: ChannelContext) -> Board:
        return board

    channels.more["board"] = ChannelType("board", NoOptions, opened)
    board.gate.set()
    return flow(folder, text, channels=channels)


async def edits_in(way: Flow, count: int = 1) -> list[Delivery]:
    """The deliveries that change others, once there are so many and they have ended."""

    def ended(rows: list[Delivery]) -> list[Delivery]:
        return [row for row in rows if row.edits and not row.state.open]

    async with asyncio.timeout(30):
        while len(found := ended(await way.deliveries())) < count:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize(("version", "edits"), [(1, False), (2, True)])
async def test_a_method_edit_counts_for_plugins_that_are_written_for_the_version_that_has_it(
    version: int, edits: bool
) -> None:
    class Old:
        notifyd_api = version

        @hookimpl
        def notifyd_channel_types(self) -> list[ChannelType]:
            return [ChannelType("board", NoOptions, lambda _config, _context: Board())]

    found = discover(extra=[Old(), Inbox()])
    registry = await open_registry(
        settings(CONFIG + '[channels.board]\ntype = "board"\n', found), found, Clock()
    )
    try:
        assert registry.channels["board"].edits is edits
    finally:
        await registry.aclose()


async def test_the_end_takes_the_place_of_what_was_sent(tmp_path: Path) -> None:
    board = Board()
    async with boarded(tmp_path, board) as way:
        document = await way.ask(requiredApprovals=2)
        await until(lambda: board.sent)
        await way.decide(document)
        await way.sweep()
        await way.decide(document, actor="bruno@acme.example")
        (row,) = await edits_in(way)
        (ref, message) = board.edits[0]
        first = next(one for one in await way.deliveries() if not one.edits)
    assert (ref, row.edits, row.state) == ("note-1", first.id, State.SENT)
    assert first.sent_ref == "note-1"
    assert message.event["status"] == "approved"
    assert message.title != board.sent[0].title
    assert message.buttons == ()
    assert len(board.sent) == 1


@pytest.mark.parametrize("end", ["updated", "expired"])
async def test_every_way_to_end_is_told_there(tmp_path: Path, end: str) -> None:
    board = Board()
    async with boarded(tmp_path, board) as way:
        await way.ask()
        await until(lambda: board.sent)
        if end == "updated":
            await way.post(events.updated("cancelled", at=way.clock()))
        else:
            way.clock.turn(8 * 86_400)
        await way.sweep()
        await edits_in(way)
    assert board.edits[0][1].event["status"] == ("cancelled" if end == "updated" else "expired")


async def test_what_is_still_on_its_way_at_the_end_is_changed_after_it_was_sent(tmp_path: Path) -> None:
    board = Board()
    async with boarded(tmp_path, board) as way:
        board.gate.clear()
        document = await way.ask()
        await way.decide(document)
        await way.sweep()
        assert board.edits == []
        board.gate.set()
        await until(lambda: board.sent)
        way.turn(60)
        await edits_in(way)
    assert [ref for ref, _ in board.edits] == ["note-1"]


@pytest.mark.parametrize("why", ["dead", "no ref"])
async def test_where_there_is_nothing_to_change_nothing_is_done(tmp_path: Path, why: str) -> None:
    board = Board(refs=False) if why == "no ref" else Board(fault=PermanentError("no such room"))
    async with boarded(tmp_path, board) as way:
        document = await way.ask()
        await way.ended(1)
        await way.decide(document)
        await way.sweep()
        if why == "dead":
            assert [row.edits for row in await way.deliveries() if row.edits] == []
        else:
            (row,) = await edits_in(way)
            assert row.attempts[0].detail == "there is nothing to change"
    assert board.edits == []


async def test_a_change_that_fails_is_tried_again(tmp_path: Path) -> None:
    board = Board(edit_faults=[TransientError("away"), TransientError("still away")])
    async with boarded(tmp_path, board) as way:
        document = await way.ask()
        await until(lambda: board.sent)
        await way.decide(document)
        for _ in range(2):
            await until(lambda: len(board.edit_faults) < 2)
            way.turn(60)
        await until(lambda: board.edits or way.turn(60))
        (row,) = await edits_in(way)
    assert (row.state, len(row.attempts)) == (State.SENT, 3)


# --- threads -----------------------------------------------------------------------------------------------

ALL_KINDS = TEXT.replace('event.kind == "pack.approval" && event.action == "requested"', "true")


async def told(way: Flow, board: Board, document: dict[str, Any]) -> Message:
    """What is sent of `document`, which is posted now."""
    number = len(board.sent)
    await way.post(document)
    await until(lambda: len(board.sent) > number)
    return board.sent[number]


async def recorded(way: Flow, count: int) -> None:
    """So many messages are sent, and it is written down what the vendor calls them."""

    async def done() -> bool:
        return len([row for row in await way.deliveries() if row.sent_ref]) >= count

    await until_async(done)


async def test_a_hold_and_its_release_go_below_the_request_and_outlast_its_end(tmp_path: Path) -> None:
    board = Board()
    async with boarded(tmp_path, board, ALL_KINDS) as way:
        request = await way.ask()
        of = {name: request[name] for name in ("runId", "approvalId", "tenant")}
        await recorded(way, 1)
        hold = await told(way, board, events.held(at=way.clock(), **of))
        await recorded(way, 2)
        release = await told(way, board, events.released(at=way.clock() + 1, **of))
        await recorded(way, 3)
        await way.decide(request)
        await way.sweep()
        await edits_in(way)
        changed = {ref for ref, _ in board.edits}
    assert [hold.event["action"], release.event["action"]] == ["hold", "released"]
    assert (hold.follows, release.follows) == ("note-1", "note-1")
    assert changed == {"note-1"}, "what tells of the hold stays"


async def test_without_a_request_a_release_goes_below_the_hold_of_its_policy(tmp_path: Path) -> None:
    board = Board()
    async with boarded(tmp_path, board, ALL_KINDS) as way:
        first = await told(way, board, events.held(at=way.clock(), policy={"id": "freeze"}))
        await recorded(way, 1)
        second = await told(way, board, events.held(at=way.clock(), policy={"id": "budget"}))
        await recorded(way, 2)
        release = await told(way, board, events.released(at=way.clock() + 1, policy={"id": "freeze"}))
        other = await told(
            way, board, events.released(at=way.clock() + 1, runId="another", policy={"id": "freeze"})
        )
    assert (first.follows, second.follows) == ("", "")
    assert release.follows == "note-1"
    assert other.follows == "", "of another run"
