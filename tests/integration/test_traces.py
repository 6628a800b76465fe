"""The trace of an event: taken from its sender, kept with it, and passed on with all that it sets off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from notifyd import tracing
from notifyd.model import State
from notifyd.testkit.receivers import Sink
from notifyd.tracing import NO_TRACE, trace_in
from notifyd.wire import events as wire
from tests import events
from tests.fakes import TurnableClock, principal
from tests.flows import Flow, flow

pytestmark = pytest.mark.usefixtures("templates_once")

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
TRACE = {"traceparent": PARENT, "tracestate": "acme=t61rcWkgMzE"}


def config(hook: Sink, runner: Sink) -> str:
    return f"""
[egress]
allow_private = ["127.0.0.0/8"]

[resume]
allowed_origins = ["{runner.url}"]

[channels.hook]
type = "post"
url = "{hook.url}"

[[rules]]
name = "all"
when = "true"
channels = ["hook"]
"""


async def ask(way: Flow, runner: Sink, trace: dict[str, str]) -> dict[str, Any]:
    document = way.requested(resume=way.resume(f"{runner.url}/resume"))
    event = wire.parse_pack_event(document)
    await way.app._services.ingest.pack_event(event, document, principal(), "corr-1", trace)
    return document


def traces(sink: Sink) -> list[dict[str, str]]:
    return [dict(trace_in(one.headers)) for one in sink.received]


async def test_a_trace_comes_through_to_channels_and_the_callback_over_a_restart(tmp_path: Path) -> None:
    clock = TurnableClock()
    async with Sink() as hook, Sink() as runner:
        async with flow(tmp_path, config(hook, runner), clock=clock) as way:
            document = await ask(way, runner, TRACE)
            await way.ended(1)
        async with flow(tmp_path, config(hook, runner), clock=clock) as way:
            await way.decide(document)
            rows = await way.ended(3)
        assert {row.state for row in rows} == {State.SENT}
        assert traces(runner) == [TRACE]
        assert len(hook.received) >= 2
        assert all(trace == TRACE for trace in traces(hook))


async def test_without_a_trace_none_is_made_up(tmp_path: Path) -> None:
    async with Sink() as hook, Sink() as runner, flow(tmp_path, config(hook, runner)) as way:
        await ask(way, runner, {})
        await way.ended(1)
        assert traces(hook) == [{}]
    assert tracing.current.get() is NO_TRACE


async def test_a_repetition_in_another_trace_is_a_duplicate_and_changes_nothing(tmp_path: Path) -> None:
    async with Sink() as hook, Sink() as runner, flow(tmp_path, config(hook, runner), start=False) as way:
        document = await ask(way, runner, TRACE)
        event = wire.parse_pack_event(document)
        ingest = way.app._services.ingest
        again = await ingest.pack_event(event, document, principal(), "corr-2", {"traceparent": OTHER})
        assert not again.fresh
        assert trace_in(orjson.loads((await way.approval(document)).request)) == TRACE


@pytest.mark.parametrize(("own", "sent"), [({}, PARENT), ({"traceparent": OTHER}, OTHER)])
async def test_a_cloud_events_own_trace_comes_before_the_requests(
    tmp_path: Path, own: dict[str, str], sent: str
) -> None:
    async with Sink() as hook, Sink() as runner, flow(tmp_path, config(hook, runner)) as way:
        document = events.cloud_event(at=way.clock(), **own)
        event = wire.parse_cloud_event(document)
        ingest = way.app._services.ingest
        await ingest.cloud_event(event, document, "acme", principal(), "corr-1", {"traceparent": PARENT})
        await way.ended(1)
        assert traces(hook) == [{"traceparent": sent}]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"traceparent": ""},
        {"traceparent": 1},
        {"traceparent": PARENT.upper()},
        {"traceparent": PARENT + "-more"},
        {"traceparent": PARENT + "\n"},
        {"traceparent": "ff" + PARENT[2:]},
        {"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"},
        {"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01"},
        {"tracestate": "acme=1"},
    ],
)
def test_what_is_in_no_form_of_the_standard_is_no_trace(said: dict[str, Any]) -> None:
    assert trace_in(said) == {}


@pytest.mark.parametrize("state", ["a" * 513, "acme=é", "acme=1\r\nx: y", "", 7])
def test_a_state_that_is_out_of_form_is_left_out_alone(state: object) -> None:
    assert trace_in({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}
