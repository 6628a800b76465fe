"""What notifyd is set up to do: channels, each with a test, and the configuration with its last change."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from aiohttp import web

from notifyd.config.load import as_toml, describe
from notifyd.config.settings import Scope, Settings
from notifyd.errors import ChannelFailedError, ForbiddenError, InvalidError
from notifyd.web import problems
from notifyd.web.channels import TrialRequest, find_channels, try_out
from notifyd.web.console.access import sees_all
from notifyd.web.console.frame import Form, acts, see, shows
from notifyd.web.console.html import page
from notifyd.web.console.session import Visit

routes = web.RouteTableDef()


@shows(routes, "channels")
async def get_channels(visit: Visit) -> web.Response:
    return _channels(visit)


@acts(routes, "channels/{name}/test")
async def post_test(visit: Visit, form: Form) -> web.Response:
    """Send a test message or, where the channel does not take it, tell why in the channel's own words."""
    name = visit.request.match_info["name"]
    try:
        await try_out(
            visit.services, visit.caller, name, TrialRequest(form.get("recipient", "").strip() or None)
        )
    except (ChannelFailedError, InvalidError) as error:
        problem = problems.describe(error)
        told = "; ".join(fault.message for fault in problem.faults) or problem.detail
        return _channels(visit, problem.status, f"{name}: {visit.registry.redactor.text(told)}")
    return see(visit.request, "channels", "tested")


def _channels(visit: Visit, status: int = 200, alert: str = "") -> web.Response:
    channels = find_channels(visit.services, visit.registry)
    return page(visit, "channels", status, channels=channels, alert=alert)


@shows(routes, "configuration", Scope.OPERATE)
async def get_configuration(visit: Visit) -> web.Response:
    """Raises `ForbiddenError` for who has not all tenants that it names."""
    if not sees_all(visit):
        raise ForbiddenError("the configuration names tenants that are not yours")
    settings, last = visit.registry.settings, visit.services.reloaded()
    before = last.before if last else None
    return page(
        visit,
        "configuration",
        text=_text(settings, visit),
        last=last,
        difference="\n".join(_difference(_text(before, visit), _text(settings, visit))) if before else "",
    )


def _text(settings: Settings, visit: Visit) -> str:
    """As TOML, with `***` for what is secret."""
    return visit.registry.redactor.text(as_toml(describe(settings)))


def _difference(before: str, after: str) -> Iterator[str]:
    """The lines that came and went, each with one around it; without the names of files."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)
    return (line for line in lines if not line.startswith(("---", "+++")))
