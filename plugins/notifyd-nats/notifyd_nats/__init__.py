"""The `nats` forwarder: publishes each end of an approval to a JetStream stream, and waits for its word.

Protocol: https://docs.nats.io/reference/reference-protocols/nats_api_reference (the error codes of JetStream),
https://docs.nats.io/nats-concepts/jetstream/headers#publish (`Nats-Msg-Id`, by which a stream drops what it has
already). The server keeps what it has acknowledged over a power failure only with `sync_interval: always`
(https://docs.nats.io/running-a-nats-service/configuration#jetstream).
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from attrs import field, frozen

from notifyd.plugin import ChannelContext, ChannelType, Secret, hookimpl

_SUBJECT: Final = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
_STREAM: Final = re.compile(r"[^\s.*>/\\]+")
_SCHEMES: Final = ("nats", "tls", "ws", "wss")


def _are_servers(
    config: NatsConfig, attribute: attrs.Attribute[tuple[Secret, ...]], value: tuple[Secret, ...]
) -> None:
    if not value:
        raise ValueError("at least one server is required")
    for one in value:
        parts = urlsplit(one.reveal())
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ValueError("not a server's URL, such as nats://bus.acme.example:4222")


def _is_subject(config: NatsConfig, attribute: attrs.Attribute[str], value: str) -> None:
    if not _SUBJECT.fullmatch(value):
        raise ValueError('not a subject to publish to: words with dots between them, without "*" and ">"')


def _is_stream(config: NatsConfig, attribute: attrs.Attribute[str], value: str) -> None:
    if not _STREAM.fullmatch(value):
        raise ValueError("not a stream's name")


@frozen
class NatsConfig:
    """`subject` must be one that `stream` has. `servers` may hold user and password; `token` is another way in."""

    servers: tuple[Secret, ...] = field(validator=_are_servers)
    subject: str = field(default="notifyd.resume", validator=_is_subject)
    stream: str = field(default="NOTIFYD", validator=_is_stream)
    token: Secret | None = None


def _open(config: NatsConfig, context: ChannelContext) -> Any:
    from notifyd_nats.forwarder import NatsForwarder

    return NatsForwarder(config, context)


@hookimpl
def notifyd_resume_forwarders() -> tuple[ChannelType, ...]:
    return (ChannelType("nats", NatsConfig, _open, for_programs=True),)
