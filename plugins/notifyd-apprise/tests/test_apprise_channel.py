"""The apprise channel: Apprise's own JSON service against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from apprise.plugins.custom_json import NotifyJSON
from notifyd_apprise import AppriseConfig, notifyd_channel_types

from notifyd.plugin import Action, Field, Level, PermanentError, Reason, Secret, TransientError
from notifyd.testing import LINK, NetworkConformance, Reply, Sink, Verdict, opened, sample_message

# Apprise imports it on Python 3.11 and 3.12.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

(APPRISE,) = notifyd_channel_types()


def config_for(url: str, *more: str) -> AppriseConfig:
    service = url.replace("http://", "json://notifyd:a-long-password@") + "/a-secret-in-the-path"
    return AppriseConfig(urls=(Secret(service), *map(Secret, more)))


class TestApprise(NetworkConformance):
    channel_type = APPRISE
    verdicts: ClassVar[Mapping[int, Verdict]] = {
        200: None,
        204: None,
        302: PermanentError,
        400: PermanentError,
        403: PermanentError,
        404: PermanentError,
        429: TransientError,
        500: TransientError,
    }

    def config(self, url: str) -> AppriseConfig:
        return config_for(url)


async def send(config: AppriseConfig, **changes: Any) -> None:
    async with opened(APPRISE, config) as channel:
        await channel.send(sample_message(**changes))


async def test_a_message_goes_out_with_its_fields_and_links() -> None:
    async with Sink() as sink:
        await send(config_for(sink.url))
    (request,) = sink.received
    body, message = json.loads(request.body), sample_message()
    assert request.path == "/a-secret-in-the-path"
    assert (body["title"], body["type"]) == (message.title, "warning")
    assert body["message"].split("\n\n") == [
        *message.body.split("\n\n"),
        "Environment: production\nRequested by: ci@acme.example",
        f"Review and decide: {LINK}",
    ]


@pytest.mark.parametrize(
    ("level", "kind"),
    [(Level.INFO, "info"), (Level.SUCCESS, "success"), (Level.WARNING, "warning"), (Level.ERROR, "failure")],
)
async def test_each_level_has_its_type(level: Level, kind: str) -> None:
    async with Sink() as sink:
        await send(config_for(sink.url), level=level)
    assert json.loads(sink.received[0].body)["type"] == kind


async def test_every_url_gets_the_message() -> None:
    async with Sink() as one, Sink() as other:
        await send(config_for(one.url, other.url.replace("http", "json")))
    assert (len(one.received), len(other.received)) == (1, 1)


async def test_one_url_that_fails_makes_the_attempt_fail() -> None:
    async with Sink() as one, Sink() as other:
        other.reply = Reply(500)
        with pytest.raises(TransientError) as caught:
            await send(config_for(one.url, other.url.replace("http", "json")))
    assert caught.value.reason is Reason.SERVER_ERROR


async def test_a_message_is_given_up_only_where_no_service_may_take_it_later() -> None:
    async with Sink() as one, Sink() as other:
        one.reply, other.reply = Reply(404), Reply(503)
        config = config_for(one.url, other.url.replace("http", "json"))
        with pytest.raises(TransientError):
            await send(config)
        other.reply = Reply(200)
        with pytest.raises(PermanentError) as caught:
            await send(config)
    assert (caught.value.reason, caught.value.status) == (Reason.NOT_FOUND, 404)


async def test_a_text_too_long_for_a_service_is_shortened_and_keeps_its_links() -> None:
    async with Sink() as sink:
        await send(config_for(sink.url), body="word " * 20_000)
    text = json.loads(sink.received[0].body)["message"]
    assert 32_000 < len(text) <= 32_768
    assert "word…\n\n" in text
    assert text.endswith(f"Review and decide: {LINK}")


async def test_what_a_short_message_has_no_room_for_is_counted_and_no_link_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(NotifyJSON, "body_maxlen", 160)
    async with Sink() as sink:
        await send(config_for(sink.url), body="word " * 100, fields=())
        await send(config_for(sink.url), body="word " * 100, actions=(Action("Decide", LINK + "x" * 600),))
        monkeypatch.setattr(NotifyJSON, "body_maxlen", 4000)
        actions = tuple(Action(f"Run {n}", f"{LINK}{n:02}" + "x" * 600) for n in range(12))
        await send(config_for(sink.url), body="word " * 1000, actions=actions)
    one, none, some = (json.loads(received.body)["message"] for received in sink.received)
    assert one.endswith(f"word…\n\nReview and decide: {LINK}")
    assert none.endswith("word…\n\n… (+1)")
    assert some.endswith(f"{actions[3].url}\n… (+8)")
    assert len(some) > 3900
    assert max(len(one), len(none)) <= 160


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("@everyone, @here: ask ci@acme.example", "@\u2060everyone, @\u2060here: ask ci@acme.example"),
        ("<@123> <@&45> <!channel> <#7>", "<\u2060@\u2060123> <\u2060@&45> <\u2060!channel> <\u2060#7>"),
        ("[Approve](https://evil.example) [a][b]", "[Approve]\u2060(https://evil.example) [a]\u2060[b]"),
        ("a[0] (x) < 5 & b @ c", "a[0] (x) < 5 & b @ c"),
    ],
)
async def test_a_text_mentions_nobody_and_hides_no_address(text: str, shown: str) -> None:
    async with Sink() as sink:
        await send(config_for(sink.url), title=text, body=text, fields=(Field(text, text),), actions=())
        await send(config_for(sink.url), title=text, body="", fields=(), actions=(Action(text, LINK),))
    first, second = (json.loads(received.body) for received in sink.received)
    assert (first["title"], first["message"]) == (shown, f"{shown}\n\n{shown}: {shown}")
    assert second["message"] == f"{shown}: {LINK}"


async def test_a_call_that_outlives_its_channel_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Sink() as sink:
        sink.silent = True
        async with opened(APPRISE, config_for(sink.url)) as channel:
            task = asyncio.create_task(channel.send(sample_message()))
            await sink.arrived.wait()
            task.cancel()
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("apprise")]
    assert threads
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert "a-secret-in-the-path" not in caplog.text
    assert not logging.getLogger("urllib3.connectionpool").filters


async def test_an_operator_may_have_long_texts_split() -> None:
    async with Sink() as sink:
        split = AppriseConfig(urls=(Secret(sink.url.replace("http", "json") + "/?overflow=split"),))
        await send(split, actions=(Action("Open", "https://acme.example/" + "x" * 40_000),))
    assert len(sink.received) > 1


async def test_a_url_that_apprise_does_not_know_is_named_by_its_number() -> None:
    config = config_for("http://127.0.0.1:9", "nonsense://a-long-secret-token")
    with pytest.raises(ValueError, match=r"urls\[1\]") as caught:
        await send(config)
    assert "a-long-secret-token" not in str(caught.value)


@pytest.mark.parametrize("urls", [(), (Secret("no-url"),)])
def test_a_config_without_urls_is_refused(urls: tuple[Secret, ...]) -> None:
    with pytest.raises(ValueError, match=r"at least one URL|scheme://") as caught:
        AppriseConfig(urls=urls)
    assert "no-url" not in str(caught.value)
