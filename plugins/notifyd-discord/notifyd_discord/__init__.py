"""The `discord` channel: one POST to a webhook, as an embed.

Vendor's rules: https://discord.com/developers/docs/resources/webhook#execute-webhook (the request),
https://discord.com/developers/docs/resources/message#embed-object-embed-limits (lengths),
https://discord.com/developers/docs/resources/message#allowed-mentions-object (nobody is pinged),
https://discord.com/developers/docs/topics/rate-limits (`retry_after` in the body, seconds),
https://discord.com/developers/docs/reference#error-messages (which member of the request is at fault).
Discord states no rate for webhooks and says that one should not be relied on; 30 a minute is what a
channel is known to take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

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
    one_line,
    post,
    units,
)

TITLE_LIMIT: Final = 256
DESCRIPTION_LIMIT: Final = 4096
FIELDS_LIMIT: Final = 25
NAME_LIMIT: Final = 256
VALUE_LIMIT: Final = 1024
TOTAL_LIMIT: Final = 6000
LINKS_LIMIT: Final = 3000
LINKS_ROOM: Final = 5200
"""A digest's links may take most of a message; those beyond `LINKS_LIMIT` stand in a second embed."""
LABEL_LIMIT: Final = 80
_DEEPEST: Final = 8
"""Steps down an answer's `errors`: `embeds.0.fields.0.value` is five."""

_COLOURS: Final = {
    Level.INFO: 0x3498DB,
    Level.SUCCESS: 0x2ECC71,
    Level.WARNING: 0xF1C40F,
    Level.ERROR: 0xE74C3C,
}
# What Discord's Markdown gives a meaning: marks anywhere, the colon before what may be an emoji's name, as in
# `2001:db8:100::1`, and what begins a line, however far it is indented.
# A backslash before a digit would be shown, so that of a numbered list goes before the dot.
_MEANING: Final = re.compile(r"[\\*_~`|\[\]<>]|:(?=[\w+-]+:)|^[ \t]*(?:[#+-]|[0-9]+\.)", re.MULTILINE)
# An address in angle brackets is shown as it is and leads there; without them it would go on into what follows it.
_ADDRESS: Final = re.compile(r"https?://[^\s<>\[\]\\`]*[^\s<>\[\]\\`.,:;\"')]")
_IN_A_LINK: Final = re.compile(r"[\s<>]")
_BLANK: Final = "\u200b"


@frozen
class DiscordConfig:
    """`webhook_url` is the URL that Discord gives for a webhook; it may name a `thread_id`."""

    webhook_url: Secret = field(validator=http_url)


class DiscordChannel:
    def __init__(self, config: DiscordConfig, context: ChannelContext) -> None:
        self._url = execution_url(config.webhook_url)
        self._context = context

    async def send(self, message: Message) -> Receipt:
        answer = await post(self._context.http, self._url, json.dumps(payload(message)).encode())
        error = answer.json
        return check_response(
            answer.status,
            answer.headers,
            answer.text,
            now=self._context.clock(),
            retry_after=error.get("retry_after"),
            said=_reason(error),
        )

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def execution_url(webhook_url: Secret) -> Secret:
    """The URL to post to: version 10 of the API, whose waiting times are seconds, and an answer that waits.

    Without `wait` Discord answers before it has saved the message, and tells of no fault afterwards.
    """
    base, _, query = webhook_url.reveal().partition("#")[0].partition("?")
    address = re.sub(r"^(https?://[^/]+)/api/(v[0-9]+/)?webhooks/", r"\1/api/v10/webhooks/", base, flags=re.I)
    # Piece by piece: the rest of the query stays as it is written.
    kept = [piece for piece in query.split("&") if piece.partition("=")[0] != "wait"] if query else []
    return Secret(f"{address}?{'&'.join([*kept, 'wait=true'])}")


def _reason(error: dict[str, Any]) -> str:
    """What Discord says in all, and of the first member that it finds a fault with."""
    said = f"{error.get('message', '')} ({error.get('code', '')})".removesuffix(" ()").strip()
    fault = next(_faults(error.get("errors"), ()), "")
    return f"{said}: {fault}" if said and fault else said


def _faults(errors: object, path: tuple[str, ...]) -> Iterator[str]:
    """Each fault with the path of its member: an object for each step, and a list `_errors` at the end."""
    if not isinstance(errors, dict) or len(path) > _DEEPEST:
        return
    found = errors.get("_errors")
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict):
            yield f"{'.'.join(path)} {one.get('message') or one.get('code') or ''}".strip()
    for name, below in errors.items():
        yield from _faults(below, (*path, name))


def escape(text: str) -> str:
    """Text that Discord shows as it is written: no Markdown, no mention, and no link but an address itself."""
    pieces, end = [], 0
    for address in _ADDRESS.finditer(text):
        pieces += [_plain_escape(text[end : address.start()], begins=end == 0), f"<{address[0]}>"]
        end = address.end()
    return "".join([*pieces, _plain_escape(text[end:], begins=end == 0)])


def _plain_escape(text: str, begins: bool = True) -> str:
    """The same for text without addresses; `begins` where it stands at the beginning of a line."""
    return _MEANING.sub(lambda found: _escaped(found, begins), text)


def _escaped(found: re.Match[str], begins: bool) -> str:
    """A backslash before the mark, which is the last character."""
    if found.start() == 0 and not begins and found[0][-1] in "#+-.":
        return found[0]
    return f"{found[0][:-1]}\\{found[0][-1]}"


def payload(message: Message) -> dict[str, Any]:
    """The request's body, a pure function of the message. It pings nobody, whatever the text says."""
    title = fit(one_line(message.title), TITLE_LIMIT, escape=_plain_escape)
    near, far = _links(message.actions)
    room = TOTAL_LIMIT - units(title) - units(far)
    embed: dict[str, Any] = {"color": _COLOURS[message.level]} | ({"title": title} if title else {})
    embed["description"] = _description(message.body, near, min(room, DESCRIPTION_LIMIT)) or _BLANK
    embed["fields"] = _facts(message.fields[:FIELDS_LIMIT], room - units(embed["description"]))
    if isinstance(occurred := message.event.get("occurredAt"), str):
        embed["timestamp"] = occurred
    further = [{"color": embed["color"], "description": far}] if far else []
    return {"embeds": [embed, *further], "allowed_mentions": {"parse": []}}


def _description(text: str, links: str, room: int) -> str:
    """The body and below it the links, because a webhook's message can have no buttons."""
    body = fit(clean(text).strip(), room - units(links) - 2, escape=escape)
    return "\n\n".join(block for block in (body, links) if block)


def _links(actions: Sequence[Action]) -> tuple[str, str]:
    """A line for each link as far as they fit, the rest counted; and those that need an embed of their own."""
    shown = leading(map(_link, actions), LINKS_ROOM, _length)
    near = leading(shown, LINKS_LIMIT, _length)
    far = shown[len(near) :]
    if left := len(actions) - len(shown):
        (far or near).append(f"… (+{left})")
    return "\n".join(near), "\n".join(far)


def _length(line: str) -> int:
    """Of a line and its end."""
    return units(line) + 1


def _link(action: Action) -> str:
    label = fit(one_line(action.label), LABEL_LIMIT, escape=_plain_escape) or _BLANK
    return f"[{label}](<{_IN_A_LINK.sub(lambda found: quote(found[0]), action.url)}>)"


def _facts(fields: Iterable[Field], room: int) -> list[dict[str, Any]]:
    """As many fields as fit into what the embed may still hold."""
    return leading(map(_fact, fields), room, lambda fact: units(fact["name"]) + units(fact["value"]))


def _fact(fact: Field) -> dict[str, Any]:
    name = fit(one_line(fact.name), NAME_LIMIT, escape=_plain_escape) or _BLANK
    value = fit(clean(fact.value).strip(), VALUE_LIMIT, escape=escape) or _BLANK
    if fact.at is not None:
        value = f"<t:{fact.at // SECOND}:f>"  # in the reader's own zone
    return {"name": name, "value": value, "inline": units(value) <= 40}


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("discord", DiscordConfig, DiscordChannel, rate_limit="30/m"),)
