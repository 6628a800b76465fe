"""The `ntfy` channel: one message published as JSON, on ntfy.sh or a server of one's own.

Vendor's rules: https://docs.ntfy.sh/publish/#publish-as-json (the request, its priorities, tags and actions),
https://docs.ntfy.sh/publish/#limitations (4,096 bytes of text, with which it would become a file; three actions;
60 requests at once and then one in five seconds),
https://github.com/binwiederhier/ntfy/blob/main/server/server.go (`transformBodyJSON`: a request may have twice the
bytes of a text).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import attrs
from attrs import field, frozen

from notifyd.plugin import (
    Action,
    ChannelContext,
    ChannelType,
    Level,
    Message,
    Receipt,
    Secret,
    check_response,
    clean,
    fit,
    hide,
    hookimpl,
    http_url,
    leading,
    listed,
    one_line,
    post,
)

TITLE_LIMIT: Final = 200
TEXT_BYTES: Final = 4095
REQUEST_BYTES: Final = 8192
BODY_BYTES: Final = 2000
FACT_LIMIT: Final = 300
ACTIONS_LIMIT: Final = 3
LABEL_LIMIT: Final = 40
LINKS_BYTES: Final = 3500
URL_BYTES: Final = 1000
"""Of a button's address: three of them, and the one of a tap, leave room for the text."""
SHARES: Final = (1, 2, 4)
"""Where the request is too large, its text gets a half of its limits, and so on."""

_PRIORITIES: Final = {Level.INFO: 3, Level.SUCCESS: 3, Level.WARNING: 4, Level.ERROR: 5}
_TAGS: Final = {
    Level.INFO: "information_source",
    Level.SUCCESS: "white_check_mark",
    Level.WARNING: "warning",
    Level.ERROR: "x",
}
_TOPIC: Final = re.compile(r"[-_A-Za-z0-9]{1,64}")


def _is_topic(config: NtfyConfig, attribute: attrs.Attribute[Secret], value: Secret) -> None:
    if not _TOPIC.fullmatch(value.reveal()):
        raise ValueError("not a topic: 1 to 64 letters, digits, - and _")


def _is_token(config: NtfyConfig, attribute: attrs.Attribute[Any], value: Secret | None) -> None:
    if value is not None and not re.fullmatch(r"[!-~]+", value.reveal()):
        raise ValueError("not an access token")


@frozen
class NtfyConfig:
    """`topic` is secret: whoever knows it reads it. `url` is the server's, and `token` an access token there."""

    topic: Secret = field(validator=_is_topic)
    url: Secret = field(default=Secret("https://ntfy.sh"), validator=http_url)
    token: Secret | None = field(default=None, validator=_is_token)


class NtfyChannel:
    def __init__(self, config: NtfyConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        body = request(self._config.topic.reveal(), message)
        token = self._config.token
        headers = {"authorization": Secret(f"Bearer {token.reveal()}")} if token else {}
        answer = await post(self._context.http, self._config.url, body, headers)
        text = hide(answer.text, [self._config.topic, *([token] if token else [])])
        said = str(answer.json.get("error", ""))
        return check_response(answer.status, answer.headers, text, now=self._context.clock(), said=said)

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def request(topic: str, message: Message) -> bytes:
    """The request's body, a pure function of topic and message, with as much of its text as fits."""
    for share in SHARES:
        # Not as ASCII: each letter that is not would take twice its bytes, or three times.
        body = json.dumps({"topic": topic, **payload(message, share)}, ensure_ascii=False).encode()
        if len(body) <= REQUEST_BYTES:
            break
    return body


def payload(message: Message, share: int = 1) -> dict[str, Any]:
    """What is published, but for the topic. ntfy shows its text as it is."""
    short = all(_bytes(action.url) <= URL_BYTES for action in message.actions)
    buttons = message.actions if short and len(message.actions) <= ACTIONS_LIMIT else ()
    links = "" if buttons else _links(message.actions, share)
    title = fit(one_line(message.title), TITLE_LIMIT)
    return {
        **({"title": title} if title else {}),
        "message": _text(message, links, share) or "…",
        "priority": _PRIORITIES[message.level],
        "tags": [_TAGS[message.level]],
        "actions": [_view(action) for action in buttons],
        **({"click": one_line(buttons[0].url)} if len(buttons) == 1 else {}),
    }


def _text(message: Message, links: str, share: int) -> str:
    """The body, its facts and its links, a block each, as much of each as there are bytes for."""
    room = TEXT_BYTES // share - _bytes(links) - 4
    body = _fit_bytes(clean(message.body).strip(), min(room, BODY_BYTES // share))
    facts = (f"{one_line(one.name)}: {fit(one_line(one.value), FACT_LIMIT)}" for one in message.fields)
    shown = leading(facts, room - _bytes(body), lambda line: _bytes(line) + 1)
    return "\n\n".join(block for block in (body, "\n".join(shown), links) if block)


def _links(actions: Sequence[Action], share: int) -> str:
    """Label and address of each, as far as they fit; a last line counts the rest."""
    lines = (f"{fit(one_line(action.label), LABEL_LIMIT)}\n{one_line(action.url)}" for action in actions)
    return "\n\n".join(listed(lines, len(actions), LINKS_BYTES // share, lambda line: _bytes(line) + 2))


def _view(action: Action) -> dict[str, str]:
    return {
        "action": "view",
        "label": fit(one_line(action.label), LABEL_LIMIT) or "…",
        "url": one_line(action.url),
    }


def _bytes(text: str) -> int:
    return len(text.encode())


def _fit_bytes(text: str, room: int) -> str:
    """A character is a byte at least and three for each UTF-16 unit at most."""
    limit = room
    while _bytes(shown := fit(text, limit)) > room:
        limit = min(limit - 1, limit * room // _bytes(shown))
    return shown


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("ntfy", NtfyConfig, NtfyChannel, rate_limit="12/m"),)
