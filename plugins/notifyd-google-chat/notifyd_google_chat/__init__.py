"""The `google-chat` channel: one POST to an incoming webhook, as a card.

Vendor's rules: https://developers.google.com/workspace/chat/quickstart/webhooks (the request; one a second for
each space), https://developers.google.com/workspace/chat/api/reference/rest/v1/cards (100 widgets in a card),
https://developers.google.com/workspace/chat/format-messages#card-formatting (the HTML of a card's text),
https://developers.google.com/workspace/chat/api/reference/rest/v1/CardWithId (32 KB for a card),
https://developers.google.com/workspace/chat/api/reference/rest/v1/spaces.messages/create (a message with a known
`threadKey` is a reply where `messageReplyOption` says so, and begins a thread where there is none).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

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
)

SIZE_LIMIT: Final = 30_000
"""Bytes of the request, a little below what a card may have."""
TITLE_LIMIT: Final = 200
BODY_LIMIT: Final = 4000
FALLBACK_LIMIT: Final = 300
FIELDS_LIMIT: Final = 40
NAME_LIMIT: Final = 100
VALUE_LIMIT: Final = 300
BUTTONS_LIMIT: Final = 5
"""More than a handful, such as those of a digest, read better as a list of links."""
LABEL_LIMIT: Final = 80
LINKS_ROOM: Final = 12_000
"""Bytes of the links that are listed, as they are sent."""
URL_LIMIT: Final = 2048
"""Bytes: what a link of an event may have."""
SHARES: Final = (1, 2, 4, 8)
"""Where the request is too large, its texts get a half of their limits, and so on."""

_NEWS: Final = ("updated", "acknowledged", "expired", "resumed", "resume_failed")
"""What is told of an approval below its request. What asks again is to be seen by itself."""
_REPLIES: Final = "messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"

_MARKS: Final = {Level.INFO: "ℹ️", Level.SUCCESS: "✅", Level.WARNING: "⚠️", Level.ERROR: "❌"}


@frozen
class GoogleChatConfig:
    """`webhook_url` is the URL that Google Chat gives for a webhook of a space, with its key and token."""

    webhook_url: Secret = field(validator=http_url)


class GoogleChatChannel:
    def __init__(self, config: GoogleChatConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context

    async def send(self, message: Message) -> Receipt:
        key = thread_key(message.event)
        url = replying(self._config.webhook_url) if key else self._config.webhook_url
        answer = await post(self._context.http, url, payload(message))
        error = answer.json.get("error")
        said = _reason(error) if isinstance(error, dict) else ""
        now = self._context.clock()
        return check_response(answer.status, answer.headers, answer.text, now=now, said=said)

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def _reason(error: Mapping[str, Any]) -> str:
    """Google's code, such as INVALID_ARGUMENT, and what it says beside it."""
    return ": ".join(str(error[name]) for name in ("status", "message") if error.get(name))


def replying(webhook_url: Secret) -> Secret:
    """The URL to post to where a message has the key of a thread; one that says how to reply stays as it is."""
    base, mark, query = webhook_url.reveal().partition("#")[0].partition("?")
    said = any(piece.partition("=")[0] == "messageReplyOption" for piece in query.split("&"))
    return webhook_url if said else Secret(f"{base}?{query}{'&' if mark else ''}{_REPLIES}")


def thread_key(event: Mapping[str, Any]) -> str:
    """What a request and its news have in common, or a hold and its release; "" for what stands by itself.

    A hold has a thread of its own: one that comes before the request would have that as a reply, seen by nobody.
    """
    tenant, policy = event.get("tenant"), event.get("policy")
    if not (event.get("runId") and event.get("approvalId") and isinstance(tenant, Mapping)):
        return ""
    action, about = event.get("action"), [tenant.get("id"), event["runId"], event["approvalId"]]
    if action in ("hold", "released") and isinstance(policy, Mapping):
        about.append(policy.get("id"))
    elif not (action in _NEWS or (action == "requested" and event.get("round", 1) == 1)):
        return ""
    return hashlib.sha256(json.dumps([event.get("kind"), *about]).encode()).hexdigest()


def escape(text: str) -> str:
    """Text inside a card, which knows some HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def payload(message: Message) -> bytes:
    """The request's body, a pure function of the message, with as much of its text as fits."""
    for share in SHARES:
        body = json.dumps(_message(message, share), ensure_ascii=False, separators=(",", ":")).encode()
        if len(body) <= SIZE_LIMIT:
            break
    return body


def _message(message: Message, share: int) -> dict[str, Any]:
    title = fit(one_line(message.title), TITLE_LIMIT) or "…"
    header = {"title": f"{_MARKS[message.level]} {title}"}
    card: dict[str, Any] = {"header": header}
    if widgets := list(_widgets(message, share)):
        card["sections"] = [{"widgets": widgets}]
    fallback = "\n".join(text for text in (title, clean(message.body).strip()) if text)
    key = thread_key(message.event)
    return {
        **({"thread": {"threadKey": key}} if key else {}),
        "fallbackText": fit(fallback, FALLBACK_LIMIT),
        "cardsV2": [{"cardId": "notifyd", "card": card}],
    }


def _widgets(message: Message, share: int) -> Iterator[dict[str, Any]]:
    if body := clean(message.body).strip():
        yield _paragraph(fit(body, BODY_LIMIT // share, escape=escape))
    for fact in message.fields[: FIELDS_LIMIT // share]:
        yield _fact(fact)
    actions = [action for action in message.actions if 0 < _bytes(action.url) <= URL_LIMIT]
    if len(message.actions) > BUTTONS_LIMIT:
        lines = listed(map(_link, actions), len(message.actions), LINKS_ROOM, _paragraph_bytes)
        yield from map(_paragraph, lines)
    elif actions:
        yield {"buttonList": {"buttons": [_button(action) for action in actions]}}


def _paragraph(text: str) -> dict[str, Any]:
    return {"textParagraph": {"text": text}}


def _bytes(text: str) -> int:
    return len(text.encode())


def _paragraph_bytes(text: str) -> int:
    return _bytes(json.dumps(_paragraph(text), ensure_ascii=False))


def _fact(fact: Field) -> dict[str, Any]:
    name = fit(one_line(fact.name), NAME_LIMIT) or "…"
    value = fit(one_line(fact.value), VALUE_LIMIT, escape=escape) or "…"
    return {"decoratedText": {"topLabel": name, "text": value, "wrapText": True}}


def _link(action: Action) -> str:
    label = fit(one_line(action.label), LABEL_LIMIT, escape=escape) or "…"
    return f'<a href="{escape(one_line(action.url))}">{label}</a>'


def _button(action: Action) -> dict[str, Any]:
    return {
        "text": fit(one_line(action.label), LABEL_LIMIT) or "…",
        "onClick": {"openLink": {"url": one_line(action.url)}},
    }


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("google-chat", GoogleChatConfig, GoogleChatChannel, rate_limit="1/s"),)
