"""The webhook channel against a real HTTP server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from types import MappingProxyType
from typing import Any

import pytest
from notifyd_webhook import WebhookConfig, notifyd_channel_types, payload

from notifyd.plugin import PermanentError, Reason, Secret, TransientError
from notifyd.testing import NOW, Received, Reply, Sink, opened, sample_message

(WEBHOOK,) = notifyd_channel_types()
KEYS = (b"k" * 32, b"r" * 32)
SECRETS = tuple(Secret("whsec_" + base64.b64encode(key).decode()) for key in KEYS)


def expected_signature(key: bytes, request: Received) -> str:
    """Written from the specification, not with the code under test."""
    signed = (
        f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    )
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


async def send(config: WebhookConfig, **changes: object) -> None:
    async with opened(WEBHOOK, config) as channel:
        await channel.send(sample_message(**changes))


async def test_the_body_is_the_documented_json() -> None:
    async with Sink() as sink:
        await send(WebhookConfig(url=Secret(sink.url + "/hook?x=1")))
    (request,) = sink.received
    message = sample_message()
    assert (request.method, request.path) == ("POST", "/hook?x=1")
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {
        "type": "pack.approval.requested",
        "timestamp": "2026-09-21T14:00:00Z",
        "data": {
            "event": message.event,
            "message": {"title": message.title, "body": message.body, "level": "warning", "locale": "en"},
            "links": [{"label": message.actions[0].label, "url": message.actions[0].url}],
        },
    }


async def test_with_a_content_type_the_body_is_the_templates_own() -> None:
    async with Sink() as sink:
        config = WebhookConfig(
            url=Secret(sink.url), secret=SECRETS[0], content_type="text/x-alert; charset=utf-8"
        )
        await send(config, body="ALERT grün\nend")
    (request,) = sink.received
    assert request.headers["content-type"] == "text/x-alert; charset=utf-8"
    assert request.body == "ALERT grün\nend".encode()
    assert request.headers["webhook-signature"] == expected_signature(KEYS[0], request)


async def test_without_a_secret_the_id_and_time_are_sent_and_no_signature() -> None:
    async with Sink() as sink:
        await send(WebhookConfig(url=Secret(sink.url)))
    headers = sink.received[0].headers
    assert headers["webhook-id"] == sample_message().id
    assert headers["webhook-timestamp"] == str(NOW // 1_000_000)
    assert "webhook-signature" not in headers


async def test_one_secret_signs_as_standard_webhooks_says() -> None:
    async with Sink() as sink:
        await send(WebhookConfig(url=Secret(sink.url), secret=SECRETS[0]))
    (request,) = sink.received
    assert request.headers["webhook-signature"] == expected_signature(KEYS[0], request)


async def test_during_rotation_each_secret_signs() -> None:
    async with Sink() as sink:
        await send(WebhookConfig(url=Secret(sink.url), secrets=SECRETS))
    (request,) = sink.received
    expected = [expected_signature(key, request) for key in KEYS]
    assert request.headers["webhook-signature"].split(" ") == expected


async def test_configured_headers_and_the_correlation_id_are_sent() -> None:
    async with Sink() as sink:
        headers = {"Authorization": Secret("Bearer abc"), "X-Team": Secret("payments")}
        await send(WebhookConfig(url=Secret(sink.url), headers=headers))
    sent = sink.received[0].headers
    assert (sent["authorization"], sent["x-team"]) == ("Bearer abc", "payments")
    assert sent["x-correlation-id"] == "c0ffee-42"


@pytest.mark.parametrize("correlation", ["a\r\nX-Evil: 1", "", "x" * 201, "ü", 7 * " "])
async def test_a_correlation_id_that_no_header_can_carry_is_left_out(correlation: str) -> None:
    async with Sink() as sink:
        await send(WebhookConfig(url=Secret(sink.url)), event={"correlationId": correlation})
    assert {"x-correlation-id", "x-evil"}.isdisjoint(name.lower() for name in sink.received[0].headers)


def test_a_cloud_event_without_an_action_is_named_by_its_kind() -> None:
    assert json.loads(payload(sample_message(event={"kind": "task.done"})))["type"] == "task.done"


def test_a_message_about_no_event_has_a_type_and_no_time() -> None:
    body = json.loads(payload(sample_message(event={})))
    assert (body["type"], body["timestamp"]) == ("notification", None)


@pytest.mark.parametrize(
    "data",
    [
        {
            "stage": "grün 😀",
            "n": 2**53,
            "ok": True,
            "none": None,
            "list": ["a", {"b": []}],
            "ctrl": "\x01\x7f\u2028",
        },
        {"floats": [1e16, 1e-7, 1.5, 12345678901234567890.0]},
        {"large": 2**70, "lone": "\ud800"},
        MappingProxyType({"read": ("only", "pair")}),
        {1: "a name that is no text"},
    ],
)
def test_the_body_is_compact_json_of_whatever_an_event_holds(data: Any) -> None:
    message = sample_message(event={"kind": "task.done", "data": data})
    body = payload(message)
    assert body.startswith(b'{"type":"task.done","timestamp":')
    event = json.dumps(message.event, default=dict).replace("\\ud800", "?")
    assert json.loads(body)["data"]["event"] == json.loads(event)


async def test_a_redirect_is_not_followed_and_is_permanent() -> None:
    async with Sink() as sink:
        sink.reply = Reply(307, headers={"Location": "/elsewhere"})
        with pytest.raises(PermanentError) as caught:
            await send(WebhookConfig(url=Secret(sink.url + "/hook")))
    assert caught.value.status == 307
    assert [request.path for request in sink.received] == ["/hook"]


async def test_a_throttled_webhook_says_when_to_come_back() -> None:
    async with Sink() as sink:
        sink.reply = Reply(429, headers={"Retry-After": "30"})
        with pytest.raises(TransientError) as caught:
            await send(WebhookConfig(url=Secret(sink.url)))
    assert (caught.value.reason, caught.value.retry_after) == (Reason.THROTTLED, 30.0)


URL = Secret("https://hooks.acme.example/x")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"url": Secret("ftp://acme.example/x")}, "not an http or https URL"),
        ({"url": Secret("https:///x")}, "not an http or https URL"),
        ({"url": Secret("https://acme.example:99999/x")}, "not an http or https URL"),
        ({"url": Secret("")}, "not an http or https URL"),
        ({"url": URL, "secret": Secret("hunter2")}, "whsec_"),
        ({"url": URL, "secret": Secret("")}, "whsec_"),
        ({"url": URL, "secrets": (SECRETS[0], Secret("whsec_!"))}, "base64"),
        ({"url": URL, "secret": SECRETS[0], "secrets": SECRETS}, "exclude each other"),
        ({"url": URL, "content_type": "text"}, "not a media type"),
        ({"url": URL, "content_type": "text/plain\r\nX-Evil: 1"}, "not a media type"),
        ({"url": URL, "headers": {"Webhook-Id": Secret("1")}}, "set by the channel"),
        ({"url": URL, "headers": {"X Y": Secret("1")}}, "not a header name"),
        ({"url": URL, "headers": {"X-Y": Secret("1\r\nX-Z: 2")}}, "cannot carry"),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_its_reason(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        WebhookConfig(**options)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("content_type", "own"),
    [
        (None, None),
        ("text/plain", None),
        ("Text/Plain; charset=utf-8", None),
        ("application/json", "application/json"),
        ("Text/XML; charset=utf-8", "text/xml"),
    ],
)
def test_a_body_that_is_no_plain_text_is_the_templates_own(content_type: str | None, own: str | None) -> None:
    (kind,) = notifyd_channel_types()
    config = WebhookConfig(url=Secret("https://hook.example/"), content_type=content_type)
    assert kind.own_body is not None
    assert kind.own_body(config) == own
