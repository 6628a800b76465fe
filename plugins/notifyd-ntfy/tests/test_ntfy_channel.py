"""The ntfy channel: its message within ntfy's limits, and the answers of its server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from notifyd_ntfy import NtfyConfig, notifyd_channel_types, payload, request

from notifyd.plugin import Action, Field, Level, Message, PermanentError, Reason, Secret, TransientError
from notifyd.testing import HOSTILE, LINK, HttpConformance, Reply, Sink, opened, sample_message

(NTFY,) = notifyd_channel_types()
TOPIC = "releases-6pXe2mRb9d"
TOKEN = "tk_AgQdq7mVBoFD37zQVN29RhuMzNIz2"


def config(url: str, token: str | None = TOKEN) -> NtfyConfig:
    return NtfyConfig(topic=Secret(TOPIC), url=Secret(url), token=Secret(token) if token else None)


class TestNtfy(HttpConformance):
    channel_type = NTFY

    def config(self, url: str) -> NtfyConfig:
        return config(url)


def accepted(message: Message) -> dict[str, Any]:
    """The message, after the limits of ntfy's documentation have been checked."""
    sent = request(TOPIC, message)
    assert len(sent) <= 2 * 4096  # beyond it the server refuses the request
    body: dict[str, Any] = json.loads(sent)
    assert body.pop("topic") == TOPIC
    assert (
        0 < len(body["message"].encode()) < 4096
    )  # with 4,096 bytes it is a file, which most servers refuse
    assert len(body["actions"]) <= 3
    assert 1 <= body["priority"] <= 5
    return body


def test_a_message_becomes_a_title_a_text_with_its_facts_and_a_button() -> None:
    message = sample_message()
    assert accepted(message) == {
        "title": message.title,
        "message": f"{message.body}\n\nEnvironment: production\nRequested by: ci@acme.example",
        "priority": 4,
        "tags": ["warning"],
        "actions": [{"action": "view", "label": "Review and decide", "url": LINK}],
        "click": LINK,
    }


def test_each_level_has_a_tag_of_its_own() -> None:
    assert len({accepted(sample_message(level=level))["tags"][0] for level in Level}) == 4


@pytest.mark.parametrize("text", [*HOSTILE, "漢" * 5000, "👩‍👩‍👧" * 2000, "word " * 5000])
def test_any_text_stays_within_the_limits_and_is_not_changed(text: str) -> None:
    fields, actions = tuple(Field(text, text) for _ in range(30)), (Action(text, LINK),)
    accepted(sample_message(title=text, body=text, fields=fields, actions=actions))
    assert accepted(sample_message(body="*a* <b>", fields=()))["message"] == "*a* <b>"


@pytest.mark.parametrize("text", ["漢字", "😀 ", '\\"', "\n"])
def test_a_long_text_in_any_script_leaves_room_for_the_buttons(text: str) -> None:
    fields = tuple(Field(text * 20, text * 200) for _ in range(40))
    actions = tuple(Action(text * 40, LINK + "x" * 900) for _ in range(3))
    body = accepted(sample_message(title=text * 200, body=text * 5000, fields=fields, actions=actions))
    assert [action["url"] for action in body["actions"]] == [action.url for action in actions]
    assert "\\u" not in request(TOPIC, sample_message(body="漢字")).decode()


def test_a_link_too_long_for_a_button_is_in_the_text() -> None:
    actions = (Action("Decide", LINK), Action("Run", "https://acme.example/" + "x" * 1500))
    body = accepted(sample_message(actions=actions))
    assert body["actions"] == []
    assert all(action.url in body["message"] for action in actions)


def test_a_digest_of_twelve_approvals_shows_twelve_links_and_counts_what_does_not_fit() -> None:
    actions = tuple(Action(f"Run {n}", f"{LINK}{n:02}") for n in range(12))
    body = accepted(sample_message(body="word " * 2000, actions=actions))
    assert body["actions"] == []
    assert [action.url in body["message"] for action in actions] == [True] * 12
    many = accepted(sample_message(actions=tuple(Action(f"Run {n}", LINK + "x" * 300) for n in range(40))))
    assert many["message"].endswith(f"… (+{40 - many['message'].count(LINK)})")


def test_a_message_of_nothing_still_passes() -> None:
    body = accepted(sample_message(title="", body="", fields=(), actions=(), event={}))
    assert body["message"] == "…"


async def said(status: int, error: dict[str, Any]) -> None:
    async with Sink() as sink:
        sink.reply = Reply(status, json.dumps(error))
        async with opened(NTFY, config(sink.url)) as channel:
            try:
                await channel.send(sample_message())
            finally:
                (received,) = sink.received
                assert json.loads(received.body) == {"topic": TOPIC, **payload(sample_message())}
                assert received.headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_published_message_is_sent() -> None:
    await said(200, {"id": "sPs71M8A2T", "time": 1643935928, "event": "message", "topic": TOPIC})


async def test_ntfys_own_errors_are_named() -> None:
    with pytest.raises(PermanentError, match="403: forbidden") as refused:
        await said(403, {"code": 40301, "http": 403, "error": "forbidden"})
    assert refused.value.reason is Reason.UNAUTHORIZED
    with pytest.raises(TransientError, match="limit reached: too many requests"):
        await said(429, {"code": 42901, "http": 429, "error": "limit reached: too many requests"})


async def test_no_token_no_header() -> None:
    async with Sink() as sink, opened(NTFY, config(sink.url, None)) as channel:
        await channel.send(sample_message())
    assert "authorization" not in {name.lower() for name in sink.received[0].headers}


@pytest.mark.parametrize("topic", ["", "a/b", "x" * 65, "a b", "ä"])
def test_a_topic_that_is_none_is_refused_without_being_shown(topic: str) -> None:
    with pytest.raises(ValueError, match="not a topic") as refused:
        NtfyConfig(topic=Secret(topic))
    assert not topic or topic not in str(refused.value).replace("not a topic", "")


def test_a_token_that_no_header_carries_is_refused() -> None:
    with pytest.raises(ValueError, match="not an access token"):
        NtfyConfig(topic=Secret(TOPIC), token=Secret("a\nb"))
