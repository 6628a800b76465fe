"""Reading a request's body within bounds: its size, the time it takes, and what it says it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import HttpVersion11, StreamReader, hdrs, web

from notifyd.errors import MalformedError, TooLargeError, UnavailableError, UnsupportedMediaError
from notifyd.web.http import connection_of
from notifyd.web.problems import SlowBodyError
from notifyd.wire.codec import loads

BODY_TIMEOUT: Final = web.AppKey("BODY_TIMEOUT", float)
"""Seconds a body may take to arrive."""

JSON: Final = "application/json"

CONTINUE: Final = "100-continue"

IN_FLIGHT: Final = 64 * 1024 * 1024
"""Bytes that bodies on their way in may have all together."""


class Intake:
    """How much of bodies is on its way in, or may come."""

    def __init__(self, limit: int = IN_FLIGHT) -> None:
        self._limit = limit
        self._size = 0

    @contextmanager
    def expecting(self, size: int) -> Iterator[None]:
        """Room for a body of at most `size` bytes; one has it however large. Raises `UnavailableError`."""
        if self._size and self._size + size > self._limit:
            raise UnavailableError("too many bodies are on their way in")
        self._size += size
        try:
            yield
        finally:
            self._size -= size


INTAKE: Final = web.AppKey("INTAKE", Intake)


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body as it was sent, of at most `limit` bytes.

    Raises `TooLargeError`, `SlowBodyError`, `UnsupportedMediaError` for a compressed one, and
    `MalformedError` where the transfer itself is broken.
    """
    if hdrs.CONTENT_ENCODING in request.headers:
        raise UnsupportedMediaError("compressed bodies are not taken")
    try:
        if request.content.is_eof():  # it came together with its headers, as most do
            body = request.content.read_nowait()
            _bound(len(body), limit)
            return body
        _bound(request.content_length or 0, limit)
        size = limit if request.content_length is None else request.content_length
        with request.app[INTAKE].expecting(size):
            async with asyncio.timeout(request.app[BODY_TIMEOUT]):
                await _ask_for_it(request)
                return await _read_on(request.content, limit)
    except TimeoutError:
        raise SlowBodyError("the body did not arrive in time") from None
    except (web.RequestPayloadError, ConnectionError):  # the latter where the caller is gone
        raise MalformedError("the body breaks off, or its transfer coding is broken") from None


async def _ask_for_it(request: web.Request) -> None:
    connection_of(request).let_in()
    if request.headers.get(hdrs.EXPECT) and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


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
