"""The `webhook` channel: one signed POST for each message, by Standard Webhooks (https://www.standardwebhooks.com).

The body is the same at every attempt, and so is `webhook-id`, by which a receiver tells a repeat. The
`webhook-timestamp` is the time of the attempt, because receivers refuse old ones; so the signature differs.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final

import attrs
import orjson
from attrs import field, frozen

from notifyd.plugin import (
    SECOND,
    CaFile,
    ChannelContext,
    ChannelType,
    Message,
    Receipt,
    Secret,
    check_response,
    hookimpl,
    http_url,
    post,
    sign,
)

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a field name, RFC 9110, 5.6.2
_OURS: Final = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
        "x-correlation-id",
    }
)
_MEDIA_TYPE: Final = re.compile(
    rf"{_TOKEN.pattern}/{_TOKEN.pattern}( *; *{_TOKEN.pattern}={_TOKEN.pattern})*"
)
_CORRELATION: Final = re.compile(r"[\x21-\x7e]{1,200}")


def _are_headers(
    config: WebhookConfig, attribute: attrs.Attribute[Mapping[str, Secret]], value: Mapping[str, Secret]
) -> None:
    for name, secret in value.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if name.lower() in _OURS:
            raise ValueError(f"the header {name!r} is set by the channel")
        if not secret.reveal().isprintable() or not secret.reveal().isascii():
            raise ValueError(f"the value of {name!r} holds characters that a header cannot carry")


def _is_signing_secret(
    config: WebhookConfig, attribute: attrs.Attribute[Any], value: Secret | tuple[Secret, ...] | None
) -> None:
    secrets = (value,) if isinstance(value, Secret) else value or ()
    sign(secrets, "check", 0, b"")


def _is_media_type(config: WebhookConfig, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and not _MEDIA_TYPE.fullmatch(value):
        raise ValueError('not a media type, such as "text/plain; charset=utf-8"')


@frozen
class WebhookConfig:
    """`secret` signs; `secrets` does so with several, for rotation: a receiver takes either signature.

    Without any, requests bear `webhook-id` and `webhook-timestamp` alone. Either way notifyd adds a signature of
    its own where it has a key in `keys.sign`. `headers` are sent as they are. With a `content_type` the request's
    body is the message's, as its template wrote it; without, it is JSON. `tls_ca` are authorities to trust beside
    the system's, in place of those of `egress`.
    """

    url: Secret = field(validator=http_url)
    secret: Secret | None = field(default=None, validator=_is_signing_secret)
    secrets: tuple[Secret, ...] = field(default=(), validator=_is_signing_secret)
    headers: Mapping[str, Secret] = field(factory=dict, validator=_are_headers)
    content_type: str | None = field(default=None, validator=_is_media_type)
    tls_ca: CaFile | None = None

    def __attrs_post_init__(self) -> None:
        if self.secret is not None and self.secrets:
            raise ValueError("secret and secrets exclude each other: put all of them into secrets")

    @property
    def signing(self) -> tuple[Secret, ...]:
        return self.secrets if self.secret is None else (self.secret,)


class WebhookChannel:
    def __init__(
        self, config: WebhookConfig, context: ChannelContext, tls: ssl.SSLContext | None = None
    ) -> None:
        self._config = config
        self._context = context
        self._tls = tls

    async def send(self, message: Message) -> Receipt:
        own = self._config.content_type is not None
        body = message.body.encode("utf-8", "replace") if own else payload(message)
        headers = self._headers(message, body)
        answer = await post(self._context.http, self._config.url, body, headers, tls=self._tls)
        return check_response(answer.status, answer.headers, answer.text, now=self._context.clock())

    def _headers(self, message: Message, body: bytes) -> dict[str, str | Secret]:
        now = self._context.clock() // SECOND
        signed = sign(
            self._config.signing, message.id, now, body, self._context.signatures(message.id, now, body)
        )
        if not signed["webhook-signature"]:
            del signed["webhook-signature"]
        if self._config.content_type is not None:
            signed["content-type"] = self._config.content_type
        correlation = str(message.event.get("correlationId", ""))
        if _CORRELATION.fullmatch(correlation):
            signed["x-correlation-id"] = correlation
        return {**self._config.headers, **signed}

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def payload(message: Message) -> bytes:
    """The request's body: JSON, a pure function of the message.

    `timestamp` is the event's own `occurredAt`; null where a message is about no event in time.
    """
    event = message.event
    kind, action = event.get("kind"), event.get("action")
    body = {
        "type": f"{kind}.{action}" if kind and action else str(kind or action or "notification"),
        "timestamp": event.get("occurredAt"),
        "data": {
            "event": event,
            "message": {
                "title": message.title,
                "body": message.body,
                "level": message.level,
                "locale": message.locale,
            },
            "links": [{"label": action.label, "url": action.url} for action in message.actions],
        },
    }
    try:
        return orjson.dumps(body, default=dict)
    except TypeError:  # half a surrogate pair, an integer beyond 64 bits, a name that is no text
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=dict).encode(
            "utf-8", "replace"
        )


async def _open(config: WebhookConfig, context: ChannelContext) -> WebhookChannel:
    # Off the loop, because it reads the system's certificates.
    tls = await asyncio.to_thread(config.tls_ca.context) if config.tls_ca else None
    return WebhookChannel(config, context, tls)


def _own_body(config: WebhookConfig) -> str | None:
    """The media type where the receiver wants a form that only the operator's template knows."""
    media_type = (config.content_type or "").partition(";")[0].strip().lower()
    return media_type if media_type not in ("", "text/plain") else None


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (
        ChannelType("webhook", WebhookConfig, _open, own_body=_own_body, for_programs=True, fields=False),
    )
