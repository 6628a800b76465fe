"""The slack channel: its payload under Slack's own validation, and Slack's recorded answers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from aioresponses import aioresponses
from hypothesis import assume, given
from hypothesis import strategies as st
from notifyd_slack import SlackConfig, escape, notifyd_channel_types, payload
from slack_sdk.models.blocks import ActionsBlock, Block, SectionBlock

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
    one_line,
)
from notifyd.testing import HOSTILE, LINK, HttpConformance, RecordedResponse, opened, sample_message

(SLACK,) = notifyd_channel_types()
URL = "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"


class TestSlack(HttpConformance):
    channel_type = SLACK

    def config(self, url: str) -> SlackConfig:
        return SlackConfig(webhook_url=Secret(url + "/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx"))


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
    assert 0 < len(body["text"]) <= 3000
    return body


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
    assert sum(len(section.get("fields", [])) for section in blocks_of(body, "section")) == 40
    assert blocks_of(body, "actions") == []
    listed = [block["text"]["text"] for block in blocks_of(body, "section") if "text" in block][1:]
    assert listed[-1].endswith(f"… (+{100 - sum(text.count('• <') for text in listed)})")


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


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        SlackConfig(webhook_url=Secret("T00000000/B00000000"))
