"""What vendors call: the body goes to the channel, which has to prove it before anything is done."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from notifyd.errors import ChannelFailedError, NotFoundError, TransientError, UnavailableError
from notifyd.flow.attempt import Discretion
from notifyd.plugin import InboundRequest, InboundResponse, Receiving
from notifyd.registry.registry import OpenChannel, is_ours
from notifyd.web.body import read_body
from notifyd.web.gates import asking
from notifyd.web.services import SERVICES

PATH: Final = "/channels/{name}/inbound"

_ANSWER_LIMIT: Final = 16 * 1024
_KINDS: Final = frozenset({"text/plain", "application/json", "application/xml"})
_RETRY: Final = 5.0
"""Seconds after which a vendor may call again where nothing could be recorded."""

routes = web.RouteTableDef()


@routes.post(PATH)
async def post_inbound(request: web.Request) -> web.Response:
    """Raises `NotFoundError`, `UnavailableError`, `ChannelFailedError`, and as `read_body` does."""
    services = request.app[SERVICES]
    registry = services.current()
    channel = registry.channels.get(request.match_info["name"])
    called = channel is not None and (channel.answers or channel.tenant)
    if channel is None or not (called and isinstance(channel.channel, Receiving)):
        raise NotFoundError("no such channel, or none that is called")
    body = await read_body(request, registry.settings.server.max_body)
    headers = {name.lower(): value for name, value in request.headers.items()}
    inbox, ask = services.reactions.inbox(channel), asking(services, channel)
    given = InboundRequest(headers, request.query_string, body, inbox, ask)
    answer = await _received(channel, given, Discretion(registry.redactor, ()))
    return web.Response(status=answer.status, text=answer.body, content_type=answer.content_type)


async def _received(channel: OpenChannel, request: InboundRequest, discretion: Discretion) -> InboundResponse:
    assert isinstance(channel.channel, Receiving)  # nosec B101 # noqa: S101 - told to mypy
    try:
        async with asyncio.timeout(channel.timeout):
            answer = await channel.channel.receive(request)
    except (TransientError, TimeoutError):
        raise UnavailableError("nothing can be recorded now", retry_after=_RETRY) from None
    except BaseException as error:
        if is_ours(error):
            raise
        discretion.log(channel.name, error)
        raise ChannelFailedError("the channel cannot tell what this is") from None
    if not _is_answer(answer):
        raise ChannelFailedError("the channel gives no answer that can be sent")
    return answer


def _is_answer(answer: object) -> bool:
    """A plugin's answer is looked at before it is sent."""
    if not isinstance(answer, InboundResponse):
        return False
    told: tuple[object, ...] = (answer.body, answer.content_type)
    texts = [one for one in told if isinstance(one, str) and len(one) <= _ANSWER_LIMIT]
    status: object = answer.status
    return len(texts) == 2 and type(status) is int and 200 <= status < 600 and answer.content_type in _KINDS
