"""The channels over HTTP: how each stands, and a test message through one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from notifyd.plugin import PermanentError, TransientError
from notifyd.render.render import TemplateSet
from notifyd.testing import Reply, Sink
from tests.daemon import CONFIG, Answer, Daemon, bearer, daemon
from tests.waiting import until_async

HIDDEN = "T00000000-B00000000-a-secret-in-the-path"

_load_once = cache(TemplateSet.load)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as receiver:
        yield receiver


@pytest.fixture
async def hooked(sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    """A daemon with a channel `hook` beside its inbox, which sends to `sink`."""
    monkeypatch.setattr(TemplateSet, "load", _load_once)
    options = ('type = "webhook"', f'url = "{sink.url}/{HIDDEN}"', 'rate_limit = "30/m"', 'timeout = "500ms"')
    hook = "\n".join(["[channels.hook]", *options])
    async with daemon(tmp_path, CONFIG + hook) as running:
        yield running


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    return answer.status, answer.json["code"]


async def channel(notifyd: Daemon, name: str = "inbox") -> Any:
    items = (await notifyd.get("/api/v1/channels")).json["items"]
    return next(item for item in items if item["name"] == name)


async def shown(notifyd: Daemon, condition: Callable[[Any], object]) -> Any:
    """The inbox as it is listed, once `condition` holds of it."""

    async def found() -> Any:
        item = await channel(notifyd)
        return item if condition(item) else None

    return await until_async(found)


async def try_out(notifyd: Daemon, name: str, document: Any = None, client: str = "operator") -> Answer:
    return await notifyd.post(f"/api/v1/channels/{name}/test", document or {}, client)


# --- the list ----------------------------------------------------------------------------------------------


async def test_a_channel_is_listed_with_its_plugin_its_limits_and_its_lane(hooked: Daemon) -> None:
    answer = await hooked.get("/api/v1/channels")
    hook, inbox = answer.json["items"]
    assert hook == {
        "name": "hook",
        "type": "webhook",
        "plugin": "webhook",
        "version": hook["version"],
        "personal": False,
        "rateLimit": "30/m",
        "concurrency": 4,
        "timeout": "500ms",
        "lane": {"backlog": 0, "running": 0, "breaker": "closed"},
        "lastSuccess": None,
        "lastFailure": None,
    }
    assert hook["version"][0].isdigit()
    assert (inbox["name"], inbox["type"], inbox["personal"], inbox["rateLimit"]) == (
        "inbox",
        "inbox",
        True,
        None,
    )
    assert HIDDEN not in answer.text
    assert answer.json["nextCursor"] is None


async def test_the_last_success_and_the_last_failure_are_shown(notifyd: Daemon) -> None:
    notifyd.inbox.fault = PermanentError("no such mailbox")
    await notifyd.ask()
    item = await shown(notifyd, lambda item: item["lastFailure"] is not None)
    assert item["lastSuccess"] is None
    assert (item["lastFailure"]["reason"], item["lastFailure"]["detail"]) == ("rejected", "no such mailbox")
    notifyd.inbox.fault = None
    await notifyd.ask(runId="run-0043")
    item = await shown(notifyd, lambda item: item["lastSuccess"] and not item["lane"]["backlog"])
    assert item["lastSuccess"]["at"] >= item["lastFailure"]["at"]


async def test_an_open_breaker_is_shown_with_what_waits_behind_it(notifyd: Daemon) -> None:
    notifyd.inbox.fault = TransientError("not now")
    for number in range(3):
        await notifyd.ask(runId=f"run-{number}")
    await shown(notifyd, lambda item: item["lane"] == {"backlog": 6, "running": 0, "breaker": "open"})
    notifyd.clock.turn(6)
    assert (await channel(notifyd))["lane"]["breaker"] != "open"


async def test_the_list_needs_a_token_with_the_scope_to_read(notifyd: Daemon) -> None:
    assert problem(await notifyd.get("/api/v1/channels", None)) == (401, "unauthenticated")
    assert problem(await notifyd.get("/api/v1/channels", "task-runner")) == (403, "scope_missing")


# --- the test message --------------------------------------------------------------------------------------


async def test_a_test_message_reaches_the_receiver_and_the_answer_says_how_long_it_took(
    hooked: Daemon, sink: Sink
) -> None:
    answer = await try_out(hooked, "hook")
    assert answer.status == 200, answer.text
    assert answer.json == {
        "channel": "hook",
        "status": "sent",
        "durationMs": answer.json["durationMs"],
        "detail": "",
    }
    assert 0 < answer.json["durationMs"] < 5000
    (received,) = sink.received
    assert "Test message from notifyd" in received.body.decode()
    assert '"channel":"hook"' in received.body.decode()


async def test_a_test_needs_no_body_where_the_channel_writes_to_nobody_in_particular(
    hooked: Daemon, sink: Sink
) -> None:
    answer = await hooked.call("POST", "/api/v1/channels/hook/test", headers=bearer("operator"))
    assert (answer.status, len(sink.received)) == (200, 1)


async def test_a_personal_channel_is_tested_on_one_person_in_their_language(notifyd: Daemon) -> None:
    answer = await try_out(notifyd, "inbox", {"recipient": "bob@acme.example"})
    assert answer.status == 200, answer.text
    (message,) = notifyd.inbox.messages
    assert (message.recipient, message.locale) == ("bob@acme.example", "de-CH")
    assert message.html is not None


@pytest.mark.parametrize("document", [{}, {"recipient": None}, {"recipient": ""}, {"recipient": 7}])
async def test_a_personal_channel_must_be_told_whom_to_write_to(notifyd: Daemon, document: Any) -> None:
    answer = await try_out(notifyd, "inbox", document)
    assert answer.status == 422
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/recipient"]
    assert notifyd.inbox.messages == []


async def test_a_test_refuses_what_it_does_not_know(hooked: Daemon, sink: Sink) -> None:
    for document in ({"recipient": "alice@acme.example"}, {"to": "alice@acme.example"}, ["hook"]):
        assert (await try_out(hooked, "hook", document)).status == 422
    assert sink.received == []


async def test_a_channel_that_fails_is_a_502_with_its_own_words_and_no_secret(
    hooked: Daemon, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.reply = Reply(404, f"no hook {HIDDEN} here")
    answer = await try_out(hooked, "hook")
    assert problem(answer) == (502, "channel_failed")
    assert answer.json["detail"] == "not_found: the receiver answered 404: no hook *** here"
    assert HIDDEN not in answer.text + caplog.text
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_test_ends_with_the_channels_timeout(hooked: Daemon, sink: Sink) -> None:
    sink.silent = True
    answer = await try_out(hooked, "hook")
    assert problem(answer) == (502, "channel_failed")
    assert answer.json["detail"] == "timeout: no answer within 0.5 s"


async def test_a_test_passes_an_open_breaker_and_is_no_delivery(notifyd: Daemon) -> None:
    notifyd.inbox.fault = TransientError("not now")
    for number in range(3):
        await notifyd.ask(runId=f"run-{number}")
    await shown(notifyd, lambda item: item["lane"]["breaker"] == "open" and not item["lane"]["running"])
    counted = (await notifyd.get("/metrics", None)).text.count("notifyd_delivery_attempts_total{")
    rows = (await notifyd.get("/api/v1/deliveries")).json["items"]
    notifyd.inbox.fault = None
    assert (await try_out(notifyd, "inbox", {"recipient": "alice@acme.example"})).status == 200
    assert (await channel(notifyd))["lane"]["breaker"] == "open"
    assert len((await notifyd.get("/api/v1/deliveries")).json["items"]) == len(rows)
    assert (await notifyd.get("/metrics", None)).text.count("notifyd_delivery_attempts_total{") == counted


async def test_an_unknown_channel_and_notifyds_own_are_not_found(notifyd: Daemon) -> None:
    for name in ("nowhere", "resume"):
        assert problem(await try_out(notifyd, name)) == (404, "not_found")


async def test_a_test_needs_the_scope_to_operate(notifyd: Daemon) -> None:
    sent = {"recipient": "alice@acme.example"}
    assert problem(await try_out(notifyd, "inbox", sent, "reader")) == (403, "scope_missing")
    assert notifyd.inbox.messages == []


async def test_a_daemon_that_is_stopping_tests_nothing(notifyd: Daemon) -> None:
    await notifyd.app.drain()
    answer = await try_out(notifyd, "inbox", {"recipient": "alice@acme.example"})
    assert problem(answer) == (503, "unavailable")
