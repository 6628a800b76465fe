"""What vendors call: the body goes to the channel, which has to prove it before anything is done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeGuard

from aiohttp import web

from notifyd.errors import ChannelFailedError, NotFoundError, TransientError, UnavailableError
from notifyd.flow.attempt import Discretion
from notifyd.flow.calls import MAX_STRAYS, bounded
from notifyd.plugin import InboundRequest, InboundResponse, Receiving
from notifyd.registry.channels import OpenChannel, is_ours
from notifyd.tracing import trace_in
from notifyd.web.body import read_body
from notifyd.web.gates import asking
from notifyd.web.services import SERVICES, Services

PATH: Final = "/channels/{name}/inbound"

_ANSWER_LIMIT: Final = 16 * 1024
_KINDS: Final = frozenset({"text/plain", "application/json", "application/xml"})
_BODILESS: Final = frozenset({204, 205, 304})
"""Answers that have no body: RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5."""
_RETRY: Final = 5.0
"""Seconds after which a vendor may call again where nothing could be recorded."""

routes = web.RouteTableDef()


@routes.post(PATH)
async def post_inbound(request: web.Request) -> web.Response:
    """Raises `NotFoundError`, `UnavailableError`, `ChannelFailedError`, and as `read_body` does."""
    services, name = request.app[SERVICES], request.match_info["name"]
    _channel(services, name)  # before it is worth reading a body
    body = await read_body(request, services.current().settings.server.max_body)
    channel, registry = _channel(services, name), services.current()  # a reload may have come meanwhile
    headers = {name.lower(): value for name, value in request.headers.items()}
    caller = trace_in(headers)
    inbox, ask = services.reactions.inbox(channel, caller), asking(services, channel, caller)
    given = InboundRequest(headers, request.query_string, body, inbox, ask)
    with _under_way(channel):
        answer = await _received(channel, given, Discretion(registry.redactor))
    if answer.status in _BODILESS:
        return web.Response(status=answer.status)
    return web.Response(status=answer.status, text=answer.body, content_type=answer.content_type)


def _channel(services: Services, name: str) -> OpenChannel:
    """Raises `NotFoundError`."""
    channel = services.current().channels.get(name)
    called = channel is not None and (channel.answers or channel.tenant)
    if channel is None or not (called and isinstance(channel.channel, Receiving)):
        raise NotFoundError("no such channel, or none that is called")
    return channel


@contextmanager
def _under_way(channel: OpenChannel) -> Iterator[None]:
    """So that a reload closes the channel after it has answered."""
    ended = asyncio.get_running_loop().create_future()
    channel.calls.add(ended)
    try:
        yield
    finally:
        channel.calls.discard(ended)
        ended.set_result(None)


async def _received(channel: OpenChannel, request: InboundRequest, discretion: Discretion) -> InboundResponse:
    if len(channel.stray_calls) >= MAX_STRAYS:
        raise UnavailableError("earlier calls of this channel have not ended", retry_after=_RETRY)
    try:
        answer = await bounded(channel, _call(channel, request), channel.stray_calls, "a vendor's call")
    except (TransientError, TimeoutError):
        raise UnavailableError("nothing can be recorded now", retry_after=_RETRY) from None
    if isinstance(answer, BaseException):
        discretion.log(channel.name, answer)
        raise ChannelFailedError("the channel cannot tell what this is")
    if not _is_answer(answer):
        raise ChannelFailedError("the channel gives no answer that can be sent")
    return answer


async def _call(channel: OpenChannel, request: InboundRequest) -> InboundResponse | BaseException:
    """What the channel answers, or what it raised that has no meaning here. Raises what has, and as `bounded`."""
    assert isinstance(channel.channel, Receiving)  # nosec B101 # noqa: S101 - told to mypy
    try:
        return await channel.channel.receive(request)
    except (TransientError, TimeoutError):
        raise
    except BaseException as error:
        if is_ours(error):
            raise
        return error


def _is_answer(answer: object) -> TypeGuard[InboundResponse]:
    """A plugin's answer is looked at before it is sent."""
    if not isinstance(answer, InboundResponse):
        return False
    status: object = answer.status
    kind: object = answer.content_type
    return (
        type(status) is int
        and 200 <= status < 600
        and isinstance(kind, str)
        and kind in _KINDS
        and _is_text(answer.body)
    )


def _is_text(body: object) -> bool:
    """Has it an encoding, and few enough bytes in that?"""
    if not isinstance(body, str) or len(body) > _ANSWER_LIMIT:
        return False
    try:
        return len(body.encode()) <= _ANSWER_LIMIT
    except UnicodeEncodeError:
        return False
