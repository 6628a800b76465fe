"""That a decision was sent from its own page: a token without state, and what the browser says."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from notifyd.model import SECOND, Instant
from notifyd.security.secrets import Keyring

LIFE: Final[Instant] = 12 * 3600 * SECOND
"""How long a form may stay open."""

_LABEL: Final = "csrf"


def issue(keyring: Keyring, link: str, now: Instant) -> str:
    """A token for the form on `link`'s page: `<seconds>.<identity>`."""
    issued = now // SECOND
    return f"{issued}.{keyring.identify(_LABEL, _content(link, issued))}"


def holds(keyring: Keyring, link: str, token: str, now: Instant) -> bool:
    """Was `token` issued for `link`, and lately?"""
    stamp, _, identity = token.partition(".")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        return False
    fresh = 0 <= now - int(stamp) * SECOND <= LIFE
    return fresh and keyring.same(_LABEL, _content(link, int(stamp)), identity)


def _content(link: str, issued: int) -> bytes:
    return f"{issued}/{link}".encode()


def same_origin(request: web.Request, public_url: str) -> bool:
    """Does the browser, where it says anything, say that the form came from this site?

    `Origin` is `null` where the page's referrer policy is `no-referrer`, as it is here.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get(hdrs.ORIGIN, "null")
    return origin == "null" or _site(origin) in (request.host, _site(public_url))


def _site(url: str) -> str | None:
    """Host and port in `url` as they are written, None where it is no URL."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None
