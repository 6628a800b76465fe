"""The operators' console at `/console/`: what is wrong now, and the lists of the HTTP API, with buttons to act.

A page asks the functions that answer the API, as the caller that its session is: tenants, scopes and what is kept
from sight are the same.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from notifyd.web.console import ledger, overview, records, setup, sign_in, silences
from notifyd.web.console.html import PATH, render_problem
from notifyd.web.console.session import ENDED, Ended
from notifyd.web.console.sign_in import SIGN_IN, render_refused
from notifyd.web.edge import Guard, Renderer

__all__ = ["ENDED", "PATH", "RESOURCES", "Ended", "guards", "render_problem", "renderers"]

RESOURCES: Final = (sign_in, overview, ledger, records, silences, setup)


def guards() -> dict[str, Guard]:
    """What stands before each path."""
    return {**dict.fromkeys(_paths(), Guard.SESSION), SIGN_IN: Guard.SIGN_IN}


def renderers() -> dict[str, Renderer]:
    """How each path tells a problem: as a page."""
    return {**dict.fromkeys(_paths(), render_problem), SIGN_IN: render_refused}


def _paths() -> list[str]:
    routes = (route for resource in RESOURCES for route in resource.routes)
    return [route.path for route in routes if isinstance(route, web.RouteDef)]
