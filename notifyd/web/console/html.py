"""The console's pages as HTML, with the templates' environment and the headers of the approver's pages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

import jinja2
from aiohttp import hdrs, web
from markupsafe import Markup

from notifyd import correlation
from notifyd.registry.registry import Registry
from notifyd.render.locales import formats_for
from notifyd.web.console.session import Visit
from notifyd.web.pages import html as pages
from notifyd.web.pages.reader import Reader
from notifyd.web.pages.texts import TEXTS
from notifyd.web.problems import Problem
from notifyd.wire.codec import rfc3339

PATH: Final = "/console/"

_CSS: Final = pages.CSS + resources.files(__package__).joinpath("console.css").read_text("utf-8")
_LIVE: Final = resources.files(__package__).joinpath("live.js").read_text("utf-8")

_HEADERS: Final = pages.headers_of(_CSS, "")
_HEADERS_OF_LIVE: Final = pages.headers_of(_CSS, f"script-src {pages.hash_of(_LIVE)}; connect-src 'self'; ")


@cache
def _reader() -> Reader:
    """Operators read English, and times as their logs have them: in UTC. Its data are read with the first page."""
    return Reader("en", TEXTS["en"], formats_for("en", "UTC"))


def write_time(text: str | None) -> str:
    """RFC 3339 to the second, for people: `2026-11-29 13:07:52`; "" for none."""
    if not text:
        return ""
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def write_age(seconds: float) -> str:
    """In the largest unit that tells enough: `42 s`, `7 min`, `3 h`, `2 days`."""
    for size, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {name}"
    return f"{int(seconds)} s"


def write_size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


ENVIRONMENT: Final = pages.ENVIRONMENT.overlay(
    loader=jinja2.ChoiceLoader([pages.templates_in(__package__, "templates"), pages.TEMPLATES])
)
ENVIRONMENT.filters = {**pages.ENVIRONMENT.filters, "time": write_time}

PAGES: Final = (
    ("", "overview", "Now"),
    ("deliveries", "deliveries", "Deliveries"),
    ("dead", "dead", "Dead letters"),
    ("approvals", "approvals", "Approvals"),
    ("incidents", "incidents", "Incidents"),
    ("silences", "silences", "Silences"),
    ("channels", "channels", "Channels"),
    ("audit", "audit", "Audit trail"),
    ("configuration", "configuration", "Configuration"),
)
"""What there is to look at: path, template, and what it is called."""

_CHANGING: Final = frozenset(
    {"overview", "deliveries", "delivery", "dead", "approvals", "approval", "incidents"}
)
"""Templates of pages that are kept up to date while somebody looks at them."""

DONE: Final = "done"
"""The query parameter by which a page is told what was just done: one of these."""

_DONE: Final[Mapping[str, str]] = {
    "retried": "It is tried again.",
    "tested": "The channel has taken the test message.",
    "silenced": "The silence is set.",
    "expired": "The silence is over, and what it held is told.",
}


def page(visit: Visit, template: str, status: int = 200, **context: Any) -> web.Response:
    """A page for who is signed in; `template` is the name of its file, without its ending."""
    visible = {
        "csrf": visit.issue(),
        "done": _DONE.get(visit.request.query.get(DONE, "")),
        "here": template,
        "live": template in _CHANGING,
        "may_operate": visit.may_operate,
        "now": write_time(rfc3339(visit.now)),
        "pages": PAGES,
        "query": visit.request.query,
        "tenant": visit.caller.tenant,
        "tenants": visit.caller.principal.tenants,
        "who": visit.caller.author,
    }
    return bare_page(visit.request, template, status, **visible | context)


def bare_page(request: web.Request, template: str, status: int, **context: Any) -> web.Response:
    """A page for anybody."""
    # Markup: style sheet and script are our own, and their bytes must be those that were hashed.
    own = {"css": Markup(_CSS), "script": Markup(_LIVE)}  # nosec B704 # noqa: S704
    text = ENVIRONMENT.get_template(f"{template}.html").render(
        reader=_reader(), up=up(request), **own, **context
    )
    headers = _HEADERS_OF_LIVE if context.get("live") else _HEADERS
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)


def up(request: web.Request) -> str:
    """From a page of the console to its root: relative, so that it holds behind a proxy that adds a prefix."""
    depth = request.rel_url.raw_path.removeprefix(PATH).count("/") if request.path.startswith(PATH) else 0
    return "../" * depth or "./"


def render_problem(request: web.Request, problem: Problem, registry: Registry) -> web.Response:
    """Whatever went wrong, as a page."""
    redact = registry.redactor.text
    faults = [(redact(fault.pointer), redact(fault.message)) for fault in problem.faults]
    response = bare_page(
        request,
        "problem",
        problem.status,
        title=problem.title,
        detail="" if faults else redact(problem.detail),  # which only counts them
        faults=faults,
        reference=correlation.current.get(),
    )
    return with_headers(response, problem)


def with_headers(response: web.Response, problem: Problem) -> web.Response:
    """`response` with a problem's headers, but for those that would have a browser ask for a password."""
    wanted = {name: text for name, text in problem.headers.items() if name != hdrs.WWW_AUTHENTICATE}
    response.headers.update(wanted)
    return response
