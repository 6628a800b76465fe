"""The `ntfy` channel: one message published as JSON, on ntfy.sh or a server of one's own.

Vendor's rules: https://docs.ntfy.sh/publish/#publish-as-json (the request, its priorities, tags and actions),
https://docs.ntfy.sh/publish/#limitations (4,096 bytes of text, beyond which it would become a file; three actions;
60 requests at once and then one in five seconds).
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
TEXT_BYTES: Final = 4096
BODY_BYTES: Final = 2000
FACT_LIMIT: Final = 300
ACTIONS_LIMIT: Final = 3
LABEL_LIMIT: Final = 40
LINKS_BYTES: Final = 3500

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
        body = json.dumps({"topic": self._config.topic.reveal(), **payload(message)}).encode()
        token = self._config.token
        headers = {"authorization": Secret(f"Bearer {token.reveal()}")} if token else {}
        answer = await post(self._context.http, self._config.url, body, headers)
        text = hide(answer.text, [self._config.topic, *([token] if token else [])])
        said = str(answer.json.get("error", ""))
        return check_response(answer.status, answer.headers, text, now=self._context.clock(), said=said)

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def payload(message: Message) -> dict[str, Any]:
    """The request's body but for the topic, a pure function of the message. ntfy shows its text as it is."""
    few = len(message.actions) <= ACTIONS_LIMIT
    links = "" if few else _links(message.actions)
    title = fit(one_line(message.title), TITLE_LIMIT)
    return {
        **({"title": title} if title else {}),
        "message": _text(message, links) or "…",
        "priority": _PRIORITIES[message.level],
        "tags": [_TAGS[message.level]],
        "actions": [_view(action) for action in message.actions] if few else [],
        **({"click": one_line(message.actions[0].url)} if len(message.actions) == 1 else {}),
    }


def _text(message: Message, links: str) -> str:
    """The body, its facts and its links, a block each, as much of each as there are bytes for."""
    room = TEXT_BYTES - _bytes(links) - 4
    body = _fit_bytes(clean(message.body).strip(), min(room, BODY_BYTES))
    facts = (f"{one_line(one.name)}: {fit(one_line(one.value), FACT_LIMIT)}" for one in message.fields)
    shown = leading(facts, room - _bytes(body), lambda line: _bytes(line) + 1)
    return "\n\n".join(block for block in (body, "\n".join(shown), links) if block)


def _links(actions: Sequence[Action]) -> str:
    """Label and address of each, as far as they fit; a last line counts the rest."""
    lines = (f"{fit(one_line(action.label), LABEL_LIMIT)}\n{one_line(action.url)}" for action in actions)
    return "\n\n".join(listed(lines, len(actions), LINKS_BYTES, lambda line: _bytes(line) + 2))


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
