"""The `slack` channel: one POST to an incoming webhook, as Block Kit.

Vendor's rules: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks (the request and its
errors), https://docs.slack.dev/messaging/formatting-message-text (escaping, and what it cannot escape),
https://docs.slack.dev/reference/block-kit/blocks (lengths),
https://docs.slack.dev/apis/web-api/rate-limits (one message a second, `Retry-After`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import field, frozen

from notifyd.plugin import (
    SECOND,
    Action,
    ChannelContext,
    ChannelType,
    Field,
    Level,
    Message,
    Receipt,
    Secret,
    check_response,
    clean,
    fit,
    hookimpl,
    http_url,
    leading,
    listed,
    one_line,
    post,
    units,
)

HEADER_LIMIT: Final = 150
TEXT_LIMIT: Final = 3000
FIELD_LIMIT: Final = 2000
NAME_LIMIT: Final = 100
FIELDS_IN_A_SECTION: Final = 10
FIELDS_LIMIT: Final = 40
BUTTONS_LIMIT: Final = 5
"""Slack takes 25; more than a handful, such as those of a digest, read better as a list of links."""
BUTTON_TEXT_LIMIT: Final = 75
LINK_TEXT_LIMIT: Final = 250
LINKS_ROOM: Final = 10_000
"""Of all a message's blocks: Slack refuses those beyond some 13,000 characters with `msg_blocks_too_long`."""
URL_LIMIT: Final = 3000
FALLBACK_LIMIT: Final = 300

_MARKS: Final = {Level.INFO: "ℹ️", Level.SUCCESS: "✅", Level.WARNING: "⚠️", Level.ERROR: "❌"}
_MARKUP: Final = re.compile(r"[*_~`]|:[\w+'-]+:|^[^\S\n]*>", re.MULTILINE)
"""What `mrkdwn` may take for formatting, an emoji or a quotation. None of it can be escaped there."""
_ERROR_CODE: Final = re.compile(r"[a-z_]{3,60}")


@frozen
class SlackConfig:
    """`webhook_url` is the URL that Slack shows when an incoming webhook is added to a channel."""

    webhook_url: Secret = field(validator=http_url)


class SlackChannel:
    def __init__(self, config: SlackConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        body = json.dumps(payload(message)).encode()
        answer = await post(self._context.http, self._config.webhook_url, body)
        # An error is one word, such as channel_is_archived; anything else is no Slack that speaks.
        said = answer.text.strip() if _ERROR_CODE.fullmatch(answer.text.strip()) else ""
        now = self._context.clock()
        return check_response(answer.status, answer.headers, answer.text, now=now, said=said)

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def escape(text: str) -> str:
    """The three characters that Slack gives a meaning: without them there is no link, mention or command."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def payload(message: Message) -> dict[str, Any]:
    """The request's body, a pure function of the message. No previews: they would open the links."""
    fallback = "\n".join(text for text in (one_line(message.title), clean(message.body).strip()) if text)
    return {
        "text": fit(fallback, FALLBACK_LIMIT, escape=escape) or "…",
        "mrkdwn": False,
        "blocks": list(_blocks(message)),
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _blocks(message: Message) -> Iterator[dict[str, Any]]:
    actions = [action for action in message.actions if action.url and units(action.url) <= URL_LIMIT]
    listed = len(message.actions) > BUTTONS_LIMIT
    if title := one_line(message.title):
        yield {"type": "header", "text": _plain(title, HEADER_LIMIT)}
    if body := clean(message.body).strip():
        yield {"type": "section", "text": _plain(body, TEXT_LIMIT)}
    if listed:
        yield from _links(actions, len(message.actions))
    shown = message.fields[:FIELDS_LIMIT]
    for start in range(0, len(shown), FIELDS_IN_A_SECTION):
        section = shown[start : start + FIELDS_IN_A_SECTION]
        yield {"type": "section", "fields": [_fact(fact) for fact in section]}
    yield {"type": "context", "elements": [_plain(_origin(message), TEXT_LIMIT)]}
    if actions and not listed:
        buttons = [_button(number, action) for number, action in enumerate(actions)]
        yield {"type": "actions", "elements": buttons}


def _links(actions: list[Action], count: int) -> Iterator[dict[str, Any]]:
    """Sections that list the links, as many as fit; a last line counts the rest."""
    lines = listed((f"• {_link(one, LINK_TEXT_LIMIT)}" for one in actions), count, LINKS_ROOM, _length)
    while lines:
        section = leading(lines, TEXT_LIMIT + 1, _length) or lines[:1]
        lines = lines[len(section) :]
        yield {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(section), "verbatim": True}}


def _length(line: str) -> int:
    """Of a line and its end."""
    return units(line) + 1


def _plain(text: str, limit: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": fit(text, limit) or "…", "emoji": False}


def _fact(fact: Field) -> dict[str, Any]:
    """Its name in bold, unless name or value has what Slack would take for formatting: then all of it is plain."""
    name, value = fit(one_line(fact.name), NAME_LIMIT) or "…", clean(fact.value).strip()
    if fact.at is not None:  # in the reader's own zone; the text stands where a client cannot show it
        text = fit(one_line(value).replace("|", "/"), FALLBACK_LIMIT, escape=escape)
        return _titled(name, f"<!date^{fact.at // SECOND}^{{date_pretty}} {{time}}|{text}>")
    if _MARKUP.search(f"{name}\n{value}"):
        return _plain(f"{name}\n{value}", FIELD_LIMIT)
    return _titled(name, fit(value, FIELD_LIMIT - 5 * NAME_LIMIT, escape=escape))


def _titled(name: str, value: str) -> dict[str, Any]:
    # Verbatim: names of channels and people in a text stay text.
    return {"type": "mrkdwn", "text": f"*{escape(name)}*\n{value}", "verbatim": True}


def _origin(message: Message) -> str:
    """Where the message is from: the level's mark, the tenant, the run and the approval."""
    tenant = message.event.get("tenant")
    names = [tenant.get("id") if isinstance(tenant, Mapping) else tenant]
    names += [message.event.get("runId"), message.event.get("approvalId")]
    return " · ".join([_MARKS[message.level], *(one_line(str(name)) for name in names if name)])


def _button(number: int, action: Action) -> dict[str, Any]:
    text = _plain(one_line(action.label), BUTTON_TEXT_LIMIT)
    return {"type": "button", "action_id": f"link-{number}", "text": text, "url": action.url}


def _link(action: Action, limit: int) -> str:
    label = fit(one_line(action.label).replace("|", "/"), limit, escape=escape) or "…"
    return f"<{escape(action.url).replace('|', '%7C')}|{label}>"


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("slack", SlackConfig, SlackChannel, rate_limit="1/s"),)
