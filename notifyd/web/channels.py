"""The configured channels: how each stands, and a test message through one. Never what they hold secret."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from attrs import frozen

from notifyd.config.settings import Scope
from notifyd.config.units import show, show_duration
from notifyd.errors import ChannelFailedError, Fault, InvalidError, NotFoundError
from notifyd.flow.lane import LaneSnapshot
from notifyd.flow.trial import trial_message
from notifyd.model import Attempt, AttemptOutcome, AuditName
from notifyd.registry.channels import OpenChannel
from notifyd.registry.registry import Registry
from notifyd.text import one_line
from notifyd.web.acts import note_act
from notifyd.web.answers import json_answer
from notifyd.web.auth import Caller, authorize
from notifyd.web.body import read_body, read_json
from notifyd.web.services import SERVICES, Services
from notifyd.wire.codec import rfc3339
from notifyd.wire.records import structure

routes = web.RouteTableDef()


@routes.get("/api/v1/channels")
async def list_channels(request: web.Request) -> web.Response:
    """All channels, by name. They belong to no tenant."""
    registry = authorize(request, Scope.READ).registry
    return json_answer({"items": find_channels(request.app[SERVICES], registry), "nextCursor": None})


def find_channels(services: Services, registry: Registry) -> list[dict[str, Any]]:
    snapshot = services.dispatcher.snapshot
    return [_channel_json(name, registry, snapshot(name)) for name in _names(registry)]


@routes.post("/api/v1/channels/{name}/test")
async def try_channel(request: web.Request) -> web.Response:
    """Send a test message now. Its body is empty or JSON; a personal channel's names the `recipient`."""
    services = request.app[SERVICES]
    caller = authorize(request, Scope.OPERATE)
    asked = await _read_request(request, caller.registry.settings.server.max_body)
    name = request.match_info["name"]
    made = await try_out(services, caller, name, asked)
    return json_answer(
        {"channel": name, "status": "sent", "durationMs": made.duration_ms, "detail": made.detail}
    )


async def try_out(services: Services, caller: Caller, name: str, asked: TrialRequest) -> Attempt:
    """Raises `NotFoundError`, `InvalidError`, `RenderError`, and `ChannelFailedError` with the channel's words."""
    registry = services.current()  # what is in force now: a reload may have come while the body did
    channel = _channel(registry, name)
    message = trial_message(registry, channel, _recipient(channel, asked), services.clock())
    made = await services.dispatcher.try_out(channel, message)
    facts = {"channel": name, "outcome": made.outcome.value}
    await note_act(services, caller, AuditName.CHANNEL_TESTED, "", facts)  # a channel is of no tenant
    if made.outcome is not AttemptOutcome.SENT:
        raise ChannelFailedError(_failure(made))
    return made


# --- the list ----------------------------------------------------------------------------------------------


def _names(registry: Registry) -> list[str]:
    return sorted(registry.settings.channels)


def _channel_json(name: str, registry: Registry, lane: LaneSnapshot) -> dict[str, Any]:
    channel, settings = registry.channels[name], registry.settings.channels[name]
    plugin = registry.discovered.provider_of(channel.type)
    return {
        "name": name,
        "type": channel.type,
        "plugin": plugin.name if plugin else None,
        "version": plugin.version if plugin else None,
        "personal": channel.personal,
        "rateLimit": show(channel.rate_limit),
        "concurrency": channel.concurrency,
        "timeout": show_duration(settings.timeout),
        "lane": {"backlog": lane.backlog, "running": lane.running, "breaker": lane.breaker.value},
        "lastSuccess": {"at": rfc3339(lane.last_success.at)} if lane.last_success else None,
        "lastFailure": _failure_json(lane.last_failure) if lane.last_failure else None,
    }


def _failure_json(made: Attempt) -> dict[str, Any]:
    reason = made.reason.value if made.reason else None
    return {"at": rfc3339(made.at), "reason": reason, "detail": made.detail}


# --- the test message --------------------------------------------------------------------------------------


@frozen
class TrialRequest:
    """Whom a test message is for."""

    recipient: str | None = None


async def _read_request(request: web.Request, limit: int) -> TrialRequest:
    body = await read_body(request, limit)
    return structure(read_json(request, body), TrialRequest) if body else TrialRequest()


def _channel(registry: Registry, name: str) -> OpenChannel:
    if name not in _names(registry):
        raise NotFoundError("no such channel")
    return registry.channels[name]


def _recipient(channel: OpenChannel, asked: TrialRequest) -> str | None:
    """Raises `InvalidError`."""
    if channel.personal and not asked.recipient:
        raise InvalidError([Fault("/recipient", "is required: this channel writes to a person")])
    if not channel.personal and asked.recipient is not None:
        raise InvalidError([Fault("/recipient", "is not for this channel, which writes to no single person")])
    return asked.recipient


def _failure(made: Attempt) -> str:
    """The channel's own reason; what the receiver said is redacted, and so fit to show."""
    reason = f"{made.reason.value}: {made.detail}" if made.reason else made.detail
    return f"{reason}: {one_line(made.excerpt)}" if made.excerpt else reason
