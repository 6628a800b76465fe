"""Where an OpenID provider sends a person's browser back to: to a link's page, or to the console."""

from __future__ import annotations

from aiohttp import web

from notifyd.registry.provider import SIGNED_IN
from notifyd.web.console import sign_in as console
from notifyd.web.pages import sign_in as pages

routes = web.RouteTableDef()


@routes.get(SIGNED_IN, allow_head=False)
async def get_signed_in(request: web.Request) -> web.Response:
    """End the sign-in that this very browser has begun. Raises `SignInOverError`."""
    if console.is_for(pages.begun_in(request)):
        return await pages.end_sign_in(request, console.land, console.back)
    return await pages.end_sign_in(request, pages.land, pages.see_other)
