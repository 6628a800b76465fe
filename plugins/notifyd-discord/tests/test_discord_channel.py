"""The discord channel: its embed within Discord's limits, and Discord's recorded answers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from aioresponses import aioresponses
from notifyd_discord import DiscordConfig, escape, execution_url, notifyd_channel_types, payload

from notifyd.plugin import (
    Action,
    Field,
    Level,
    Message,
    PermanentError,
    Reason,
    Secret,
    TransientError,
    units,
)
from notifyd.testing import (
    HOSTILE,
    LINK,
    HttpConformance,
    Received,
    RecordedResponse,
    Reply,
    opened,
    sample_message,
)

(DISCORD,) = notifyd_channel_types()
PATH = "/webhooks/223704706495545344/3d89bb7572e0fb30d8128367b3b1b44fecd1726de135cbe28a41f8b2f777c372"
URL = f"https://discord.com/api{PATH}"
CALLED = f"https://discord.com/api/v10{PATH}?wait=true"


class TestDiscord(HttpConformance):
    channel_type = DISCORD
    throttled = Reply(
        429, json.dumps({"message": "You are being rate limited.", "retry_after": 7.0, "global": False})
    )

    def config(self, url: str) -> DiscordConfig:
        return DiscordConfig(webhook_url=Secret(f"{url}/api{PATH}"))

    def readable(self, received: Received) -> str:
        return re.sub(r"\\([^0-9A-Za-z\s])", r"\1", super().readable(received))


def accepted(message: Message) -> dict[str, Any]:
    """The embed, after the limits of Discord's documentation have been checked."""
    body = payload(message)
    assert body["allowed_mentions"] == {"parse": []}
    embed, *further = body["embeds"]
    assert isinstance(embed, dict)
    assert all(0 < units(one["description"]) <= 4096 for one in further)
    fields = embed["fields"]
    assert len(fields) <= 25
    assert units(embed.get("title", "")) <= 256
    assert 0 < units(embed["description"]) <= 4096
    assert all(0 < units(fact["name"]) <= 256 and 0 < units(fact["value"]) <= 1024 for fact in fields)
    texts = [embed.get("title", ""), embed["description"], *(f["name"] + f["value"] for f in fields)]
    texts += [one["description"] for one in further]
    assert sum(map(units, texts)) <= 6000
    return embed


def test_a_message_becomes_an_embed_with_its_links_below_the_text() -> None:
    message = sample_message()
    assert accepted(message) == {
        "title": message.title,
        "description": f"{message.body}\n\n[Review and decide](<{LINK}>)",
        "color": 0xF1C40F,
        "fields": [
            {"name": "Environment", "value": "production", "inline": True},
            {"name": "Requested by", "value": "ci@acme.example", "inline": True},
        ],
        "timestamp": "2026-09-21T14:00:00Z",
    }


def test_each_level_has_a_colour_of_its_own() -> None:
    assert len({accepted(sample_message(level=level))["color"] for level in Level}) == 4


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("*bold* _it_ ~no~ `code` ||spoiler||", r"\*bold\* \_it\_ \~no\~ \`code\` \|\|spoiler\|\|"),
        ("[link](https://evil.example)", r"\[link\](<https://evil.example>)"),
        ("xhttps://a[Approve](https://evil.example)", r"x<https://a>\[Approve\](<https://evil.example>)"),
        ("https://a.example/#1, done.", "<https://a.example/#1>, done."),
        ("<@123> <#45> @everyone <t:1:R>", r"\<@123\> \<#45\> @everyone \<t\:1:R\>"),
        (
            "# heading\n> quote\n- list\n+ list\n1. list",
            "\\# heading\n\\> quote\n\\- list\n\\+ list\n1\\. list",
        ),
        ("a\n  - list\n\t# heading\n 12. list", "a\n  \\- list\n\t\\# heading\n 12\\. list"),
        ("see https://a.example/b_c_d?x=1|2 now", "see <https://a.example/b_c_d?x=1|2> now"),
        ("https://a.example - done\n- list", "<https://a.example> - done\n\\- list"),
        ("C:\\temp", r"C:\\temp"),
        ("2001:db8:100::1 :x: 12:30:45", r"2001\:db8\:100::1 \:x: 12\:30:45"),
        ("see https://a.example/:x:", "see <https://a.example/:x>:"),
    ],
)
def test_text_is_shown_as_it_is_written(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_pings_nobody_and_stays_within_the_limits(text: str) -> None:
    fields, actions = (Field(text, text),), (Action(text, LINK + text),)
    embed = accepted(sample_message(title=text, body=text, fields=fields, actions=actions))
    assert len(re.findall(r"(?<!\\)\]\(<", embed["description"])) == 1


def test_a_long_body_is_cut_and_the_links_stay() -> None:
    embed = accepted(sample_message(body="fish *chips* " * 1000))
    text, _, link = embed["description"].rpartition("\n\n")
    assert text.endswith("…")
    assert link == f"[Review and decide](<{LINK}>)"


def test_everything_beyond_discords_limits_still_passes() -> None:
    words = "*fish* _chips_ 👩‍👩‍👧 " * 1000
    accepted(
        sample_message(
            title=words,
            body=words,
            fields=tuple(Field(f"{number} {words}", words) for number in range(100)),
            actions=tuple(Action(words, f"{LINK}{number}") for number in range(100)),
        )
    )


def test_a_digest_of_twelve_approvals_shows_twelve_links() -> None:
    actions = tuple(Action(f"Approval needed: run {n}", f"{LINK}{'x' * 300}{n:02}") for n in range(12))
    embeds = payload(sample_message(body="12 requests wait.", actions=actions))["embeds"]
    accepted(sample_message(body="12 requests wait.", actions=actions))
    shown = "\n".join(embed["description"] for embed in embeds)
    assert re.findall(r"\]\(<([^>]+)>\)", shown) == [action.url for action in actions]


def test_links_that_do_not_fit_are_counted() -> None:
    actions = tuple(Action(f"run {n}", f"{LINK}{'x' * 900}{n:02}") for n in range(12))
    embeds = payload(sample_message(actions=actions))["embeds"]
    shown = "\n".join(embed["description"] for embed in embeds)
    assert shown.endswith(f"… (+{12 - shown.count('](<')})")


def test_a_time_is_shown_in_the_readers_own_zone() -> None:
    when = Field("Decide by", "5 November 2026, 10:30 CET", at=1_793_871_000_000_000)
    (fact,) = accepted(sample_message(fields=(when,)))["fields"]
    assert fact["value"] == "<t:1793871000:f>"


def test_a_message_of_nothing_still_passes() -> None:
    accepted(sample_message(title="", body="", fields=(Field("", ""),), actions=(), event={}))


@pytest.mark.parametrize(
    ("configured", "called"),
    [
        (URL, CALLED),
        (f"https://discord.com/api/v6{PATH}", CALLED),
        (f"{URL}?thread_id=42", f"https://discord.com/api/v10{PATH}?thread_id=42&wait=true"),
        ("http://127.0.0.1:9/elsewhere", "http://127.0.0.1:9/elsewhere?wait=true"),
    ],
)
def test_the_call_goes_to_version_10_and_waits_for_its_verdict(configured: str, called: str) -> None:
    assert execution_url(Secret(configured)).reveal() == called


async def answer(**recorded: Any) -> None:
    with aioresponses() as discord:
        discord.post(CALLED, response_class=RecordedResponse, **recorded)
        async with opened(DISCORD, DiscordConfig(webhook_url=Secret(URL))) as channel:
            await channel.send(sample_message())


async def test_discord_answers_with_the_message_it_saved() -> None:
    await answer(status=200, payload={"id": "1", "type": 0, "webhook_id": "223704706495545344"})


ODD: list[Any] = [None, "x", [], {}, {"a": {"_errors": "x"}}, {"a": {"_errors": []}}, {"_errors": [[]]}]
"""`errors` in forms that Discord does not give them."""


@pytest.mark.parametrize(
    ("status", "said", "reason", "detail"),
    [
        (404, {"message": "Unknown Webhook", "code": 10015}, Reason.NOT_FOUND, "Unknown Webhook (10015)"),
        (
            401,
            {"message": "Invalid Webhook Token", "code": 50027},
            Reason.UNAUTHORIZED,
            "Invalid Webhook Token (50027)",
        ),
        (400, {"message": "Invalid Form Body", "code": 50035}, Reason.REJECTED, "Invalid Form Body (50035)"),
        (
            400,
            {
                "message": "Invalid Form Body",
                "code": 50035,
                "errors": {
                    "embeds": {
                        "0": {
                            "description": {
                                "_errors": [
                                    {
                                        "code": "BASE_TYPE_MAX_LENGTH",
                                        "message": "Must be 4096 or fewer in length.",
                                    }
                                ]
                            }
                        }
                    }
                },
            },
            Reason.REJECTED,
            "Invalid Form Body (50035): embeds.0.description Must be 4096 or fewer in length.",
        ),
        (
            400,
            {"message": "No", "code": 1, "errors": {"_errors": [{"code": "WHOLE"}, "odd", 7]}},
            Reason.REJECTED,
            "No (1): WHOLE",
        ),
        *((400, {"message": "No", "code": 1, "errors": odd}, Reason.REJECTED, "No (1)") for odd in ODD),
        (400, {"embeds": ["0"]}, Reason.REJECTED, ""),
    ],
)
async def test_discords_own_errors_are_permanent_and_named(
    status: int, said: dict[str, Any], reason: Reason, detail: str
) -> None:
    with pytest.raises(PermanentError) as caught:
        await answer(status=status, payload=said)
    assert caught.value.reason is reason
    assert caught.value.detail == f"the receiver answered {status}" + (f": {detail}" if detail else "")


async def test_the_bodys_retry_after_wins_over_the_header() -> None:
    body = {"message": "You are being rate limited.", "retry_after": 64.57, "global": False}
    with pytest.raises(TransientError) as caught:
        await answer(status=429, payload=body, headers={"Retry-After": "65"})
    assert (caught.value.reason, caught.value.retry_after) == (Reason.THROTTLED, 64.57)


async def test_a_refusal_by_what_stands_before_discord_is_read_from_its_header() -> None:
    with pytest.raises(TransientError) as caught:
        await answer(status=429, body="<html>error code: 1015</html>", headers={"Retry-After": "600"})
    assert caught.value.retry_after == 600.0
