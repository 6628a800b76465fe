"""Who is signed in to the console: one sealed cookie, judged anew at each request by the configuration in force.

It is for the whole site, no script reads it, and no other site's page sends it along.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from attrs import evolve, frozen

from notifyd.config.settings import Scope
from notifyd.errors import NotFoundError
from notifyd.model import SECOND, Instant, Principal, Via
from notifyd.registry.registry import Registry
from notifyd.security.sign_in import Session, open_sealed, seal
from notifyd.web.auth import PRINCIPAL, SESSION_COOKIES, Caller
from notifyd.web.pages import csrf
from notifyd.web.services import SERVICES, Services

LIFE: Final[Instant] = 3600 * SECOND
"""How long one stays signed in."""

TOKEN, SIGN_IN = "token", "sign-in"
"""The ways of a session: a client's API token, and a person's sign-in at the provider."""

_REMEMBERED: Final = 10_000


class Ended:
    """Sessions that somebody signed out of, as this node knows them: a copy of their cookie is worth nothing."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, session: Session) -> None:
        self._ids[session.id] = None
        if len(self._ids) > _REMEMBERED:
            self._ids.popitem(last=False)

    def __contains__(self, session: Session) -> bool:
        return session.id in self._ids


ENDED: Final = web.AppKey("ENDED", Ended)


@frozen
class Visit:
    """A request of somebody who is signed in. `now` is the clock's time when it began."""

    request: web.Request
    services: Services
    caller: Caller
    session: Session
    now: Instant

    @property
    def registry(self) -> Registry:
        return self.caller.registry

    @property
    def may_operate(self) -> bool:
        return Scope.OPERATE.value in self.caller.principal.scopes

    def issue(self) -> str:
        """A token for the forms of a page of this session."""
        return csrf.issue(self.registry.keyring, form_of(self.session), self.now)


def check_enabled(registry: Registry) -> None:
    """Raises `NotFoundError`."""
    if not registry.settings.console.enabled:
        raise NotFoundError("the console is not enabled")


def visit_of(request: web.Request) -> Visit | None:
    """None where nobody is signed in. Raises `NotFoundError` where there is no console."""
    services = request.app[SERVICES]
    registry, now = services.current(), services.clock()
    check_enabled(registry)
    text = request.cookies.get(_cookie(request, registry))
    session = open_sealed(registry.keyring, Session, text, now) if text else None
    if session is None or session in request.app[ENDED]:
        return None
    principal = _principal(session, registry)
    if principal is None or not principal.tenants:
        return None
    tenant = session.tenant if session.tenant in principal.tenants else principal.tenants[0]
    request[PRINCIPAL] = principal
    caller = Caller(registry, principal, signed=False, alone=False, tenant=tenant)
    return Visit(request, services, caller, session, now)


def form_of(session: Session | None) -> str:
    """What a form's token is bound to: the session, or that there is none."""
    return f"console/{session.id if session else ''}"


def _principal(session: Session, registry: Registry) -> Principal | None:
    """What the person signed in may do now; None where what proved who they are no longer does."""
    if session.way == SIGN_IN:
        return operator(session.name, session.proof, registry)
    client = registry.clients.by_digest(bytes.fromhex(session.proof))
    return client.principal if client and client.principal.name == session.name else None


def operator(name: str, issuer: str, registry: Registry) -> Principal | None:
    """The person that the provider at `issuer` has named; None for one who is no operator."""
    if registry.provider is None or registry.provider.issuer != issuer:
        return None
    canonical = registry.actors.canonical
    known = {canonical(one): may for one, may in registry.settings.console.operators.items()}
    if (may := known.get(canonical(name))) is None:
        return None
    scopes = frozenset(scope.value for scope in may.scopes)
    return Principal(
        name=f"{SIGN_IN}:{canonical(name)}",
        via=Via.SIGN_IN,
        scopes=scopes,
        grants=scopes,
        tenants=may.tenants,
        actor=canonical(name),
    )


def begin(
    request: web.Request, response: web.Response, way: str, name: str, proof: str, principal: Principal
) -> None:
    """Have the browser keep who is signed in from now on."""
    until = request.app[SERVICES].clock() + LIFE
    session = Session(secrets.token_urlsafe(16), way, name, proof, principal.tenants[0], until)
    keep(request, response, session)


def change_tenant(visit: Visit, response: web.Response, tenant: str) -> None:
    keep(visit.request, response, evolve(visit.session, tenant=tenant))


def end(visit: Visit, response: web.Response) -> None:
    visit.request.app[ENDED].add(visit.session)
    _set(visit.request, response, "", 0)


def keep(request: web.Request, response: web.Response, session: Session) -> None:
    services = request.app[SERVICES]
    left = session.until - services.clock()
    _set(request, response, seal(services.current().keyring, session), left)


def _set(request: web.Request, response: web.Response, text: str, life: Instant) -> None:
    name = _cookie(request, request.app[SERVICES].current())
    response.set_cookie(
        name, text, max_age=-(-life // SECOND), path="/", secure=True, httponly=True, samesite="Strict"
    )


def _cookie(request: web.Request, registry: Registry) -> str:
    secure = urlsplit(registry.settings.server.public_url).scheme == "https" or request.secure
    return SESSION_COOKIES[0 if secure else 1]
