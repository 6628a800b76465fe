"""An approver's sign-in at an OpenID provider: leaving the link's page for it, and coming back.

Who is signed in is said by a cookie for that page, and what went wrong by its query: one of `Outcome`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeAlias

from aiohttp import hdrs, web

from notifyd.errors import SealError, UnauthenticatedError, UnavailableError
from notifyd.model import Instant
from notifyd.registry.provider import Provider
from notifyd.registry.registry import Registry
from notifyd.security.sign_in import Begun, Draft, SignedIn, signed_in_for
from notifyd.web.pages.cookies import LIFE, Cookies
from notifyd.web.pages.forms import Alert
from notifyd.web.pages.html import leaving_page
from notifyd.web.pages.reader import Reader
from notifyd.web.problems import SignInOverError
from notifyd.web.services import SERVICES

log = logging.getLogger(__name__)

OUTCOME: Final = "sign_in"
"""The query parameter by which a page is told that a sign-in did not succeed."""

_NOT_NOW: Final = ("server_error", "temporarily_unavailable")
"""What a provider says of itself (RFC 6749, 4.1.2.1), and not of the person."""


class Outcome(StrEnum):
    FAILED = "failed"
    UNAVAILABLE = "unavailable"


Landing: TypeAlias = Callable[[web.Request, Begun, str], web.Response]
"""Takes in whom the provider has named, and goes on. Raises `UnauthenticatedError` for who may not be there."""


async def end_sign_in(
    request: web.Request, land: Landing, back: Callable[[str, Outcome], web.Response]
) -> web.Response:
    """End the sign-in that this very browser has begun; `back` is where its page tells of one that failed.

    Raises `SignInOverError`.
    """
    begun = begun_in(request)
    try:
        response = land(request, begun, await _redeem(request, begun))
    except UnavailableError as error:
        log.warning("a sign-in has to wait: %s", error)
        response = back(begun.path, Outcome.UNAVAILABLE)
    except UnauthenticatedError as error:
        log.warning("a sign-in has failed: %s", error)
        response = back(begun.path, Outcome.FAILED)
    Cookies(request, request.app[SERVICES].current()).drop_begun(response, begun)
    return response


def begun_in(request: web.Request) -> Begun:
    """The sign-in that the answer of a provider belongs to. Raises `SignInOverError`."""
    services = request.app[SERVICES]
    begun = Cookies(request, services.current()).begun(_one(request, "state"), services.clock())
    if begun is None:
        raise SignInOverError("this browser has begun no such sign-in, or it is over")
    return begun


def land(request: web.Request, begun: Begun, name: str) -> web.Response:
    """Back to the page of a link, signed in for what it is about."""
    services = request.app[SERVICES]
    registry = services.current()
    try:
        link = registry.links.read_path(begun.path)
    except SealError:
        raise UnauthenticatedError("the link is no longer valid") from None
    found = SignedIn(signed_in_for(link, provider_of(registry).issuer), name, services.clock() + LIFE)
    response = see_other(begun.path)
    Cookies(request, registry).keep_signed_in(response, begun.path, found)
    return response


async def _redeem(request: web.Request, begun: Begun) -> str:
    """Whom the provider names. Raises `UnauthenticatedError`, `UnavailableError`."""
    services = request.app[SERVICES]
    registry, now = services.current(), services.clock()
    provider, code = provider_of(registry), _one(request, "code")
    if len(request.query) > len(set(request.query)):  # RFC 6749, 3.1: who reads the other one reads otherwise
        raise UnauthenticatedError("a parameter of the answer is there twice")
    if (error := _one(request, "error")) in _NOT_NOW:
        raise UnavailableError(f"the provider says {error}")
    if not code or error:
        raise UnauthenticatedError("the provider, or the person, has refused it")
    if _one(request, "iss") not in ("", provider.issuer):  # RFC 9207
        raise UnauthenticatedError("the answer is from another issuer")
    return await provider.redeem(code, begun, now, registry.settings.auth.clock_tolerance)


async def leave_to_sign_in(
    registry: Registry,
    cookies: Cookies,
    reader: Reader,
    *,
    path: str,
    person: str,
    again: bool,
    draft: Draft,
    now: Instant,
) -> web.Response | Alert:
    """Send the browser to the provider, and have it keep what is needed when it comes back to the page at `path`.

    `person` is who is to sign in, and `again` says that somebody has. An alert tells why nobody can: the provider
    is away, or the draft too long to be kept.
    """
    canonical = registry.actors.canonical(person)
    try:
        begun, address = await provider_of(registry).begin(path, now, person=canonical, again=again)
    except UnavailableError:
        return Alert(503, f"sign_in_{Outcome.UNAVAILABLE}")
    response = leaving_page(address, reader)
    cookies.keep_begun(response, begun)
    return response if cookies.keep_draft(response, path, draft) else Alert(422, "too_long")


def provider_of(registry: Registry) -> Provider:
    """Raises `UnavailableError` where a reload has taken it away."""
    if registry.provider is None:
        raise UnavailableError("[auth.oidc] is gone")
    return registry.provider


def see_other(path: str, outcome: Outcome | None = None) -> web.Response:
    """To the page at `path` below `/approvals/`, from another page right below it."""
    # Not the whole path, so that it holds behind a proxy that adds a prefix.
    where = f"{path}?{OUTCOME}={outcome}" if outcome else path
    return web.Response(status=303, headers={hdrs.LOCATION: where})


def _one(request: web.Request, name: str) -> str:
    """A parameter that is given once (RFC 6749, 3.1); "" otherwise."""
    given = request.query.getall(name, [])
    return given[0] if len(given) == 1 else ""
