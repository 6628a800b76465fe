"""The names that a client's TLS certificate proves, compared with those that the configuration gives a client.

A name is of one kind: a DNS name or a mail address (RFC 5280, section 4.2.1.6) among the subject's alternative
names, or a URI there, such as a SPIFFE id. A certificate without alternative names has its common name in their
place: RFC 9525 gives that up for servers, and authorities of one's own still write no more for a client.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeAlias

from notifyd.hosts import ascii_host

Peer: TypeAlias = Mapping[str, Any]
"""A verified certificate, as `ssl.SSLSocket.getpeercert` tells it."""


class Kind(StrEnum):
    """Kinds of names, by what `ssl` calls them in the alternative names; the last stands in the subject."""

    DNS = "DNS"
    URI = "URI"
    MAIL = "email"
    COMMON = "commonName"


Name: TypeAlias = tuple[Kind, str]
"""A name in the form in which it is compared."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def wanted(text: str) -> frozenset[Name]:
    """The names that an entry of `certificate_names` stands for. Raises ValueError for a pattern."""
    if "*" in text:
        raise ValueError("must be one name: a certificate for * proves none")
    alternative = Kind.URI if _SCHEME.match(text) else Kind.MAIL if "@" in text else Kind.DNS
    return _names((alternative, text), (Kind.COMMON, text))


def presented(peer: Peer) -> frozenset[Name]:
    """The names that a certificate proves."""
    if "subjectAltName" in peer:
        alternatives = peer["subjectAltName"]
        return _names(*((Kind(kind), text) for kind, text in alternatives if kind in _CANONICAL))
    subject = [pair for parts in peer.get("subject", ()) for pair in parts]
    common = [text for name, text in subject if name == Kind.COMMON]
    return _names((Kind.COMMON, common[0])) if len(common) == 1 else frozenset()


def expired(peer: Peer, now: float) -> bool:
    """Is it past the certificate's time? A connection may outlive it. `now` in seconds since the epoch."""
    return now > ssl.cert_time_to_seconds(peer["notAfter"])


def _names(*written: tuple[Kind, str]) -> frozenset[Name]:
    """What cannot be a name of its kind is left out."""
    found = set()
    for kind, text in written:
        try:
            found.add((kind, _CANONICAL[kind](text)))
        except ValueError:
            continue
    return frozenset(found)


def _host(text: str) -> str:
    return ascii_host(text).rstrip(".")


def _mailbox(text: str) -> str:
    local, _, domain = text.rpartition("@")
    return f"{local}@{_host(domain)}"


def _common(text: str) -> str:
    """A host's name is compared as one."""
    try:
        return _host(text)
    except ValueError:
        return text


_CANONICAL: Final[Mapping[str, Callable[[str], str]]] = {
    Kind.DNS: _host,
    Kind.URI: str,
    Kind.MAIL: _mailbox,
    Kind.COMMON: _common,
}
