"""The teams channel: its card and its size, and recorded answers of workflows and connectors."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from aioresponses import aioresponses
from hypothesis import example, given, settings
from hypothesis import strategies as st
from notifyd_teams import SIZE_LIMIT, TeamsConfig, notifyd_channel_types, payload

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
    units,
)
from notifyd.testing import HOSTILE, LINK, HttpConformance, RecordedResponse, opened, sample_message

(TEAMS,) = notifyd_channel_types()
URL = "https://prod-00.westeurope.logic.azure.com/workflows/0123456789abcdef/invoke?sig=abcdefghijklmnop"


class TestTeams(HttpConformance):
    channel_type = TEAMS

    def config(self, url: str) -> TeamsConfig:
        return TeamsConfig(
            webhook_url=Secret(f"{url}/workflows/0123456789abcdef/invoke?sig=abcdefghijklmnop")
        )


def accepted(message: Message) -> dict[str, Any]:
    """The card, after Microsoft's limits have been checked."""
    raw = payload(message)
    assert len(raw) <= SIZE_LIMIT
    assert 2 * units(raw.decode()) <= SIZE_LIMIT
    body = json.loads(raw)
    (attachment,) = body["attachments"]
    assert (body["type"], attachment["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    card = attachment["content"]
    assert isinstance(card, dict)
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    assert len(card["actions"]) <= 6
    return card


def lines(card: dict[str, Any]) -> list[str]:
    return ["".join(run["text"] for run in block["inlines"]) for block in card["body"]]


def test_a_message_becomes_a_card_with_link_actions() -> None:
    message = sample_message()
    card = accepted(message)
    assert lines(card) == [
        message.title,
        "ci@acme.example asks to deploy payments v3 to production.",
        "Three replicas will restart.",
        "Environment: production",
        "Requested by: ci@acme.example",
    ]
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Review and decide", "url": LINK}]


def test_each_level_has_a_colour_of_its_own() -> None:
    cards = [accepted(sample_message(level=level)) for level in Level]
    assert len({card["body"][0]["inlines"][0]["color"] for card in cards}) == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_ever_the_text_of_a_run(text: str) -> None:
    fields, actions = (Field(text, text),), (Action(text, LINK),)
    card = accepted(sample_message(title=text, body=text, fields=fields, actions=actions))
    assert {run["type"] for block in card["body"] for run in block["inlines"]} == {"TextRun"}


FUNCTION = re.compile(
    r"\{\{(DATE|TIME)\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)(, ?(COMPACT|LONG|SHORT))?\)\}\}",
    re.IGNORECASE,
)
"""What a card shows as something else, by Microsoft's page on text features. Markdown is of TextBlock alone."""

pieces = st.sampled_from(
    [
        *"{}()[]*_~`<>#-:/@ \n",
        *(
            "{{",
            "}}",
            "{{DATE(",
            "{{TIME(2026-11-04T09:30:00Z)}}",
            "{{date(2026-11-04T09:30:00+01:00, SHORT)}}",
        ),
        *(
            "2026-11-04T09:30:00Z",
            "**bold**",
            "[Approve](https://evil.example)",
            "<at>alice</at>",
            "a",
            "漢字",
        ),
    ]
)
texts = st.lists(pieces, max_size=5).map("".join)
names = st.lists(pieces, max_size=2).map("".join).filter(lambda name: len(name) <= 80)


@settings(max_examples=60, deadline=None)
@given(title=texts, body=texts, name=names, value=texts)
@example("{{DATE(2026-11-04T09:30:00Z, LONG)}}", "{{{DATE(2026-11-04T09:30:00Z)}}", "{{TIME(", "x")
def test_text_arrives_as_it_was_written(title: str, body: str, name: str, value: str) -> None:
    message = sample_message(title=title, body=body, fields=(Field(name, value),))
    card = accepted(message)
    written = [line for line in clean(body).split("\n") if line.strip()]
    assert lines(card) == [one_line(title) or "…", *written, f"{one_line(name)}: {one_line(value)}"]
    runs = [run for block in card["body"] for run in block["inlines"]]
    assert not any(FUNCTION.search(run["text"]) or "selectAction" in run for run in runs)
    assert [action["url"] for action in card["actions"]] == [LINK]


@pytest.mark.parametrize("word", ["fish & chips ", "漢字 ", "👩‍👩‍👧 ", "\n"])
def test_everything_beyond_the_size_limit_still_passes(word: str) -> None:
    words = word * 3000
    card = accepted(
        sample_message(
            title=words,
            body="x" + words,
            fields=tuple(Field(f"{number} {words}", words) for number in range(100)),
            actions=tuple(Action(words, f"{LINK}{number}") for number in range(100)),
        )
    )
    assert card["actions"] == []
    assert any(line.startswith("… (+") for line in lines(card))


def test_a_digest_of_twelve_approvals_shows_twelve_links_and_no_address() -> None:
    actions = tuple(Action(f"Approval needed: run {n}", f"{LINK}{'x' * 300}{n:02}") for n in range(12))
    card = accepted(sample_message(body="12 requests wait.", actions=actions))
    runs = [run for block in card["body"] for run in block["inlines"] if "selectAction" in run]
    assert [run["selectAction"]["url"] for run in runs] == [action.url for action in actions]
    assert "http" not in "".join(lines(card))
    assert "(+" not in "".join(lines(card))


def test_of_links_as_long_as_they_may_be_the_first_ones_stay() -> None:
    links = [f"{LINK}{number}" + "x" * 1900 for number in range(6)]
    card = accepted(sample_message(body="漢" * 9000, actions=tuple(Action("Review", link) for link in links)))
    assert [action["url"] for action in card["actions"]] == links[:2]


def test_a_long_body_is_cut_and_the_link_stays() -> None:
    card = accepted(sample_message(body="fish & chips " * 5000))
    assert lines(card)[1].endswith("…")
    assert card["actions"][0]["url"] == LINK


def test_a_message_of_nothing_still_passes() -> None:
    assert lines(accepted(sample_message(title="", body="", fields=(), actions=(), event={}))) == ["…"]


async def answer(**recorded: Any) -> None:
    with aioresponses() as teams:
        teams.post(URL, response_class=RecordedResponse, **recorded)
        async with opened(TEAMS, TeamsConfig(webhook_url=Secret(URL))) as channel:
            await channel.send(sample_message())


async def test_a_workflow_accepts() -> None:
    await answer(status=202)


async def test_a_connector_says_1() -> None:
    await answer(status=200, body="1")


async def test_a_workflow_that_is_switched_off_is_permanent_and_named() -> None:
    error = {"code": "WorkflowTriggerIsNotEnabled", "message": "Could not execute workflow trigger 'manual'."}
    with pytest.raises(PermanentError, match="WorkflowTriggerIsNotEnabled"):
        await answer(status=400, payload={"error": error})


async def test_a_throttled_workflow_says_when_to_come_back() -> None:
    error = {"code": "WorkflowTriggerRequestThrottled", "message": "throttled"}
    with pytest.raises(TransientError) as caught:
        await answer(status=429, payload={"error": error}, headers={"Retry-After": "17"})
    assert caught.value.retry_after == 17.0


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (429, TransientError, Reason.THROTTLED),
        (503, TransientError, Reason.SERVER_ERROR),
        (413, PermanentError, Reason.TOO_LARGE),
    ],
)
async def test_a_fault_that_a_connector_reports_with_status_200_counts(
    status: int, kind: type[TransientError | PermanentError], reason: Reason
) -> None:
    text = f"Webhook message delivery failed: Microsoft Teams endpoint returned HTTP error {status} with x"
    with pytest.raises(kind) as caught:
        await answer(status=200, body=text)
    assert caught.value.reason is reason


def test_a_link_for_which_there_is_no_room_is_counted() -> None:
    actions = tuple(Action(f"Link {n}", "https://acme.example/" + "x" * 2000 + str(n)) for n in range(4))
    card = json.loads(payload(sample_message(actions=actions)))["attachments"][0]["content"]
    assert [action["url"] for action in card["actions"]] == [action.url for action in actions[:2]]
    assert "… (+2)" in json.dumps(card["body"], ensure_ascii=False)
