"""A message as Block Kit.

Vendor's rules: https://docs.slack.dev/messaging/formatting-message-text (escaping, and what it cannot escape),
https://docs.slack.dev/reference/block-kit/blocks (lengths),
https://docs.slack.dev/reference/block-kit/block-elements/button-element (75 characters, a `value` of 2000,
and that one with a `url` is told of too),
https://docs.slack.dev/reference/block-kit/blocks/actions-block (25 elements).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from notifyd.plugin import (
    SECOND,
    Action,
    Button,
    Field,
    Level,
    Message,
    clean,
    fit,
    leading,
    listed,
    one_line,
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
LINKS_ROOM: Final = 9_000
TOTAL_ROOM: Final = 12_500
"""Of all a message's blocks: Slack refuses those beyond some 13,000 characters with `msg_blocks_too_long`."""
URL_LIMIT: Final = 3000
FALLBACK_LIMIT: Final = 300

_MARKS: Final = {Level.INFO: "ℹ️", Level.SUCCESS: "✅", Level.WARNING: "⚠️", Level.ERROR: "❌"}
_MARKUP: Final = re.compile(r"[*_~`]|:[\w+'-]+:|^[^\S\n]*>", re.MULTILINE)
"""What `mrkdwn` may take for formatting, an emoji or a quotation. None of it can be escaped there."""
_STYLES: Final = {"approved": "primary", "rejected": "danger"}


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
    texts = [*_texts(message), *(_links(actions, len(message.actions)) if listed else ())]
    yield from texts
    room = TOTAL_ROOM - sum(units(block["text"]["text"]) for block in texts)
    shown = leading(map(_fact, message.fields[:FIELDS_LIMIT]), room, lambda fact: units(fact["text"]))
    for start in range(0, len(shown), FIELDS_IN_A_SECTION):
        yield {"type": "section", "fields": shown[start : start + FIELDS_IN_A_SECTION]}
    yield {"type": "context", "elements": [plain(_origin(message), TEXT_LIMIT)]}
    links = () if listed else actions
    pressed = [_decider(button) for button in message.buttons]
    if elements := pressed + [_button(number, action) for number, action in enumerate(links)]:
        yield {"type": "actions", "elements": elements}


def _texts(message: Message) -> Iterator[dict[str, Any]]:
    if title := one_line(message.title):
        yield {"type": "header", "text": plain(title, HEADER_LIMIT)}
    if body := clean(message.body).strip():
        yield {"type": "section", "text": plain(body, TEXT_LIMIT)}


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


def plain(text: str, limit: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": fit(text, limit) or "…", "emoji": False}


def _fact(fact: Field) -> dict[str, Any]:
    """Its name in bold, unless name or value has what Slack would take for formatting: then all of it is plain."""
    name, value = fit(one_line(fact.name), NAME_LIMIT) or "…", clean(fact.value).strip()
    if fact.at is not None:  # in the reader's own zone; the text stands where a client cannot show it
        text = fit(one_line(value).replace("|", "/"), FALLBACK_LIMIT, escape=escape)
        return _titled(name, f"<!date^{fact.at // SECOND}^{{date_pretty}} {{time}}|{text}>")
    if _MARKUP.search(f"{name}\n{value}"):
        return plain(f"{name}\n{value}", FIELD_LIMIT)
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


def _decider(button: Button) -> dict[str, Any]:
    """A button whose press Slack tells of: its `value` is what names the message."""
    text = plain(one_line(button.label), BUTTON_TEXT_LIMIT)
    action_id = action_id_of(button.action)
    return {
        "type": "button",
        "action_id": action_id,
        "value": button.ref,
        "text": text,
        "style": _STYLES[button.action],
    }


def action_id_of(action: str) -> str:
    """What a button that decides is called, beside those of links."""
    return f"decide-{action}"


def _button(number: int, action: Action) -> dict[str, Any]:
    text = plain(one_line(action.label), BUTTON_TEXT_LIMIT)
    return {"type": "button", "action_id": f"link-{number}", "text": text, "url": action.url}


def _link(action: Action, limit: int) -> str:
    label = fit(one_line(action.label).replace("|", "/"), limit, escape=escape) or "…"
    return f"<{escape(action.url).replace('|', '%7C')}|{label}>"
