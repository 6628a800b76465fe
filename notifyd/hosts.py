"""Host names in the one form in which they are compared and called: ASCII, by IDNA 2008."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Final

import idna

_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\.?\Z){_LABEL}(\.{_LABEL})*\.?")


@lru_cache(maxsize=4096)
def ascii_host(text: str) -> str:
    """The host name or address in `text`, in lower case and ASCII.

    A name that is not ASCII is mapped by UTS 46, non-transitional, and becomes A-labels (RFC 5891). Python's own
    codec, which `socket` uses too, follows IDNA 2003: there "faß" is "fass", and so the domain of a stranger.
    An IPv6 address comes without its brackets. Raises ValueError where `text` is not a host.
    """
    if ":" in text:
        return _ipv6(text)
    # An ASCII name is taken as it stands: those of a private network may hold underscores, which IDNA refuses.
    host = text.lower() if text.isascii() else _encoded(text)
    if not _NAME.fullmatch(host):
        raise ValueError("is not a host name")
    return host


def _ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise ValueError("is neither a host name nor an IPv6 address") from None


def _encoded(text: str) -> str:
    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError:
        raise ValueError("is not a host name that IDNA 2008 allows") from None
