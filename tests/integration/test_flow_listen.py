"""Channels that listen: on one node at a time, begun again where they end, ended with their configuration."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from notifyd.flow import listen
from notifyd.flow.listen import Listeners
from notifyd.metrics import Metrics
from notifyd.plugin import ChannelType, Inbox, Message, Receipt, TransientError
from notifyd.registry.registry import Current, Registry
from notifyd.store import Turn
from tests.fakes import Channels, NoOptions, TurnableClock, registry
from tests.flows import flow
from tests.waiting import until

TEXT = """
[channels.ear]
type = "ear"

[channels.plain]
type = "fake"
"""


@define(eq=False)
class Ear:
    """Listens until it is cancelled, or ends as `script` says, one step for each time it listens."""

    script: list[BaseException | None] = field(factory=list)
    began: int = 0
    ended: int = 0
    stubborn: float = 0.0
    inboxes: list[Inbox] = field(factory=list)

    async def send(self, message: Message) -> Receipt:
        return Receipt()

    async def listen(self, inbox: Inbox) -> None:
        self.began += 1
        self.inboxes.append(inbox)
        try:
            if self.script:
                step = self.script.pop(0)
                if step is not None:
                    raise step
                return
            await asyncio.Event().wait()
        finally:
            if self.stubborn:
                await asyncio.sleep(self.stubborn)
            self.ended += 1

    async def aclose(self) -> None:
        assert self.began == self.ended, "closed while it was listening"


@define
class Jobs:
    """The leases of a store that nodes share: `ours` says whether this node has its turn."""

    ours: bool = True
    claimed: list[str] = field(factory=list)
    given_back: list[str] = field(factory=list)

    async def claim_job(self, job: str, *_: Any, **__: Any) -> Turn:
        self.claimed.append(job)
        return Turn(mine=self.ours, node="a" if self.ours else "b")

    async def end_job(self, job: str, _: Any) -> None:
        self.given_back.append(job)


def ears(ear: Ear) -> Channels:
    channels = Channels()
    channels.more["ear"] = ChannelType("ear", NoOptions, lambda _config, _context: ear, answers=True)
    return channels


def listeners(current: Registry | Current, jobs: Jobs) -> Listeners:
    store: Any = jobs
    chosen = current if isinstance(current, Current) else Current(current)

    async def inbox(_: object) -> Any:
        raise AssertionError("nobody answers here")

    return Listeners(
        store=store, current=chosen, inbox=lambda _: inbox, metrics=Metrics(), clock=TurnableClock()
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pauses that spare a vendor."""
    monkeypatch.setattr(listen, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(listen, "_TURN", 0.001)
    monkeypatch.setattr(listen, "_LAST_WORDS", 0.05)


async def test_a_channel_listens_under_its_lease_until_it_is_stopped() -> None:
    ear, jobs = Ear(), Jobs()
    async with registry(TEXT, ears(ear)) as current:
        step = listeners(current, jobs)
        await step.adjust()
        await until(lambda: ear.began)
        await step.adjust()  # a reload that left the channel as it was
        await step.aclose()
        assert (ear.began, ear.ended) == (1, 1)
        assert (jobs.claimed, jobs.given_back) == (["listen:ear"], ["listen:ear"])


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (None, "channel ear has stopped listening\n"),
        (TransientError("the vendor is away"), "has stopped listening: the vendor is away"),
        (
            TransientError("two\x1b[2J words" + 400 * "!"),
            "has stopped listening: two[2J words" + 288 * "!" + "\n",
        ),
        (TransientError(7), "channel ear has stopped listening: \n"),  # type: ignore[arg-type]
        (ValueError("a fault of its own"), "channel ear raised ValueError"),
        (SystemExit(3), "channel ear raised SystemExit"),
    ],
)
async def test_a_channel_that_ends_is_begun_again_and_the_log_says_why(
    step: BaseException | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    ear, jobs = Ear(script=[step, step]), Jobs()
    async with registry(TEXT, ears(ear)) as current:
        listening = listeners(current, jobs)
        await listening.adjust()
        await until(lambda: ear.began == 3)
        seen = listening._metrics.registry.get_sample_value
        assert seen("notifyd_listening", {"channel": "ear"}) == 1
        assert seen("notifyd_listen_ends_total", {"channel": "ear"}) == 2
        await listening.aclose()
        assert seen("notifyd_listening", {"channel": "ear"}) == 0
    assert told in caplog.text
    assert "channel ear listens again in 0.0 s" in caplog.text


async def test_a_node_listens_once_it_has_its_turn_and_stops_where_it_loses_it() -> None:
    ear, jobs = Ear(), Jobs(ours=False)
    async with registry(TEXT + '[dispatch]\nlease = "30ms"\n', ears(ear)) as current:
        step = listeners(current, jobs)
        step._clock = lambda: int(asyncio.get_running_loop().time() * 1_000_000)
        await step.adjust()
        await until(lambda: len(jobs.claimed) > 2)
        assert ear.began == 0
        jobs.ours = True
        await until(lambda: ear.began == 1)
        jobs.ours = False
        await until(lambda: ear.ended == 1)
        await step.aclose()
        assert ear.began == 1


async def test_one_that_is_deaf_to_its_cancellation_holds_up_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ear, jobs = Ear(stubborn=0.3), Jobs()
    async with registry(TEXT, ears(ear)) as current:
        step = listeners(current, jobs)
        await step.adjust()
        await until(lambda: ear.began)
        await step.aclose()
        assert "goes on listening though it was cancelled" in caplog.text
        await until(lambda: ear.ended)


@define(eq=False)
class Deaf(Ear):
    """Goes on when it is cancelled, until it is `released`."""

    released: asyncio.Event = field(factory=asyncio.Event)

    async def listen(self, inbox: Inbox) -> None:
        assert self.began == self.ended, "listens beside itself"
        self.began += 1
        while not self.released.is_set():
            with suppress(asyncio.CancelledError):
                await self.released.wait()
        self.ended += 1


async def test_one_that_is_deaf_when_its_turn_is_over_is_not_called_again_beside_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listen, "_TURN", 0)
    ear, jobs = Deaf(), Jobs()
    async with registry(TEXT + '[dispatch]\nlease = "30ms"\n', ears(ear)) as current:
        step = listeners(current, jobs)
        step._clock = lambda: int(asyncio.get_running_loop().time() * 1_000_000)
        await step.adjust()
        await until(lambda: ear.began)
        jobs.ours = False
        await until(lambda: jobs.given_back)
        jobs.ours, claims = True, len(jobs.claimed)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (ear.began, len(jobs.claimed)) == (1, claims)
        ear.released.set()
        await until(lambda: ear.began > 1)
        await step.aclose()
    assert ear.began == ear.ended


async def test_a_reload_stops_the_old_channel_before_it_begins_the_new_and_a_drain_ends_it(
    tmp_path: Path,
) -> None:
    ear = Ear()
    async with flow(tmp_path, TEXT, channels=ears(ear)) as way:
        await way.app._listeners.adjust()
        await until(lambda: ear.began == 1)
        assert await way.reload(TEXT.replace("[channels.plain]", "[channels.other]"))
        await until(lambda: ear.began == 2)
        assert ear.ended == 1
        assert await way.reload(TEXT.replace('type = "ear"', 'type = "fake"'))
        assert (ear.began, ear.ended) == (2, 2)
        assert way.metrics.values("notifyd_listening", "channel") == {}
        assert await way.reload(TEXT)
        await until(lambda: ear.began == 3)
    assert ear.ended == 3
