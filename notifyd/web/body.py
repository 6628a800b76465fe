"""Reading a request's body within bounds: its size, the time it takes, and what it says it is."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import StreamReader, hdrs, web

from notifyd.errors import MalformedError, TooLargeError, UnsupportedMediaError
from notifyd.web.problems import SlowBodyError
from notifyd.wire.codec import loads

BODY_TIMEOUT: Final = web.AppKey("BODY_TIMEOUT", float)
"""Seconds a body may take to arrive."""

JSON: Final = "application/json"


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body as it was sent, of at most `limit` bytes.

    Raises `TooLargeError`, `SlowBodyError`, `UnsupportedMediaError` for a compressed one, and
    `MalformedError` where the transfer itself is broken.
    """
    if hdrs.CONTENT_ENCODING in request.headers:
        raise UnsupportedMediaError("compressed bodies are not taken")
    _bound(request.content_length or 0, limit)
    try:
        if request.content.is_eof():  # it came together with its headers, as most do
            body = request.content.read_nowait()
            _bound(len(body), limit)
            return body
        async with asyncio.timeout(request.app[BODY_TIMEOUT]):
            return await _read_on(request.content, limit)
    except TimeoutError:
        raise SlowBodyError("the body did not arrive in time") from None
    except (web.RequestPayloadError, ConnectionError):  # the latter where the caller is gone
        raise MalformedError("the body breaks off, or its transfer coding is broken") from None


async def _read_on(content: StreamReader, limit: int) -> bytes:
    body = bytearray()
    while chunk := await content.readany():
        body += chunk
        _bound(len(body), limit)
    return bytes(body)


def _bound(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(f"a body may hold {limit} bytes at most")


def read_json(request: web.Request, body: bytes) -> Any:
    """The document in `body`. Raises `UnsupportedMediaError`, `MalformedError`, `InvalidError`."""
    if request.content_type != JSON:
        raise UnsupportedMediaError(f"send {JSON}")
    return loads(body)
