"""What each page and button of the console passes: a session, a scope and, to act, a form of this session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias
from urllib.parse import quote, urlencode

from aiohttp import hdrs, web
from multidict import MultiDict, MultiMapping

from notifyd.config.settings import Scope
from notifyd.errors import ForbiddenError
from notifyd.web.console.html import DONE, PATH, bare_page, up
from notifyd.web.console.session import Visit, form_of, visit_of
from notifyd.web.pages import csrf
from notifyd.web.pages.forms import read_fields
from notifyd.web.services import SERVICES

_FIELDS: Final = 12

Form: TypeAlias = Mapping[str, str]
Page: TypeAlias = Callable[[Visit], Awaitable[web.Response]]
Action: TypeAlias = Callable[[Visit, Form], Awaitable[web.Response]]


def shows(routes: web.RouteTableDef, path: str, scope: Scope = Scope.READ) -> Callable[[Page], Page]:
    """Register a page at `path` below `/console/`. Who is not signed in is led to where one does."""

    def register(handler: Page) -> Page:
        routes.get(PATH + path)(_signed_in(handler, scope))
        return handler

    return register


def acts(routes: web.RouteTableDef, path: str, scope: Scope = Scope.OPERATE) -> Callable[[Action], Action]:
    """Register what a form at `path` does."""

    def register(handler: Action) -> Action:
        async def act(visit: Visit) -> web.Response:
            return await handler(visit, await read_form(visit.request, visit))

        routes.post(PATH + path)(_signed_in(act, scope))
        return handler

    return register


def _signed_in(page: Page, scope: Scope) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(request: web.Request) -> web.Response:
        visit = visit_of(request)
        if visit is None:
            return _to_sign_in(request)
        visit.caller.require(scope)
        return await page(visit)

    return serve


async def read_form(request: web.Request, visit: Visit | None) -> Form:
    """The fields of a form that this session's own page has sent.

    Raises `ForbiddenError` for any other, and as `read_fields` does.
    """
    services = request.app[SERVICES]
    registry, now = services.current(), services.clock()
    fields = {name: values[0] for name, values in (await read_fields(request, _FIELDS)).items()}
    about = form_of(visit.session if visit else None)
    genuine = csrf.holds(registry.keyring, about, fields.get("csrf", ""), now)
    if not genuine or not csrf.same_origin(request, registry.settings.server.public_url):
        raise ForbiddenError("this form was open for too long, or comes from elsewhere: load its page again")
    return fields


def see(request: web.Request, path: str, done: str = "") -> web.Response:
    """To the page at `path` below `/console/`, which tells what was done."""
    query = f"?{urlencode({DONE: done})}" if done else ""
    return web.Response(status=303, headers={hdrs.LOCATION: up(request) + path + query})


def query_of(visit: Visit) -> MultiMapping[str]:
    """What a list is asked for: all but what was just done."""
    return MultiDict((name, text) for name, text in visit.request.query.items() if name != DONE)


def _to_sign_in(request: web.Request) -> web.Response:
    reading = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
    wanted = request.rel_url.raw_path.removeprefix(PATH) if reading else ""
    # A browser that follows a link from elsewhere keeps the session to itself; to a page of our own it shows it.
    if reading and request.headers.get("Sec-Fetch-Site") == "cross-site":
        name = wanted.rpartition("/")[2]
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        page = bare_page(request, "onward", 200, address=f"./{name}{query}")
        page.headers["Refresh"] = f"0; url=./{name}{query}"
        return page
    following = f"?next={quote(wanted)}" if wanted else ""
    return web.Response(status=303, headers={hdrs.LOCATION: f"{up(request)}sign-in{following}"})
