"""Whom a configuration has notifyd call, each with the key that says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import frozen

from notifyd.config.faults import dotted
from notifyd.config.settings import ChannelSettings, Settings
from notifyd.config.structure import options_of
from notifyd.post import exact_url, http_url
from notifyd.security.secrets import Secret
from notifyd.trust import CaFile

_MAIL_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
_NATS_PORTS: Final = {"ws": 80, "wss": 443}


@frozen
class Endpoint:
    """`key` is the option that names it. `tls` is "tls" from the first byte on, "starttls" later on, or "none".

    `url` is there where the call is HTTP and passes the egress guard. It may hold a secret. `ca` are authorities
    that are trusted beside those of the configuration.
    """

    key: str
    host: str
    port: int
    tls: str
    url: Secret | None = None
    ca: CaFile | None = None


def endpoints(settings: Settings) -> Iterator[Endpoint]:
    """Those whose address is an option of its own: Apprise's URLs, which mean an address to it alone, are not."""
    for key, url in _own(settings):
        yield _by_url(key, url)
    for name, channel in settings.channels.items():
        yield from _of_channel(dotted("channels", name), channel)
    for name, forwarder in settings.resume.forwarders.items():
        yield from _of_channel(dotted("resume.forwarders", name), forwarder)


def _own(settings: Settings) -> Iterator[tuple[str, str]]:
    auth = settings.auth
    if settings.heartbeat.url:
        yield "heartbeat.url", settings.heartbeat.url.reveal()
    if auth.jwt and auth.jwt.jwks.keys is None:
        yield "auth.jwt.jwks", auth.jwt.jwks.at
    if auth.oidc:
        yield "auth.oidc.issuer", auth.oidc.issuer
    for index, origin in enumerate(settings.resume.allowed_origins):
        yield f"resume.allowed_origins[{index}]", origin


def _of_channel(at: str, channel: ChannelSettings) -> Iterator[Endpoint]:
    config = channel.config
    for key, attribute in options_of(type(config)).items():
        if _is_url(attribute.validator):
            yield from _by_urls(f"{at}.{key}", getattr(config, attribute.name))
    yield from _of_mail(at, config)
    for index, server in enumerate(getattr(config, "servers", ())):
        yield _of_nats(f"{at}.servers[{index}]", server)


def _is_url(validator: Any) -> bool:
    """Does it hold a value, or each in it, to be a URL that is called by the session which the daemon gives?"""
    inner = [getattr(validator, name, None) for name in ("validator", "member_validator", "value_validator")]
    several: Iterable[Any] = getattr(validator, "_validators", ())
    return validator is http_url or any(_is_url(one) for one in (*inner, *several) if one is not None)


def _by_urls(key: str, value: object) -> Iterator[Endpoint]:
    match value:
        case Secret():
            yield _by_url(key, value.reveal())
        case tuple() | list():
            for index, one in enumerate(value):
                yield from _by_urls(f"{key}[{index}]", one)
        case dict():
            for name, one in value.items():
                yield from _by_urls(dotted(key, name), one)


def _by_url(key: str, text: str) -> Endpoint:
    url = exact_url(text)
    tls = "tls" if url.scheme == "https" else "none"
    return Endpoint(key, url.host or "", url.port or 0, tls, Secret(text))


def _of_mail(at: str, config: Any) -> Iterator[Endpoint]:
    host, tls = getattr(config, "host", None), getattr(config, "tls", None)
    if isinstance(host, str) and tls in _MAIL_PORTS:
        port = getattr(config, "port", None) or _MAIL_PORTS[tls]
        yield Endpoint(f"{at}.host", host, port, tls, ca=getattr(config, "tls_ca", None))


def _of_nats(key: str, server: Secret) -> Endpoint:
    parts = urlsplit(server.reveal())
    return Endpoint(key, parts.hostname or "", parts.port or _NATS_PORTS.get(parts.scheme, 4222), "none")
