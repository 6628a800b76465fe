"""The telegram channel: its HTML and its length, and the Bot API's recorded answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest
from aioresponses import aioresponses
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from notifyd_telegram import Answers, TelegramConfig, notifyd_channel_types, payload

from notifyd.plugin import (
    Action,
    Button,
    Field,
    Message,
    PermanentError,
    Reason,
    Secret,
    TransientError,
    clean,
    one_line,
    units,
)
from notifyd.testing import (
    HOSTILE,
    LINK,
    AnsweringConformance,
    EditingConformance,
    HttpConformance,
    Received,
    RecordedResponse,
    Reply,
    opened,
    sample_message,
)

(TELEGRAM,) = notifyd_channel_types()
TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
CHAT = "-1001234567890"
URL = f"https://api.telegram.org/bot{TOKEN}/sendMessage"


class Reader(HTMLParser):
    """Reads Telegram's HTML strictly: known tags only, each closed, and collects the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.links: list[str | None] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("b", "a")
        self.open.append(tag)
        self.links += [value for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class TestTelegram(HttpConformance):
    channel_type = TELEGRAM
    throttled = Reply(429, json.dumps({"ok": False, "error_code": 429, "parameters": {"retry_after": 7}}))

    def config(self, url: str) -> TelegramConfig:
        return TelegramConfig(bot_token=Secret(TOKEN), chat_id=CHAT, api_url=Secret(url))

    def readable(self, received: Received) -> str:
        return seen(json.loads(received.body))


def seen(body: dict[str, Any]) -> str:
    """The text, and where its buttons lead."""
    buttons = body.get("reply_markup", {}).get("inline_keyboard", [])
    return "\n".join([Reader(body["text"]).text, *(one.get("url", "") for row in buttons for one in row)])


PRESSED = {
    "update_id": 41,
    "callback_query": {"id": "q", "from": {"id": 5550123}, "data": f"a:{AnsweringConformance.ref}"},
}


class TestPolling(TestTelegram, AnsweringConformance, EditingConformance):
    accepted = Reply(200, json.dumps({"ok": True, "result": {"message_id": 7, "text": "x" * 9000}}))
    told = Reply(200, json.dumps({"ok": True, "result": [PRESSED]}))

    def config(self, url: str) -> TelegramConfig:
        return evolve(super().config(url), answers=Answers.POLL)

    def readable(self, received: Received) -> str:
        return super().readable(received) + "".join(labels(json.loads(received.body)))


class TestCalled(AnsweringConformance):
    channel_type = TELEGRAM
    covered = frozenset()  # Telegram's proof is a secret in a header, and nothing else

    def config(self, url: str) -> TelegramConfig:
        shared = TelegramConfig(bot_token=Secret(TOKEN), chat_id=CHAT, api_url=Secret(url))
        return evolve(shared, answers=Answers.WEBHOOK, webhook_secret=Secret("a-secret-token"))

    def call(self) -> tuple[Mapping[str, str], bytes]:
        return {"x-telegram-bot-api-secret-token": "a-secret-token"}, json.dumps(PRESSED).encode()

    def readable(self, received: Received) -> str:
        body = json.loads(received.body)
        return seen(body) + "".join(labels(body))


def labels(body: dict[str, Any]) -> list[str]:
    """What stands on the buttons."""
    keyboard = body.get("reply_markup", {}).get("inline_keyboard", [])
    return [button["text"] for row in keyboard for button in row]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"answers": Answers.WEBHOOK}, "go together"),
        ({"webhook_secret": Secret("s")}, "go together"),
        ({"answers": Answers.WEBHOOK, "webhook_secret": Secret("two words")}, "not a secret token"),
    ],
)
def test_a_webhook_has_a_secret_that_telegram_takes(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TelegramConfig(bot_token=Secret(TOKEN), **options)


def test_what_a_button_hands_back_is_short_and_holds_no_link() -> None:
    body = accepted(sample_message(buttons=(Button("Approve", "approved", "f" * 32),)))
    (first, second) = body["reply_markup"]["inline_keyboard"]
    assert first == [{"text": "Approve", "callback_data": "a:" + "f" * 32}]
    assert second == [{"text": "Review and decide", "url": LINK}]


@pytest.mark.parametrize("ref", ["", "7", "-1001/", "-1001/x", "?/7"])
async def test_what_names_no_message_is_not_changed(ref: str) -> None:
    async with opened(TELEGRAM, TelegramConfig(bot_token=Secret(TOKEN), chat_id=CHAT)) as channel:
        with pytest.raises(PermanentError, match="names no message"):
            await channel.edit(ref, sample_message())  # type: ignore[attr-defined]


async def test_a_message_that_says_so_already_is_as_it_should_be() -> None:
    said = "Bad Request: message is not modified: specified new message content is exactly the same"
    url = URL.replace("sendMessage", "editMessageText")
    with aioresponses() as recorded:
        refusal = {"ok": False, "error_code": 400, "description": said}
        recorded.post(url, status=400, payload=refusal, response_class=RecordedResponse)
        async with opened(TELEGRAM, TelegramConfig(bot_token=Secret(TOKEN), chat_id=CHAT)) as channel:
            receipt = await channel.edit(f"{CHAT}/7", sample_message())  # type: ignore[attr-defined]
    assert receipt.detail == "it says so already"


def accepted(message: Message) -> dict[str, Any]:
    body = payload(message, CHAT)
    assert 0 < units(Reader(body["text"]).text) <= 4096  # the limit is that of the text without its tags
    return body


def test_a_message_becomes_html_with_link_buttons() -> None:
    message = sample_message()
    assert accepted(message) == {
        "chat_id": CHAT,
        "parse_mode": "HTML",
        "link_preview_options": {"is_disabled": True},
        "text": f"⚠️ <b>{message.title}</b>\n\n{message.body}\n\n"
        "<b>Environment</b>: production\n<b>Requested by</b>: ci@acme.example",
        "reply_markup": {"inline_keyboard": [[{"text": "Review and decide", "url": LINK}]]},
    }


async def test_without_a_chat_of_its_own_it_writes_to_each_recipient() -> None:
    config = TelegramConfig(bot_token=Secret(TOKEN))
    assert callable(TELEGRAM.personal)
    assert (TELEGRAM.personal(config), TELEGRAM.personal(evolve(config, chat_id=CHAT))) == (True, False)
    with aioresponses() as recorded:
        recorded.post(URL, payload={"ok": True}, response_class=RecordedResponse)
        async with opened(TELEGRAM, config) as channel:
            await channel.send(sample_message(recipient="5550123"))
            with pytest.raises(PermanentError) as caught:
                await channel.send(sample_message(recipient="alice@acme.example"))
        (call,) = next(iter(recorded.requests.values()))
    assert caught.value.reason is Reason.NOT_FOUND
    assert json.loads(call.kwargs["data"])["chat_id"] == "5550123"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_no_tag(text: str) -> None:
    fields, actions = (Field(text, text),), (Action(text, LINK),)
    accepted(sample_message(title=text, body=text, fields=fields, actions=actions))


LINKED = re.compile(r"(?<!\w)@\w{2,}|(?<![\w/<>])/\w+|(?<!\w)[#$]\w+")
"""What a client makes a link of, by Telegram's page on message entities: mention, command, hashtag and cashtag."""
JOINER = "\u2060"

pieces = st.sampled_from(
    [
        *"<>&\"'*_~`|[]()\\@#$/!.:-+ \na1_",
        *(
            "<b>",
            "</b>",
            '<a href="https://evil.example">',
            "&lt;",
            "&amp;amp;",
            "<tg-spoiler>",
            "[x](tg://user?id=1)",
        ),
        *(
            "@alice",
            "/stop",
            "/stop@bot",
            "#tag",
            "$USD",
            "ci@acme.example",
            "**bold**",
            "||spoiler||",
            "漢字",
            "👩‍👩‍👧",
        ),
    ]
)
texts = st.lists(pieces, max_size=6).map("".join)
names = st.lists(pieces, max_size=2).map("".join)


@settings(max_examples=100, deadline=None)
@given(title=texts, body=texts, name=names, value=texts)
@example('<a href="https://evil.example">Approve</a>', "@alice /stop@bot (#tag)", "&lt;b&gt;", "$USD")
def test_text_arrives_as_it_was_written_with_no_tag_and_no_link(
    title: str, body: str, name: str, value: str
) -> None:
    read = Reader(accepted(sample_message(title=title, body=body, fields=(Field(name, value),)))["text"])
    blocks = (
        f"⚠️ {one_line(title)}" if one_line(title) else "⚠️",
        clean(body).strip(),
        f"{one_line(name)}: {one_line(value)}",
    )
    assert read.text.replace(JOINER, "") == "\n\n".join(block for block in blocks if block)
    assert read.links == []
    assert not LINKED.search(read.text)


@pytest.mark.parametrize(
    "address", ["https://a.example/@me/#top", "http://b-c.example:8080/x_y?z=/1&at=@2", "ci@acme.example"]
)
def test_an_address_in_a_text_stays_as_it_is(address: str) -> None:
    body = f"See {address} (or {address}), @alice."
    read = Reader(accepted(sample_message(body=body, fields=()))["text"])
    assert read.text.count(address) == 2
    assert f"@{JOINER}alice" in read.text


def test_the_address_of_a_link_stays_as_it_is() -> None:
    url = "http://localhost:8686/@me/approvals"
    assert accepted(sample_message(actions=(Action("@x", url),)))["text"].endswith(f"@{JOINER}x: {url}")


def test_a_long_body_is_cut_at_a_word_and_ends_in_a_link_to_the_whole() -> None:
    body = accepted(sample_message(body="fish & chips " * 1000))
    read = Reader(body["text"])
    assert "… Review and decide\n\nEnvironment: production" in read.text
    assert read.links == [LINK]


def test_everything_beyond_telegrams_limits_still_passes() -> None:
    words = '<fish> & "chips" 👩‍👩‍👧 ' * 1000
    body = accepted(
        sample_message(
            title=words,
            body=words,
            fields=tuple(Field(f"{number} {words}", words) for number in range(100)),
            actions=tuple(Action(words, f"{LINK}{number}") for number in range(100)),
        )
    )
    assert "reply_markup" not in body
    assert f"… (+{100 - len(Reader(body['text']).links)})" in body["text"]


def test_a_digest_of_twelve_approvals_shows_twelve_links() -> None:
    actions = tuple(Action(f"Approval needed: run {n}", f"{LINK}{'x' * 300}{n:02}") for n in range(12))
    body = accepted(sample_message(body="12 requests wait.", actions=actions))
    assert Reader(body["text"]).links == [action.url for action in actions]
    assert "(+" not in body["text"]


def test_a_message_of_nothing_still_passes() -> None:
    assert "reply_markup" not in accepted(sample_message(title="", body="", fields=(), actions=(), event={}))


def test_links_that_cannot_be_buttons_are_all_in_the_text_or_counted() -> None:
    five = tuple(Action(f"Link {n}", f"http://notifyd:8686/approvals/{n}" + "x" * 300) for n in range(5))
    text = payload(sample_message(body="word " * 1000, actions=five), CHAT)["text"]
    assert [action.url in text for action in five] == [True] * 5
    assert len(text) <= 4096
    long = tuple(Action(f"Link {n}", f"http://notifyd:8686/{n}" + "x" * 700) for n in range(4))
    assert payload(sample_message(actions=long), CHAT)["text"].endswith("… (+2)")


@pytest.mark.parametrize("url", ["http://localhost:8686/approvals/x", "http://notifyd/approvals/x"])
def test_a_link_that_telegram_would_refuse_as_a_button_is_written_out(url: str) -> None:
    body = accepted(sample_message(actions=(Action("Review <now>", url),)))
    assert "reply_markup" not in body
    assert body["text"].endswith(f"\n\nReview &lt;now&gt;: {url}")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://[::1", "/approvals/x"])
def test_what_is_no_link_is_no_button(url: str) -> None:
    assert "reply_markup" not in accepted(sample_message(actions=(Action("x", url),)))


async def answer(**recorded: Any) -> None:
    with aioresponses() as telegram:
        telegram.post(URL, response_class=RecordedResponse, **recorded)
        async with opened(TELEGRAM, TelegramConfig(bot_token=Secret(TOKEN), chat_id=CHAT)) as channel:
            await channel.send(sample_message())


async def test_telegram_says_ok() -> None:
    await answer(status=200, payload={"ok": True, "result": {"message_id": 7}})


@pytest.mark.parametrize(
    ("status", "description", "reason"),
    [
        (400, "Bad Request: chat not found", Reason.REJECTED),
        (400, "Bad Request: can't parse entities: Unsupported start tag", Reason.REJECTED),
        (401, "Unauthorized", Reason.UNAUTHORIZED),
        (403, "Forbidden: bot was blocked by the user", Reason.UNAUTHORIZED),
        (403, "Forbidden: bot was kicked from the supergroup chat", Reason.UNAUTHORIZED),
        (404, "Not Found", Reason.NOT_FOUND),
    ],
)
async def test_telegrams_own_errors_are_permanent_and_named(
    status: int, description: str, reason: Reason
) -> None:
    with pytest.raises(PermanentError) as caught:
        await answer(status=status, payload={"ok": False, "error_code": status, "description": description})
    assert caught.value.detail == f"the receiver answered {status}: {description}"
    assert caught.value.reason is reason


async def test_of_a_group_that_has_become_a_supergroup_the_new_chat_id_is_told() -> None:
    body = {
        "ok": False,
        "error_code": 400,
        "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": {"migrate_to_chat_id": -1001234567890},
    }
    with pytest.raises(PermanentError, match=r"supergroup chat \(its chat id is now -1001234567890\)"):
        await answer(status=400, payload=body)


@pytest.mark.parametrize(
    ("follows", "replies"), [(f"{CHAT}/7", True), ("-1/7", False), (f"{CHAT}/x", False), ("", False)]
)
async def test_news_replies_to_the_message_it_follows_in_the_same_chat(follows: str, replies: bool) -> None:
    with aioresponses() as telegram:
        telegram.post(URL, payload={"ok": True}, response_class=RecordedResponse)
        async with opened(TELEGRAM, TelegramConfig(bot_token=Secret(TOKEN), chat_id=CHAT)) as channel:
            await channel.send(sample_message(follows=follows))
        ((_, (request,)),) = telegram.requests.items()
    reply = json.loads(request.kwargs["data"]).get("reply_parameters")
    assert reply == ({"message_id": 7, "allow_sending_without_reply": True} if replies else None)


async def test_being_rate_limited_says_when_to_come_back() -> None:
    body = {
        "ok": False,
        "error_code": 429,
        "description": "Too Many Requests: retry after 31",
        "parameters": {"retry_after": 31},
    }
    with pytest.raises(TransientError) as caught:
        await answer(status=429, payload=body)
    assert (caught.value.reason, caught.value.retry_after) == (Reason.THROTTLED, 31.0)


async def test_ok_is_telegrams_verdict_where_it_comes_with_status_200() -> None:
    body = {"ok": False, "error_code": 429, "description": "slow", "parameters": {"retry_after": 31}}
    with pytest.raises(TransientError) as caught:
        await answer(status=200, payload=body)
    assert (caught.value.reason, caught.value.status, caught.value.retry_after) == (
        Reason.THROTTLED,
        429,
        31.0,
    )


@pytest.mark.parametrize("code", [None, "400", 200, 7, True])
async def test_not_ok_without_a_sensible_code_is_a_refusal(code: object) -> None:
    with pytest.raises(PermanentError) as caught:
        await answer(status=200, payload={"ok": False, "error_code": code})
    assert (caught.value.reason, caught.value.status) == (Reason.REJECTED, 400)


@pytest.mark.parametrize("body", ["", "ok", '{"ok": fal', "[false]"])
async def test_a_body_that_does_not_come_leaves_status_200_as_the_verdict(body: str) -> None:
    await answer(status=200, body=body)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bot_token": Secret("no-token")}, "not a bot token"),
        ({"bot_token": Secret(TOKEN + "/getMe?")}, "not a bot token"),
        ({"chat_id": "general"}, "not a chat id"),
        ({"chat_id": ""}, "not a chat id"),
        ({"api_url": Secret("api.telegram.org")}, "not an http or https URL"),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_its_reason(
    options: dict[str, Any], complaint: str
) -> None:
    right: dict[str, Any] = {"bot_token": Secret(TOKEN), "chat_id": CHAT}
    with pytest.raises(ValueError, match=complaint) as caught:
        TelegramConfig(**right | options)
    assert "no-token" not in str(caught.value)
