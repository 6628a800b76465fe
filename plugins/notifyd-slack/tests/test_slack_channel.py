"""The slack channel: its payload under Slack's own validation, and Slack's recorded answers."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from aioresponses import aioresponses
from hypothesis import assume, given
from hypothesis import strategies as st
from notifyd_slack import SlackConfig, escape, notifyd_channel_types, payload
from notifyd_slack.answers import Act, act_of, dialog
from notifyd_slack.payload import action_id_of
from slack_sdk.models.blocks import ActionsBlock, Block, SectionBlock
from slack_sdk.models.views import View as ViewOfSlack

from notifyd.plugin import (
    SECOND,
    Action,
    Button,
    Field,
    Level,
    Message,
    PermanentError,
    Reaction,
    Reason,
    Receipt,
    Secret,
    TransientError,
    clean,
    one_line,
)
from notifyd.testing import (
    HOSTILE,
    LINK,
    NOW,
    AnsweringConformance,
    EditingConformance,
    HttpConformance,
    RecordedResponse,
    Reply,
    opened,
    sample_message,
)

(SLACK,) = notifyd_channel_types()
URL = "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"


class TestSlack(HttpConformance):
    channel_type = SLACK

    def config(self, url: str) -> SlackConfig:
        return SlackConfig(webhook_url=Secret(url + "/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx"))


BOT: dict[str, Any] = {"bot_token": Secret("xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy")}
APP_TOKEN = Secret("xapp-1-A0123456789-1234567890123-0123456789abcdef0123456789abcdef")
SIGNING_SECRET = Secret("8f742231b10e8888abcd99ddd56785a5")
CHANNEL = "C0123456789"
POST_MESSAGE = "https://slack.com/api/chat.postMessage"
SENT = {"ok": True, "channel": CHANNEL, "ts": "1503435956.000247", "message": {"text": "x" * 9000}}
BUTTONS = (Button("Approve", "approved", "f" * 32), Button("Reject", "rejected", "f" * 32))


class TestBot(HttpConformance, EditingConformance):
    channel_type = SLACK
    accepted = Reply(200, json.dumps(SENT))

    def config(self, url: str) -> SlackConfig:
        return SlackConfig(**BOT, channel_id=CHANNEL, api_url=Secret(url))


class TestSocketMode(AnsweringConformance):
    channel_type = SLACK

    def config(self, url: str) -> SlackConfig:
        return SlackConfig(**BOT, channel_id=CHANNEL, app_token=APP_TOKEN, api_url=Secret(url))


class TestCalled(AnsweringConformance):
    channel_type = SLACK

    def config(self, url: str) -> SlackConfig:
        return SlackConfig(**BOT, signing_secret=SIGNING_SECRET, channel_id=CHANNEL, api_url=Secret(url))

    def call(self) -> tuple[Mapping[str, str], bytes]:
        pressed = {
            "type": "block_actions",
            "user": {"id": "U0ALICE01"},
            "channel": {"id": CHANNEL},
            "actions": [{"action_id": action_id_of("approved"), "value": self.ref}],
        }
        body, at = urlencode({"payload": json.dumps(pressed)}).encode(), str(NOW // SECOND)
        signed = hmac.new(SIGNING_SECRET.reveal().encode(), b"v0:%b:%b" % (at.encode(), body), hashlib.sha256)
        return {"x-slack-request-timestamp": at, "x-slack-signature": f"v0={signed.hexdigest()}"}, body


def accepted(message: Message) -> dict[str, Any]:
    """The payload, after each of its blocks has passed the checks of Slack's SDK."""
    body = payload(message)
    for block in body["blocks"]:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.validate_json()
        if isinstance(parsed, ActionsBlock):
            for element in parsed.elements:
                element.validate_json()
        if isinstance(parsed, SectionBlock):
            for text in parsed.fields or []:
                assert len(text.text) <= 2000
    assert len(body["blocks"]) <= 50
    assert sum(len(text) for text in _texts_in(body["blocks"])) <= 13_000, "msg_blocks_too_long"
    assert 0 < len(body["text"]) <= 3000
    return body


def _texts_in(blocks: list[dict[str, Any]]) -> list[str]:
    """What is written in blocks, but for the labels of buttons."""
    written = [block["text"] for block in blocks if "text" in block]
    written += [text for block in blocks for text in block.get("fields", ())]
    return [text["text"] for text in written]


def blocks_of(body: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [block for block in body["blocks"] if block["type"] == kind]


def test_a_message_becomes_header_section_fields_context_and_link_buttons() -> None:
    message = sample_message()
    body = accepted(message)
    assert [block["type"] for block in body["blocks"]] == [
        "header",
        "section",
        "section",
        "context",
        "actions",
    ]
    header, text, fields, context, actions = body["blocks"]
    assert header["text"] == {"type": "plain_text", "text": message.title, "emoji": False}
    assert text["text"]["text"] == message.body
    assert [field["text"] for field in fields["fields"]] == [
        "*Environment*\nproduction",
        "*Requested by*\nci@acme.example",
    ]
    assert context["elements"][0]["text"] == "⚠️ · acme · run-0042 · deploy-prod"
    (button,) = actions["elements"]
    assert (button["text"]["text"], button["url"]) == ("Review and decide", LINK)
    assert body["text"] == f"{message.title}\n{message.body}"
    assert (body["unfurl_links"], body["unfurl_media"]) == (False, False)


@pytest.mark.parametrize(
    ("level", "mark"), [(Level.INFO, "ℹ️"), (Level.SUCCESS, "✅"), (Level.WARNING, "⚠️"), (Level.ERROR, "❌")]
)
def test_each_level_has_a_mark(level: Level, mark: str) -> None:
    (context,) = blocks_of(accepted(sample_message(level=level)), "context")
    assert context["elements"][0]["text"].startswith(mark)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_no_mention_link_command_or_formatting(text: str) -> None:
    fields, actions = (Field(text, text),), (Action(text, LINK),)
    body = accepted(sample_message(title=text, body=text, fields=fields, actions=actions))
    header, section, _, context, _ = body["blocks"]
    shown = [header["text"], section["text"], *context["elements"]]
    assert {one["type"] for one in shown} == {"plain_text"}, "which Slack shows as it is"
    assert section["text"]["text"] == clean(text).strip()
    assert not {"<", ">"} & set(body["text"])
    assert body["mrkdwn"] is False


def escape_undone(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


@given(name=st.text(min_size=1, max_size=90), value=st.text(min_size=1, max_size=900))
def test_a_field_reads_as_it_was_written(name: str, value: str) -> None:
    """By Slack shows `plain_text` as it is, and `mrkdwn` without any mark once its entities are undone."""
    assume(one_line(name) and clean(value).strip())
    (facts,) = (b for b in payload(sample_message(fields=(Field(name, value),)))["blocks"] if "fields" in b)
    (shown,) = facts["fields"]
    text = shown["text"]
    if shown["type"] == "mrkdwn":
        text = escape_undone(text)
        assert text.startswith("*")
        text = text[1:].replace("*\n", "\n", 1)
        assert not set("*_~`") & set(text)
    assert text == f"{one_line(name)}\n{clean(value).strip()}"


def test_a_long_body_is_cut_at_a_word() -> None:
    body = accepted(sample_message(body="fish & chips " * 1000))
    (section,) = (block for block in blocks_of(body, "section") if "text" in block)
    assert section["text"]["text"].endswith(("fish…", "&…", "chips…"))
    assert blocks_of(body, "actions"), "the whole is behind a button"


def test_everything_beyond_slacks_limits_still_passes() -> None:
    words = "fish &lt; chips " * 1000
    body = accepted(
        sample_message(
            title=words,
            body=words,
            fields=tuple(Field(f"{number} {words}", words) for number in range(100)),
            actions=tuple(Action(words, f"{LINK}{number}") for number in range(100)),
        )
    )
    assert blocks_of(body, "actions") == []
    listed = [block["text"]["text"] for block in blocks_of(body, "section") if "text" in block][1:]
    assert listed[-1].endswith(f"… (+{100 - sum(text.count('• <') for text in listed)})")


@pytest.mark.parametrize("length", [10, 5000])
def test_as_many_facts_are_shown_as_all_blocks_together_may_hold(length: int) -> None:
    body = accepted(
        sample_message(body="b" * 9000, fields=tuple(Field("n", "v" * length) for _ in range(100)))
    )
    sections = [section["fields"] for section in blocks_of(body, "section") if "fields" in section]
    shown = sum(map(len, sections))
    assert shown == (40 if length == 10 else 6)


def test_a_digest_of_twelve_approvals_shows_twelve_links() -> None:
    actions = tuple(Action(f"Approval needed: run {n}", f"{LINK}{'x' * 300}{n:02}") for n in range(12))
    body = accepted(sample_message(body="12 requests wait.", actions=actions))
    texts = "\n".join(block["text"]["text"] for block in blocks_of(body, "section") if "text" in block)
    assert re.findall(r"• <([^|]+)\|Approval needed: run \d+>", texts) == [action.url for action in actions]
    assert "(+" not in texts


def test_a_time_is_shown_in_the_readers_own_zone() -> None:
    when = Field("Decide by", "5 November 2026, 10:30 CET", at=1_793_871_000_000_000)
    (facts,) = (b for b in blocks_of(accepted(sample_message(fields=(when,))), "section") if "fields" in b)
    shown = facts["fields"][0]["text"]
    assert shown == "*Decide by*\n<!date^1793871000^{date_pretty} {time}|5 November 2026, 10:30 CET>"


def test_a_message_of_nothing_still_passes() -> None:
    body = accepted(sample_message(title="", body="", fields=(), actions=(), event={}))
    assert [block["type"] for block in body["blocks"]] == ["context"]


def test_a_link_longer_than_a_button_may_have_is_left_out() -> None:
    body = accepted(sample_message(actions=(Action("long", "https://a.example/" + "x" * 3000),)))
    assert blocks_of(body, "actions") == []


def test_what_decides_hands_back_the_messages_name_and_what_leads_to_the_page_a_link() -> None:
    body = accepted(sample_message(buttons=BUTTONS))
    (actions,) = blocks_of(body, "actions")
    approve, reject, link = actions["elements"]
    assert (approve["action_id"], approve["value"], approve["style"]) == (
        "decide-approved",
        "f" * 32,
        "primary",
    )
    assert (reject["action_id"], reject["text"]["text"], reject["style"]) == (
        "decide-rejected",
        "Reject",
        "danger",
    )
    assert link["url"] == LINK
    assert not {"url"} & (approve.keys() | reject.keys())


def test_a_message_that_does_not_decide_has_the_link_to_the_page_only() -> None:
    """As where the rule wants a sign-in: then it has no `buttons`."""
    (actions,) = blocks_of(accepted(sample_message()), "actions")
    assert [one["url"] for one in actions["elements"]] == [LINK]


def test_buttons_that_decide_stay_where_links_become_a_list() -> None:
    actions = tuple(Action(f"run {n}", f"{LINK}{n}") for n in range(12))
    body = accepted(sample_message(actions=actions, buttons=BUTTONS))
    (row,) = blocks_of(body, "actions")
    assert [one["action_id"] for one in row["elements"]] == ["decide-approved", "decide-rejected"]


@given(label=st.text(max_size=200))
def test_a_dialog_keeps_to_slacks_limits_whatever_stands_on_the_button(label: str) -> None:
    act = Act(Reaction("U1AB", "rejected", "f" * 32), CHANNEL, label)
    view = dialog(act, label * 50)
    ViewOfSlack(**view).validate_json()
    for block in view["blocks"]:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.validate_json()
        assert 0 < len(block["label"]["text"]) <= 2000
    assert 0 < len(view["title"]["text"]) <= 24
    assert 0 < len(view["submit"]["text"]) <= 24


@pytest.mark.parametrize(
    "interaction",
    [
        {},
        {"type": "block_actions"},
        {"type": "block_actions", "actions": "x", "user": {"id": "U1AB"}},
        {"type": "block_actions", "actions": [{"action_id": "link-0"}], "user": {"id": "U1AB"}},
        {"type": "view_submission", "view": 7},
        {"type": "view_submission", "view": {"callback_id": "another"}},
        {"type": "view_submission", "view": {"callback_id": "reason", "private_metadata": "[]"}},
        {"type": "message_action"},
    ],
)
def test_what_is_no_decision_is_none(interaction: dict[str, Any]) -> None:
    assert act_of(interaction) is None


def pressed(**changes: Any) -> dict[str, Any]:
    button = {"action_id": "decide-approved", "value": "f" * 32, "text": {"text": "Approve"}}
    return {
        "type": "block_actions",
        "user": {"id": "U1AB"},
        "channel": {"id": CHANNEL},
        "actions": [button],
        "trigger_id": "1.2.x",
    } | changes


def test_a_press_says_who_what_and_where() -> None:
    act = act_of(pressed())
    assert act == Act(Reaction("U1AB", "approved", "f" * 32), CHANNEL, "Approve", "1.2.x")


@pytest.mark.parametrize(
    "changes",
    [
        {"user": {"id": "alice"}},
        {"user": {"name": "U1AB"}},
        {"channel": {"id": "../x"}},
        {"actions": [{"action_id": "decide-approved", "value": "F" * 32}]},
        {"actions": [{"action_id": "decide-nothing", "value": "f" * 32}]},
    ],
)
def test_a_press_that_slack_would_not_tell_of_so_is_none(changes: dict[str, Any]) -> None:
    assert act_of(pressed(**changes)) is None


def test_escaping_is_that_of_slack() -> None:
    assert escape("<!channel> & <@U1>") == "&lt;!channel&gt; &amp; &lt;@U1&gt;"


async def answer(**recorded: Any) -> None:
    with aioresponses() as slack:
        slack.post(URL, response_class=RecordedResponse, **recorded)
        async with opened(SLACK, SlackConfig(webhook_url=Secret(URL))) as channel:
            await channel.send(sample_message())
        ((_, (request,)),) = slack.requests.items()
        assert json.loads(request.kwargs["data"]) == payload(sample_message())


async def test_slack_says_ok() -> None:
    await answer(status=200, body="ok", content_type="text/html")


@pytest.mark.parametrize(
    ("status", "word", "reason"),
    [
        (400, "invalid_payload", Reason.REJECTED),
        (400, "user_not_found", Reason.REJECTED),
        (403, "action_prohibited", Reason.UNAUTHORIZED),
        (403, "invalid_token", Reason.UNAUTHORIZED),
        (404, "channel_not_found", Reason.NOT_FOUND),
        (404, "no_service", Reason.NOT_FOUND),
        (410, "channel_is_archived", Reason.NOT_FOUND),
    ],
)
async def test_slacks_own_errors_are_permanent_and_named(status: int, word: str, reason: Reason) -> None:
    with pytest.raises(PermanentError) as caught:
        await answer(status=status, body=word, content_type="text/html")
    assert caught.value.detail == f"the receiver answered {status}: {word}"
    assert (caught.value.reason, caught.value.excerpt) == (reason, word)


async def test_slacks_own_fault_is_transient() -> None:
    with pytest.raises(TransientError, match="rollup_error"):
        await answer(status=500, body="rollup_error", content_type="text/html")


async def test_being_rate_limited_says_when_to_come_back() -> None:
    with pytest.raises(TransientError) as caught:
        await answer(status=429, body="rate_limited", headers={"Retry-After": "30"})
    assert (caught.value.reason, caught.value.retry_after) == (Reason.THROTTLED, 30.0)


async def posted(message: Message, config: SlackConfig | None = None, **recorded: Any) -> tuple[Any, Receipt]:
    """What the bot posts, and the receipt for it."""
    with aioresponses() as slack:
        slack.post(POST_MESSAGE, response_class=RecordedResponse, **recorded)
        async with opened(SLACK, config or SlackConfig(**BOT, channel_id=CHANNEL)) as channel:
            receipt = await channel.send(message)
        ((_, (request,)),) = slack.requests.items()
    return json.loads(request.kwargs["data"]), receipt


async def test_a_bots_message_is_that_of_the_webhook_and_its_receipt_names_it() -> None:
    body, receipt = await posted(sample_message(), payload=SENT)
    assert body == payload(sample_message()) | {"channel": CHANNEL}
    assert receipt.ref == f"{CHANNEL}/1503435956.000247"


async def test_news_goes_into_the_thread_of_the_message_it_follows() -> None:
    body, _ = await posted(sample_message(follows=f"{CHANNEL}/1503435956.000247"), payload=SENT)
    assert body["thread_ts"] == "1503435956.000247"
    body, _ = await posted(sample_message(follows="what another channel had"), payload=SENT)
    assert "thread_ts" not in body


async def test_without_a_channel_of_its_own_it_writes_to_each_recipient() -> None:
    config = SlackConfig(**BOT)
    assert callable(SLACK.personal)
    assert SLACK.personal(config)
    assert not SLACK.personal(SlackConfig(**BOT, channel_id=CHANNEL))
    assert not SLACK.personal(SlackConfig(webhook_url=Secret(URL)))
    answer = SENT | {"channel": "D024BE91L"}
    body, receipt = await posted(sample_message(recipient="U024BE7LH"), config, payload=answer)
    assert (body["channel"], receipt.ref) == ("U024BE7LH", "D024BE91L/1503435956.000247")
    with pytest.raises(PermanentError, match="not a member's ID"):
        async with opened(SLACK, config) as channel:
            await channel.send(sample_message(recipient="alice@acme.example"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("invalid_auth", Reason.UNAUTHORIZED),
        ("not_in_channel", Reason.UNAUTHORIZED),
        ("channel_not_found", Reason.NOT_FOUND),
        ("is_archived", Reason.NOT_FOUND),
        ("msg_blocks_too_long", Reason.TOO_LARGE),
        ("msg_too_long", Reason.TOO_LARGE),
        ("message_not_found", Reason.NOT_FOUND),
        ("edit_window_closed", Reason.UNAUTHORIZED),
        ("invalid_blocks", Reason.REJECTED),
        ("an_error_of_tomorrow", Reason.REJECTED),
    ],
)
async def test_an_error_in_an_answer_with_status_200_is_the_verdict(error: str, reason: Reason) -> None:
    with pytest.raises(PermanentError, match=error) as caught:
        await posted(sample_message(), payload={"ok": False, "error": error})
    assert caught.value.reason is reason


async def test_a_refusal_that_names_more_blocks_than_are_read_is_no_receipt() -> None:
    faults = [f"must be shorter than 76 characters [json-pointer:/blocks/{n}/text]" for n in range(100)]
    with pytest.raises(PermanentError, match="invalid_blocks") as caught:
        await posted(sample_message(), payload={"ok": False, "error": "invalid_blocks", "errors": faults})
    assert caught.value.reason is Reason.REJECTED


@pytest.mark.parametrize(
    "error", ["ratelimited", "internal_error", "external_channel_migrating", "update_failed"]
)
async def test_what_slack_could_not_do_now_is_tried_again(error: str) -> None:
    with pytest.raises(TransientError, match=error):
        await posted(sample_message(), payload={"ok": False, "error": error})


@pytest.mark.parametrize("ref", ["", "7", "C0123456789/", "C0123456789/x", "?/1503435956.000247"])
async def test_what_names_no_message_is_not_changed(ref: str) -> None:
    async with opened(SLACK, SlackConfig(**BOT, channel_id=CHANNEL)) as channel:
        with pytest.raises(PermanentError, match="names no message"):
            await channel.edit(ref, sample_message())  # type: ignore[attr-defined]


WEBHOOK = {"webhook_url": Secret(URL)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either webhook_url or bot_token"),
        (WEBHOOK | BOT, "either webhook_url or bot_token"),
        (WEBHOOK | {"channel_id": CHANNEL}, "go with a bot_token"),
        (WEBHOOK | {"app_token": APP_TOKEN}, "go with a bot_token"),
        (WEBHOOK | {"signing_secret": SIGNING_SECRET}, "go with a bot_token"),
        (BOT | {"app_token": APP_TOKEN, "signing_secret": SIGNING_SECRET}, "either by app_token"),
        ({"bot_token": APP_TOKEN}, "begins with xoxb-"),
        (BOT | {"app_token": BOT["bot_token"]}, "begins with xapp-"),
        (BOT | {"signing_secret": Secret("two words")}, "letters and digits"),
        (BOT | {"channel_id": "#general"}, "not a channel's ID"),
        (BOT | {"channel_id": "U024BE7LH"}, "not a channel's ID"),
        (BOT | {"api_url": Secret("slack.com/api")}, "not an http or https URL"),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_its_reason(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        SlackConfig(**options)
    assert "two words" not in str(caught.value)


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        SlackConfig(webhook_url=Secret("T00000000/B00000000"))
