"""The google-chat channel: its card within Google Chat's limits, and Google's recorded answers."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from aioresponses import aioresponses
from notifyd_google_chat import GoogleChatConfig, notifyd_channel_types, payload, replying, thread_key

from notifyd.plugin import (
    Action,
    Field,
    Level,
    Message,
    PermanentError,
    Reason,
    Secret,
    TransientError,
    clean,
)
from notifyd.testing import (
    HOSTILE,
    LINK,
    HttpConformance,
    Received,
    RecordedResponse,
    opened,
    sample_message,
)

(CHAT,) = notifyd_channel_types()
QUERY = "key=AIzaSyDdI0hCZtE6vySjMm-WEfRq3CPzqKqqsHI&token=6pXe2mRb9d3yQ8Jv1nTz5kWc7%3D"
URL = f"https://chat.googleapis.com/v1/spaces/AAAAGCYeSRY/messages?{QUERY}"

REPLIES = "messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"


class TestGoogleChat(HttpConformance):
    channel_type = CHAT

    def config(self, url: str) -> GoogleChatConfig:
        return GoogleChatConfig(webhook_url=Secret(f"{url}/v1/spaces/AAAAGCYeSRY/messages?{QUERY}"))

    def readable(self, received: Received) -> str:
        return html.unescape(super().readable(received))


def accepted(message: Message) -> dict[str, Any]:
    """The card, after the limits of Google's documentation have been checked."""
    body = payload(message)
    assert len(body) <= 32_000
    (one,) = json.loads(body)["cardsV2"]
    assert one["cardId"]
    for section in one["card"].get("sections", []):
        assert 0 < len(section["widgets"]) <= 100
    card = one["card"]
    assert isinstance(card, dict)
    return card


def widgets(card: dict[str, Any], kind: str) -> list[Any]:
    return [
        widget[kind]
        for section in card.get("sections", [])
        for widget in section["widgets"]
        if kind in widget
    ]


def test_a_message_becomes_a_card_with_its_text_facts_and_buttons() -> None:
    message = sample_message()
    assert accepted(message) == {
        "header": {"title": f"⚠️ {message.title}"},
        "sections": [
            {
                "widgets": [
                    {"textParagraph": {"text": message.body}},
                    {"decoratedText": {"topLabel": "Environment", "text": "production", "wrapText": True}},
                    {
                        "decoratedText": {
                            "topLabel": "Requested by",
                            "text": "ci@acme.example",
                            "wrapText": True,
                        }
                    },
                    {
                        "buttonList": {
                            "buttons": [{"text": "Review and decide", "onClick": {"openLink": {"url": LINK}}}]
                        }
                    },
                ]
            }
        ],
    }
    assert json.loads(payload(message))["fallbackText"] == f"{message.title}\n{message.body}"


def test_each_level_has_a_mark() -> None:
    assert len({accepted(sample_message(level=level))["header"]["title"][0] for level in Level}) == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_it_is_written(text: str) -> None:
    card = accepted(sample_message(body=text, fields=(Field(text, text),), actions=(Action(text, LINK),)))
    (shown,) = widgets(card, "textParagraph")
    assert not re.search("[<>]", shown["text"])
    assert html.unescape(shown["text"]) == clean(text).strip()


def test_everything_beyond_the_limits_still_passes() -> None:
    words = "fish & <chips> " * 1000
    card = accepted(
        sample_message(
            title=words,
            body=words,
            fields=tuple(Field(f"{number} {words}", words) for number in range(100)),
            actions=tuple(Action(words, f"{LINK}{number}") for number in range(100)),
        )
    )
    texts = [one["text"] for one in widgets(card, "textParagraph")]
    assert texts[-1] == f"… (+{100 - sum('<a href=' in text for text in texts)})"


@pytest.mark.parametrize("mark", ["承", "😀", '"', "&"])
@pytest.mark.parametrize("count", [5, 400])
def test_what_takes_several_bytes_stays_within_the_limit_too(mark: str, count: int) -> None:
    card = accepted(
        sample_message(
            title=mark * 300,
            body=mark * 9000,
            fields=tuple(Field(mark * 300, mark * 900) for _ in range(60)),
            actions=tuple(Action(mark * 300, f"{LINK}{mark * 600}{number}") for number in range(count)),
        )
    )
    assert widgets(card, "textParagraph")


def test_a_digest_of_twelve_approvals_shows_twelve_links() -> None:
    actions = tuple(Action(f"Approval needed: run {n}", f"{LINK}?a=1&b={n:02}") for n in range(12))
    card = accepted(sample_message(actions=actions))
    shown = "\n".join(one["text"] for one in widgets(card, "textParagraph"))
    assert [html.unescape(url) for url in re.findall('<a href="([^"]+)">', shown)] == [
        one.url for one in actions
    ]


def test_a_message_of_nothing_still_passes() -> None:
    assert accepted(sample_message(title="", body="", fields=(), actions=(), event={})) == {
        "header": {"title": "⚠️ …"}
    }


async def answer(**recorded: Any) -> None:
    with aioresponses() as chat:
        chat.post(re.compile("https://chat.googleapis.com/.*"), response_class=RecordedResponse, **recorded)
        async with opened(CHAT, GoogleChatConfig(webhook_url=Secret(URL))) as channel:
            await channel.send(sample_message())
        (((_, url), (request,)),) = chat.requests.items()
        posted_to = str(url).partition("?")[2].split("&")  # which the recorder has put in its own order
        assert sorted(posted_to) == sorted([*QUERY.split("&"), REPLIES])
        assert request.kwargs["data"] == payload(sample_message())


def fault(code: int, status: str) -> dict[str, Any]:
    return {"status": code, "payload": {"error": {"code": code, "message": "of Google's", "status": status}}}


async def test_google_says_what_it_has_posted() -> None:
    await answer(status=200, payload={"name": "spaces/AAAAGCYeSRY/messages/MpXe2mRb9d", "text": ""})


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        (400, "INVALID_ARGUMENT", Reason.REJECTED),
        (401, "UNAUTHENTICATED", Reason.UNAUTHORIZED),
        (403, "PERMISSION_DENIED", Reason.UNAUTHORIZED),
        (404, "NOT_FOUND", Reason.NOT_FOUND),
    ],
)
async def test_googles_own_errors_are_permanent_and_named(code: int, status: str, reason: Reason) -> None:
    with pytest.raises(PermanentError) as caught:
        await answer(**fault(code, status))
    assert caught.value.detail == f"the receiver answered {code}: {status}: of Google's"
    assert caught.value.reason is reason


async def test_more_than_a_space_takes_is_transient() -> None:
    with pytest.raises(TransientError, match="RESOURCE_EXHAUSTED"):
        await answer(**fault(429, "RESOURCE_EXHAUSTED"))


def about(action: str, **changes: Any) -> dict[str, Any]:
    kind = "pack.policy" if action in ("hold", "released") else "pack.approval"
    named = {"tenant": {"id": "acme"}, "runId": "run-1", "approvalId": "deploy", "policy": {"id": "freeze"}}
    return {"kind": kind, "action": action, "round": 1, **named, **changes}


def test_news_of_an_approval_goes_below_its_request() -> None:
    keys = {thread_key(about(action)) for action in ("requested", "acknowledged", "expired", "resumed")}
    assert len(keys) == 1
    assert keys != {""}
    body = json.loads(payload(sample_message(event=about("updated"))))
    assert {body["thread"]["threadKey"]} == keys
    assert thread_key(about("requested", runId="run-2")) not in keys
    assert thread_key(about("requested", tenant={"id": "globex"})) not in keys


@pytest.mark.parametrize(
    "event", [about("requested", round=2), about("reminded"), {}, about("updated", runId=None)]
)
def test_what_asks_again_and_what_is_about_no_approval_stands_by_itself(event: dict[str, Any]) -> None:
    assert "thread" not in json.loads(payload(sample_message(event=event)))


def test_a_release_goes_below_its_hold_and_a_request_never_does() -> None:
    hold = thread_key(about("hold", round=0))
    assert hold == thread_key(about("released", round=0)) != ""
    assert hold not in (thread_key(about("requested")), thread_key(about("hold", policy={"id": "another"})))


@pytest.mark.parametrize(
    ("url", "posted"),
    [
        (URL, f"{URL}&{REPLIES}"),
        ("https://chat.example/messages", f"https://chat.example/messages?{REPLIES}"),
        (
            f"{URL}&messageReplyOption=REPLY_MESSAGE_OR_FAIL",
            f"{URL}&messageReplyOption=REPLY_MESSAGE_OR_FAIL",
        ),
    ],
)
def test_the_webhook_is_asked_to_reply_unless_its_url_says_how(url: str, posted: str) -> None:
    assert replying(Secret(url)).reveal() == posted


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        GoogleChatConfig(webhook_url=Secret("spaces/AAAAGCYeSRY"))
