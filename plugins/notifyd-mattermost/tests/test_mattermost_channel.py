"""The mattermost channel: its attachment within Mattermost's limits, and Mattermost's recorded answers."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from aioresponses import aioresponses
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from notifyd_mattermost import MattermostConfig, escape, notifyd_channel_types, payload

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
from notifyd.testing import (
    HOSTILE,
    LINK,
    HttpConformance,
    Received,
    RecordedResponse,
    opened,
    sample_message,
)

(MATTERMOST,) = notifyd_channel_types()
ESCAPE = re.compile(r"\\([`*{}\[\]()#+\-.!_>|~]|\\(?!\w))", re.ASCII)
"""What the web's reader takes for an escape (https://github.com/mattermost/marked); the apps' is CommonMark's."""


def shown(text: str) -> str:
    """What the web shows of a text of ours."""
    return html.unescape(ESCAPE.sub(lambda found: found[1], text)).replace("\u2060", "")


def read(token: Token) -> str:
    """What the apps show of a paragraph of ours."""
    breaks = {"softbreak": "\n", "hardbreak": "\n"}
    parts = (breaks.get(child.type, child.content) for child in token.children or ())
    return "".join(parts).replace("\u2060", "")


pieces = st.sampled_from(
    [
        *"*_~`|\\[]()<>#-+=.!@:;&/$0a",
        *(
            "\n",
            " ",
            "    ",
            "1. ",
            "- ",
            "# ",
            "> ",
            "```",
            "**",
            "~~",
            ":x:",
            ":)",
            "&lt;",
            "&#39;",
            "<3",
            "<br>",
        ),
        *("https://a.example", "https://a.example/x?y=1", "xhttps://a", "[Approve](https://evil.example)"),
        *("@all", "~town-square", "#tag", "<https://a.example>", "ß", "漢字"),
    ]
)
texts = st.lists(pieces, max_size=12).map("".join).map(clean).map(str.strip)
URL = "https://mattermost.acme.example/hooks/6pxe2mrb9d3yq8jv1ntz5kwc7x"


class TestMattermost(HttpConformance):
    channel_type = MATTERMOST

    def config(self, url: str) -> MattermostConfig:
        return MattermostConfig(webhook_url=Secret(f"{url}/hooks/6pxe2mrb9d3yq8jv1ntz5kwc7x"))

    def readable(self, received: Received) -> str:
        return shown(super().readable(received))


def accepted(message: Message) -> dict[str, Any]:
    """The attachment, after its size has been checked."""
    (attachment,) = payload(message)["attachments"]
    assert isinstance(attachment, dict)
    assert len(json.dumps(attachment, ensure_ascii=False)) <= 8000
    assert all(fact["title"] and fact["value"] for fact in attachment["fields"])
    return attachment


def test_a_message_becomes_an_attachment_with_its_links_below_the_text() -> None:
    message = sample_message()
    assert accepted(message) == {
        "color": "#F1C40F",
        "fallback": f"{message.title} {message.body}".replace("\n\n", " ").replace("@", "@\u2060"),
        "title": escape(message.title),
        "text": f"{escape(message.body)}\n\n[Review and decide]({LINK})",
        "fields": [
            {"title": "Environment", "value": "production", "short": True},
            {"title": "Requested by", "value": "ci@\u2060acme.example", "short": True},
        ],
    }


def test_each_level_has_a_colour_of_its_own() -> None:
    assert len({accepted(sample_message(level=level))["color"] for level in Level}) == 4


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("*bold* _it_ ~~no~~ `code`", "\\*bold\\* \\_it\\_ \\~\\~\u2060no\\~\\~ \\`code\\`"),
        ("[link](https://evil.example) ![x](y)", r"\[link\](https://evil.example) \!\[x\](y)"),
        ("xhttps://a[Approve](https://evil.example)", "xhttps:\u2060//a\\[Approve\\](https://evil.example)"),
        ("at https://a.example/b_c?d=1|2", "at https:\u2060//a.example/b\\_c?d=1\\|2"),
        ("at https://a.example/b_c?d=1.", "at https://a.example/b_c?d=1."),
        (
            "@all @here and ~town-square :smile: :-)",
            "@\u2060all @\u2060here and \\~\u2060town-square :\u2060smile: :\u2060-)",
        ),
        ("at 12:30 a < b, <b> <3 &lt;", "at 12:30 a < b, &lt;\u2060b\\> &lt;\u20603 &amp;lt;"),
        (
            "# heading\n> quote\n- list\n1. list\n| a |",
            "\\# heading\n\\> quote\n\\- list\n1\\. list\n\\| a \\|",
        ),
        ("a\n===\nb #tag #1", "a\n\u2060===\nb \\#\u2060tag \\#\u20601"),
        ("a\n    - code", "a\n\u2060    \\- code"),
        ("https://a.example&lt; https://a.example/", "https:\u2060//a.example&amp;lt; https://a.example/"),
        (r"C:\temp \\host\_x \* " + "\\", r"C:\temp \\\host\\\_x \\\* " + "\\\\"),
    ],
)
def test_text_is_shown_as_it_is_written(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(texts)
def test_both_of_mattermosts_readers_show_a_text_as_it_was_written(text: str) -> None:
    escaped = escape(text)
    assert shown(escaped) == text
    tree = MarkdownIt().parse(escaped)
    assert "\n".join(read(token) for token in tree if token.type == "inline").split() == text.split()
    assert {token.type for token in tree} <= {"paragraph_open", "inline", "paragraph_close"}


@given(texts)
def test_whatever_the_words_of_a_link_are_it_leads_where_it_should(text: str) -> None:
    label = one_line(text)[:12]
    attachment = accepted(sample_message(body="", actions=(Action(label, LINK),)))
    _, inline, _ = MarkdownIt().parse(attachment["text"])
    assert [child.attrGet("href") for child in inline.children or () if child.type == "link_open"] == [LINK]
    assert read(inline).split() == (label.split() or ["…"])
    assert not re.search(r"[\[\]]", attachment["text"].removeprefix("[").removesuffix(f"]({LINK})"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_makes_no_link_and_notifies_nobody(text: str) -> None:
    fields, actions = (Field(text, text),), (Action(text, LINK + text),)
    attachment = accepted(sample_message(title=text, body=text, fields=fields, actions=actions))
    assert len(re.findall(r"(?<!\\)\]\(", attachment["text"])) == 1
    shown = re.sub(r"(?<!\\)\]\([^)]*\)", "", json.dumps(attachment, ensure_ascii=False))
    assert not re.search(r"@(?=\w)", shown)


def test_everything_beyond_the_limits_still_passes() -> None:
    words = "fish & *chips* " * 1000
    attachment = accepted(
        sample_message(
            title=words,
            body=words,
            fields=tuple(Field(f"{number} {words}", words) for number in range(100)),
            actions=tuple(Action(words, f"{LINK}{number}") for number in range(100)),
        )
    )
    assert attachment["text"].endswith(f"… (+{100 - attachment['text'].count(f']({LINK}')})")


@pytest.mark.parametrize("mark", ["\\", "[", "承", '"', "@a "])
def test_what_has_to_be_escaped_stays_within_the_limit_too(mark: str) -> None:
    attachment = accepted(
        sample_message(
            title=mark * 300,
            body=mark * 9000,
            fields=tuple(Field(mark * 300, mark * 900) for _ in range(60)),
            actions=tuple(Action(mark * 300, f"{LINK}{number}") for number in range(400)),
        )
    )
    assert LINK in attachment["text"]


def test_a_digest_of_twelve_approvals_shows_twelve_links() -> None:
    actions = tuple(Action(f"Approval needed, run {n}", f"{LINK}{'x' * 300}{n:02}") for n in range(12))
    attachment = accepted(sample_message(body="word " * 900, actions=actions))
    assert re.findall(r"\[Approval needed, run \d+\]\(([^)]+)\)", attachment["text"]) == [
        a.url for a in actions
    ]


def test_a_message_of_nothing_still_passes() -> None:
    assert accepted(sample_message(title="", body="", fields=(), actions=(), event={}))["fallback"] == "…"


async def answer(**recorded: Any) -> None:
    with aioresponses() as server:
        server.post(URL, response_class=RecordedResponse, **recorded)
        async with opened(MATTERMOST, MattermostConfig(webhook_url=Secret(URL))) as channel:
            await channel.send(sample_message())
        ((_, (request,)),) = server.requests.items()
        assert json.loads(request.kwargs["data"]) == payload(sample_message())


async def test_mattermost_says_ok() -> None:
    await answer(status=200, body="ok", content_type="text/plain")


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (400, "Unable to decode webhook payload.", Reason.REJECTED),
        (403, "This channel is read-only.", Reason.UNAUTHORIZED),
        (404, "Couldn't find the channel.", Reason.NOT_FOUND),
    ],
)
async def test_mattermosts_own_errors_are_permanent_and_named(status: int, said: str, reason: Reason) -> None:
    with pytest.raises(PermanentError) as caught:
        await answer(
            status=status, payload={"id": "web.incoming_webhook", "message": said, "status_code": status}
        )
    assert caught.value.detail == f"the receiver answered {status}: {said}"
    assert caught.value.reason is reason


async def test_a_server_that_is_busy_is_tried_again() -> None:
    with pytest.raises(TransientError) as caught:
        await answer(status=429, body="limit exceeded", headers={"Retry-After": "3"})
    assert caught.value.retry_after == 3.0


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"X-RateLimit-Reset": "9"}, 9.0),
        ({"Retry-After": "1", "X-RateLimit-Reset": "9"}, 1.0),
        ({"X-RateLimit-Reset": "soon"}, None),
    ],
)
async def test_a_reset_is_waited_for_where_no_retry_after_comes_through(
    headers: dict[str, str], wait: float | None
) -> None:
    with pytest.raises(TransientError) as caught:
        await answer(status=429, body="limit exceeded", headers=headers)
    assert caught.value.retry_after == wait


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        MattermostConfig(webhook_url=Secret("hooks/abc"))
