"""The `mattermost` channel: one POST to an incoming webhook, as an attachment.

Vendor's rules: https://developers.mattermost.com/integrate/webhooks/incoming/ (the request),
https://developers.mattermost.com/integrate/reference/message-attachments/ (the attachment's members),
https://docs.mattermost.com/end-user-guide/collaborate/format-messages.html (its Markdown),
https://github.com/mattermost/marked/blob/master/lib/marked.js (what a backslash escapes, of which `:`, `<` and `=`
are none: before them it is shown),
https://github.com/mattermost/mattermost/blob/master/server/channels/app/ratelimit.go (a 429's headers).
Older servers take attachments of 8,000 characters as JSON, so that all of them take what is sent here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from attrs import field, frozen

from notifyd.plugin import (
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
    listed,
    one_line,
    post,
    units,
)

SIZE_LIMIT: Final = 7900
"""Characters of the attachment as JSON."""
TITLE_LIMIT: Final = 250
BODY_LIMIT: Final = 3000
FALLBACK_LIMIT: Final = 200
NAME_LIMIT: Final = 100
VALUE_LIMIT: Final = 300
FIELDS_LIMIT: Final = 20
LABEL_LIMIT: Final = 80
LINKS_ROOM: Final = 6000
"""Characters of them as JSON."""
SHORT: Final = 40
SHARES: Final = (1, 2, 4, 8, 16)
"""Where the attachment is too large, its texts get a half of their limits, and so on."""

_COLOURS: Final = {
    Level.INFO: "#3498DB",
    Level.SUCCESS: "#2ECC71",
    Level.WARNING: "#F1C40F",
    Level.ERROR: "#E74C3C",
}
_MEANING: Final = re.compile(
    r"(?P<address>(?<![\w.~/?#&=%+:-])https?://[\w.~/?#&=%+:-]*[a-z0-9/=&%#+-](?=[()\s]|[.,:!?]*(?:\s|\Z)))"
    r"|(?P<mark>[*_`|\[\]>!]|[~#](?!\w)|^[ \t]*(?:[+-]|[0-9]+[.)])|\\(?=[^\w\s]|_|$))"
    r"|(?P<named>[~#](?=\w))"
    r"|(?P<joined>@(?=\w)|:(?=[\w+-]+:|//)|(?<!\w)[:;](?=\S))"
    r"|(?P<entity><(?=\S)|&(?=\w+;))",
    re.MULTILINE | re.IGNORECASE,
)
"""What has a meaning: an address, which is shown as it is; marks of Markdown, which a backslash escapes; and what
is looked for once these are read: mentions, channels, hashtags, emoji, smileys, tags and entities. No address
begins within another: each would be read to its end again. None is before a semicolon, as `&lt;` may end it."""
_BEGINS: Final = re.compile(r"^(?= {4}| {0,3}\t| *=)", re.MULTILINE)
"""A line of code, in which escapes are shown, or one that makes a heading of what is above it."""
_MENTION: Final = re.compile(r"@(?=\w)")
_JOINER: Final = "\u2060"
"""Not seen, and no part of a name."""
_ENTITIES: Final = {"<": f"&lt;{_JOINER}", "&": "&amp;"}
_BRACKETS: Final = {r"\[": "&#91;", r"\]": "&#93;"}
"""In the words of a link an escaped bracket counts as one all the same."""
_IN_A_LINK: Final = re.compile(r"[\s<>()\\]")


@frozen
class MattermostConfig:
    """`webhook_url` is the URL that Mattermost shows for an incoming webhook."""

    webhook_url: Secret = field(validator=http_url)


class MattermostChannel:
    def __init__(self, config: MattermostConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        body = json.dumps(payload(message)).encode()
        answer = await post(self._context.http, self._config.webhook_url, body)
        return check_response(
            answer.status,
            answer.headers,
            answer.text,
            now=self._context.clock(),
            retry_after=_reset(answer.headers),
            said=str(answer.json.get("message", "")),
        )

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def _reset(headers: Mapping[str, str]) -> str | None:
    """Seconds until a whole burst is allowed again, for where a proxy lets no `Retry-After` through.

    `Retry-After` comes sooner: it says when the next single request is allowed.
    """
    return None if "Retry-After" in headers else headers.get("X-RateLimit-Reset")


def escape(text: str) -> str:
    """Text that Mattermost shows as it is written: no Markdown, no emoji, and nobody is notified."""
    return _BEGINS.sub(_JOINER, _MEANING.sub(_escaped, text))


def _escaped(found: re.Match[str]) -> str:
    match found.lastgroup:
        case "mark":
            return f"{found[0][:-1]}\\{found[0][-1]}"
        case "named":
            return f"\\{found[0]}{_JOINER}"
        case "joined":
            return f"{found[0]}{_JOINER}"
        case "entity":
            return _ENTITIES[found[0]]
        case _:  # an address
            return found[0]


def _in_brackets(text: str) -> str:
    """The same, for the words of a link."""
    text = escape(text)
    for mark, entity in _BRACKETS.items():
        text = text.replace(mark, entity)
    return text


def _unread(text: str) -> str:
    """Text where none is read as Markdown: it notifies nobody."""
    return _MENTION.sub(f"@{_JOINER}", text)


def payload(message: Message) -> dict[str, Any]:
    """The request's body, a pure function of the message, with as much of its text as fits."""
    links = _links(message.actions)
    for share in SHARES:
        attachment = _attachment(message, links, share)
        if units(json.dumps(attachment, ensure_ascii=False)) <= SIZE_LIMIT:
            break
    return {"attachments": [attachment]}


def _attachment(message: Message, links: str, share: int) -> dict[str, Any]:
    title = one_line(message.title)
    body = fit(clean(message.body).strip(), BODY_LIMIT // share, escape=escape)
    fallback = " ".join(text for text in (title, one_line(message.body)) if text)
    return {
        "color": _COLOURS[message.level],
        "fallback": fit(fallback, FALLBACK_LIMIT, escape=_unread) or "…",
        "title": fit(title, TITLE_LIMIT, escape=escape),
        "text": "\n\n".join(block for block in (body, links) if block),
        "fields": [_fact(fact, share) for fact in message.fields[: FIELDS_LIMIT // share]],
    }


def _fact(fact: Field, share: int) -> dict[str, Any]:
    value = fit(one_line(fact.value), VALUE_LIMIT // share, escape=escape)
    return {
        "title": fit(one_line(fact.name), NAME_LIMIT, escape=escape) or "…",
        "value": value or "…",
        "short": units(value) <= SHORT,
    }


def _links(actions: Sequence[Action]) -> str:
    """A line for each link, as far as they fit; a last one counts the rest."""
    return "\n".join(listed(map(_link, actions), len(actions), LINKS_ROOM, _in_json))


def _in_json(line: str) -> int:
    """The length of a line as JSON, where each backslash that escapes a mark counts twice."""
    return units(json.dumps(line, ensure_ascii=False))


def _link(action: Action) -> str:
    label = fit(one_line(action.label), LABEL_LIMIT, escape=_in_brackets) or "…"
    return f"[{label}]({_IN_A_LINK.sub(lambda found: quote(found[0], safe=''), one_line(action.url))})"


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("mattermost", MattermostConfig, MattermostChannel, rate_limit="1/s"),)
