"""Signing in to the console: by a client's API token, or as a person at the OpenID provider. And signing out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from aiohttp import hdrs, web

from notifyd.config.settings import Scope
from notifyd.errors import ScopeMissingError, UnauthenticatedError
from notifyd.model import Principal
from notifyd.registry.credentials import digest_of
from notifyd.registry.registry import Registry
from notifyd.security.sign_in import Begun, Draft
from notifyd.web.auth import PRINCIPAL
from notifyd.web.console import session
from notifyd.web.console.frame import Form, acts, read_form, see
from notifyd.web.console.html import PATH, bare_page, render_problem, with_headers
from notifyd.web.console.session import Visit
from notifyd.web.pages import csrf
from notifyd.web.pages.cookies import Cookies
from notifyd.web.pages.forms import Alert
from notifyd.web.pages.reader import reader_of
from notifyd.web.pages.sign_in import OUTCOME, Outcome, leave_to_sign_in, provider_of
from notifyd.web.problems import Problem
from notifyd.web.services import SERVICES

SIGN_IN: Final = PATH + "sign-in"

_BEGUN: Final = PATH.removeprefix("/")
"""What the path of a sign-in begins with that was begun here; no link begins like that."""

_NEXT: Final = re.compile(r"(?!/)[A-Za-z0-9/._:@+%~-]{1,500}")
"""A page of the console, by its path below it."""

_ALERTS: Final[Mapping[str, str]] = {
    Outcome.FAILED: "The sign-in did not succeed, or its person is no operator here.",
    Outcome.UNAVAILABLE: "The provider does not answer. Try again in a moment.",
}

routes = web.RouteTableDef()


@routes.get(PATH.removesuffix("/"))
async def get_root(request: web.Request) -> web.Response:
    return web.Response(status=308, headers={hdrs.LOCATION: PATH.removeprefix("/")})


@routes.get(SIGN_IN)
async def get_sign_in(request: web.Request) -> web.Response:
    session.check_enabled(request.app[SERVICES].current())
    alert = _ALERTS.get(request.query.get(OUTCOME, ""), "")
    return _page(request, 200, alert, request.query.get("next", ""))


@routes.post(SIGN_IN)
async def post_sign_in(request: web.Request) -> web.Response:
    """By the token in the form or, where that is for the provider, by leaving for it."""
    registry = request.app[SERVICES].current()
    session.check_enabled(registry)
    form = await read_form(request, None)
    wanted = _next(form.get("next", ""))
    if "provider" in form:
        return await _leave(request, registry, wanted)
    token = form.get("token", "").strip()
    client = registry.clients.by_token(token)
    if client is None:
        raise UnauthenticatedError("this is no client's API token")
    response = see(request, wanted)
    _begin(request, response, session.TOKEN, client.principal.name, digest_of(token).hex(), client.principal)
    return response


def _begin(
    request: web.Request, response: web.Response, way: str, name: str, proof: str, principal: Principal
) -> None:
    """Raises `ScopeMissingError`."""
    if Scope.READ.value not in principal.scopes or not principal.tenants:
        request[PRINCIPAL] = principal  # who was refused
        raise ScopeMissingError(f"the console needs the scope {Scope.READ} and a tenant")
    session.begin(request, response, way, name, proof, principal)


async def _leave(request: web.Request, registry: Registry, wanted: str) -> web.Response:
    leaving = await leave_to_sign_in(
        registry,
        Cookies(request, registry),
        reader_of(request, registry),
        path=_BEGUN + wanted,
        person="",
        again=False,
        draft=Draft(),
        now=request.app[SERVICES].clock(),
    )
    if isinstance(leaving, Alert):  # the provider is away: no draft is too long where there is none
        return _page(request, leaving.status, _ALERTS[Outcome.UNAVAILABLE], wanted)
    return leaving


# --- back from the provider ------------------------------------------------------------------------------------


def is_for(begun: Begun) -> bool:
    return begun.path.startswith(_BEGUN)


def land(request: web.Request, begun: Begun, name: str) -> web.Response:
    """Raises `UnauthenticatedError` for who is no operator."""
    registry = request.app[SERVICES].current()
    session.check_enabled(registry)
    issuer = provider_of(registry).issuer
    principal = session.operator(name, issuer, registry)
    if principal is None:
        raise UnauthenticatedError("the person is none of console.operators")
    response = web.Response(status=303, headers={hdrs.LOCATION: f"../{begun.path}"})
    _begin(request, response, session.SIGN_IN, name, issuer, principal)
    return response


def back(path: str, outcome: Outcome) -> web.Response:
    query = urlencode({OUTCOME: outcome.value, "next": path.removeprefix(_BEGUN)})
    return web.Response(status=303, headers={hdrs.LOCATION: f"..{SIGN_IN}?{query}"})


# --- who is signed in ------------------------------------------------------------------------------------------


@acts(routes, "sign-out", Scope.READ)
async def post_sign_out(visit: Visit, form: Form) -> web.Response:
    response = see(visit.request, "sign-in")
    session.end(visit, response)
    return response


@acts(routes, "tenant", Scope.READ)
async def post_tenant(visit: Visit, form: Form) -> web.Response:
    """Look at another of one's tenants."""
    response = see(visit.request, "")
    tenant = form.get("tenant", "")
    if tenant in visit.caller.principal.tenants:
        session.change_tenant(visit, response, tenant)
    return response


def render_refused(request: web.Request, problem: Problem, registry: Registry) -> web.Response:
    """A token that proves nobody is told beside the form that it came from."""
    refused = problem.status in (401, 403, 429) and registry.settings.console.enabled
    if not refused:
        return render_problem(request, problem, registry)
    return with_headers(_page(request, problem.status, problem.detail), problem)


def _page(request: web.Request, status: int, alert: str = "", wanted: str = "") -> web.Response:
    services = request.app[SERVICES]
    registry = services.current()
    return bare_page(
        request,
        "sign_in",
        status,
        csrf=csrf.issue(registry.keyring, session.form_of(None), services.clock()),
        alert=alert,
        next=_next(wanted),
        provider=registry.provider is not None and bool(registry.settings.console.operators),
    )


def _next(text: str) -> str:
    """Where to go on: only ever a page below `/console/`."""
    return text if _NEXT.fullmatch(text) and ".." not in text and ":" not in text.partition("/")[0] else ""
