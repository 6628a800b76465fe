"""What every request passes: the correlation id, the address check, and problems in place of exceptions.

One middleware, because each costs every request.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final, TypeAlias

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from aiohttp.web_exceptions import HTTPException

from notifyd import correlation
from notifyd.errors import (
    ChannelFailedError,
    ForbiddenError,
    StoppingError,
    UnauthenticatedError,
    UnavailableError,
    UndecodableRowError,
)
from notifyd.metrics import OTHER
from notifyd.registry.registry import Registry
from notifyd.security.signing import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from notifyd.web import problems
from notifyd.web.addresses import GATE, CurrentGate, parse
from notifyd.web.attempts import Attempts, Caller, caller_of
from notifyd.web.auth import (
    CLIENT_HEADER,
    PRINCIPAL,
    TENANT_HEADERS,
    bearer_token,
    session_text,
)
from notifyd.web.body import CONTINUE
from notifyd.web.connections import Place, Surplus
from notifyd.web.http import connection_of
from notifyd.web.problems import ExpectationError, InvalidHeaderError, Problem, TooManyError, UnheardError
from notifyd.web.refusals import Refusals
from notifyd.web.services import Services

log = logging.getLogger(__name__)


class Guard(Enum):
    """Which allowlist stands before a resource, and what a caller is known by who has failed too often.

    A resource that names none is for machines. A session is for the console; where one signs in to it nothing
    counts that was proved before, since each token there is another guess.
    """

    MACHINE = "ip_allowlist, a bearer token"
    SESSION = "ip_allowlist, a session"
    SIGN_IN = "ip_allowlist"
    METRICS = "metrics_allowlist"
    OPEN = "none"


Renderer: TypeAlias = Callable[[web.Request, Problem, Registry], web.Response]
"""Writes a problem as an answer: as a problem document, or, for people, as a page."""

_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
"""What goes on while the daemon is being stopped: nothing else may bring it work."""

_FORESEEN: Final = (ChannelFailedError, UnavailableError, UndecodableRowError, HTTPException)
"""What is no fault of this code, though its status is above 499."""


_WATCHED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""What is answered however many connections and requests there are."""

ONCE: Final = frozenset(
    name.lower()
    for name in (
        *(
            hdrs.AUTHORIZATION,
            hdrs.CONTENT_ENCODING,
            hdrs.EXPECT,
            hdrs.ORIGIN,
            hdrs.UPGRADE,
            correlation.HEADER,
        ),
        *(CLIENT_HEADER, ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER, *TENANT_HEADERS),
        *("Sec-Fetch-Site", "X-Forwarded-Proto"),
    )
)
"""Headers of which one is read, so that another would be another's to read."""

READ: Final = ONCE | {
    name.lower()
    for name in (
        *(hdrs.ACCEPT, hdrs.ACCEPT_LANGUAGE, hdrs.CONTENT_TYPE, hdrs.HOST, hdrs.IF_NONE_MATCH),
        "X-Forwarded-For",
    )
}
"""All that are read, beside those that begin with `ce-`. What others hold is nobody's business here."""


_OPEN: Final = (Guard.OPEN, Guard.METRICS)
"""Where nobody proves anything."""


class Edge:
    """The middleware. `guards` and `renderers` are by a resource's canonical path, such as `/healthz`.

    `elsewhere` are renderers for paths that are no resource, or none by that method, by how they begin.
    """

    def __init__(
        self,
        services: Services,
        refusals: Refusals,
        gate: CurrentGate,
        guards: Mapping[str, Guard],
        renderers: Mapping[str, Renderer],
        elsewhere: Mapping[str, Renderer],
    ) -> None:
        self._services = services
        self._refusals = refusals
        self._guards = guards
        self._renderers = renderers
        self._elsewhere = elsewhere
        self._gate = gate
        self._attempts = Attempts(time.monotonic)
        self._under_way: dict[str, int] = {}

    @web.middleware
    async def pass_through(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        cid, began = correlation.begin(request.headers.get(correlation.HEADER)), time.perf_counter()
        registry, where = self._services.current(), _canonical(request)
        gate = request[GATE] = self._gate.of(registry.settings.server)
        caller, connection = gate.caller_text(request), connection_of(request)
        connection.begin()
        self._under_way[caller] = under_way = self._under_way.get(caller, 0) + 1
        try:
            _check_headers(request)
            if connection.place.surplus or under_way > registry.settings.server.max_requests_per_client:
                self._check_room(connection.place, where)
            if (guard := self._guards.get(where, Guard.MACHINE)) is not Guard.OPEN:
                gate.admit(caller, metrics=guard is Guard.METRICS)
            proof = _proof(request, guard)
            if guard not in _OPEN and self._attempts.failing:
                self._attempts.check(_counted(request, caller, registry), proof)
            if proof and guard is Guard.MACHINE:
                await registry.tokens.prepare(proof)  # raises `UnavailableError` where none can be judged now
            if request.method not in _READING and self._services.draining():
                raise StoppingError
            response = await handler(request)
            if proof and PRINCIPAL in request:
                self._attempts.proved(proof)
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a problem document
            problem = _describe(error, where)
            self._note_refused(error, problem, request, where, caller, registry)
            response = self._renderer(request, where)(request, problem, registry)
        finally:
            self._end(caller)
            connection.end(unread=not request.content.is_eof())
        if connection.last:
            response.force_close()
        response.headers.update(problems.ALWAYS)
        response.headers[correlation.HEADER] = cid
        self._services.metrics.http_request(where or OTHER, str(response.status)).inc()
        if log.isEnabledFor(logging.DEBUG):
            took = (time.perf_counter() - began) * 1000
            log.debug("%s %s of %s: %d in %.1f ms", request.method, where, caller, response.status, took)
        return response

    def _renderer(self, request: web.Request, where: str) -> Renderer:
        if where:
            return self._renderers.get(where, _document)
        below = (render for root, render in self._elsewhere.items() if request.path.startswith(root))
        return next(below, _document)

    def _end(self, caller: str) -> None:
        left = self._under_way[caller] - 1
        if left:
            self._under_way[caller] = left
        else:
            del self._under_way[caller]

    def _check_room(self, place: Place, where: str) -> None:
        """There is no room for another request. Raises `TooManyError`, `UnavailableError`."""
        if where in _WATCHED:
            return
        if place.surplus is Surplus.SERVER:
            raise UnavailableError("there are too many connections")
        if place.surplus is Surplus.CLIENT:
            raise TooManyError("there are too many connections from this address")
        raise TooManyError("too many requests from this address are under way")

    def _note_refused(
        self,
        error: Exception,
        problem: Problem,
        request: web.Request,
        where: str,
        caller: str,
        registry: Registry,
    ) -> None:
        if isinstance(error, UnauthenticatedError):
            self._attempts.failed(_counted(request, caller, registry))
        if isinstance(error, UnauthenticatedError | ForbiddenError | UnheardError):
            principal, cid = request.get(PRINCIPAL), correlation.current.get()
            claims = "" if principal else _claimed(request, registry)
            self._refusals.note(problem, principal, claims, where, str(parse(caller)), cid)


def _check_headers(request: web.Request) -> None:
    """Raises `InvalidHeaderError`, `ExpectationError`."""
    headers = request.headers
    if len(headers) != len(set(map(str.lower, headers))):
        for name, count in Counter(name.lower() for name, _ in headers.items()).items():
            if count > 1 and (name in ONCE or name.startswith("ce-")):
                raise InvalidHeaderError(f"{name} may stand once only")
    if not all(map(str.isascii, headers.values())):
        _check_texts(headers.items())
    # h2c is an offer that clients make in passing, and mean when it is taken up.
    if hdrs.UPGRADE in headers and headers[hdrs.UPGRADE].lower() != "h2c":
        connection_of(request).shut()
        raise InvalidHeaderError("no other protocol is spoken here")
    if headers.get(hdrs.EXPECT, CONTINUE).lower() != CONTINUE:
        raise ExpectationError(f"only {CONTINUE} can be expected")


def _check_texts(headers: Iterable[tuple[str, str]]) -> None:
    """Raises `InvalidHeaderError` for bytes that are no text: aiohttp hands them on as lone surrogates."""
    for name, value in headers:
        read = name.lower()
        if (read in READ or read.startswith("ce-")) and not _is_text(value):
            raise InvalidHeaderError(f"{read} is not UTF-8")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _proof(request: web.Request, guard: Guard) -> str:
    """What a caller means to be known by there; "" for nothing."""
    if guard is Guard.SESSION:
        return session_text(request)
    return (bearer_token(request.headers) or "") if guard is Guard.MACHINE else ""


def _counted(request: web.Request, caller: str, registry: Registry) -> Caller:
    """By whom a failure to prove anything is counted."""
    return caller_of(
        parse(caller), _claimed(request, registry) if SIGNATURE_HEADER in request.headers else ""
    )


def _claimed(request: web.Request, registry: Registry) -> str:
    """The configured client whose name the caller sends; "" for none."""
    name = request.headers.get(CLIENT_HEADER, "")
    return name if name in registry.clients.named else ""


def _canonical(request: web.Request) -> str:
    """The resource's path as it was declared, "" where there is none: fit for a log, as a raw path is not."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def _describe(error: Exception, where: str) -> Problem:
    problem = problems.describe(error)
    if problem.status >= 500 and not isinstance(error, _FORESEEN):
        log.error("%s failed", where or "a request", exc_info=error)
    return problem


def _document(request: web.Request, problem: Problem, registry: Registry) -> web.Response:
    return problems.respond(problem, correlation.current.get(), registry.redactor.text)
