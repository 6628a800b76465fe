"""The head of an HTTP answer, kept as it came: its status is known even where aiohttp refuses the answer.

aiohttp reads status, headers and framing as one, and raises where any of it is wrong: both lengths, a body
after 204, a broken chunk that comes with the head, a header too long. By then the receiver has acted.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, Self

import aiohttp
from aiohttp.connector import Connection
from attrs import frozen
from multidict import CIMultiDict, CIMultiDictProxy

HEAD_LIMIT: Final = 64 * 1024
"""How many bytes of a head are looked at."""

# More lenient than RFC 9112, 4: what is before the status may be in lower case, and what is after it missing.
_STATUS_LINE: Final = re.compile(rb"HTTP/[0-9](?:\.[0-9])?[ \t]+([1-9][0-9]{2})(?:[ \t][^\n]*|\r)?\n", re.I)
_END: Final = re.compile(rb"\n\r?\n")


@frozen
class Head:
    """A status, and those of its headers that came whole."""

    status: int
    headers: CIMultiDictProxy[str]


def read_head(data: bytes | bytearray) -> Head | None:
    """The head that `data` begins with, in whole or in part; None where its status line has not come."""
    line = _STATUS_LINE.match(data)
    if line is None:
        return None
    rest = bytes(data[line.end() - 1 :])
    end = _END.search(rest)
    headers = CIMultiDict[str]()
    for field in rest[: end.start() if end else rest.rindex(b"\n")].split(b"\n"):
        name, colon, value = field.decode("latin-1").partition(":")
        if colon:
            headers.add(name.strip(), value.strip())
    return Head(int(line[1]), CIMultiDictProxy(headers))


def _is_interim(line: re.Match[bytes] | None) -> bool:
    """Does another answer follow this one (RFC 9110, 15.2)? After 101 none does."""
    return line is not None and line[1] < b"200" and line[1] != b"101"


class _Witness(asyncio.Protocol):
    """Hands on to `inner` all that it is told, and keeps the beginning of the final answer while one is awaited.

    A connection keeps it for all its requests.
    """

    def __init__(self, inner: asyncio.BaseProtocol) -> None:
        self._inner: Any = inner
        self._kept = bytearray()
        self._awaited = False

    def begin(self) -> None:
        self._awaited = True

    def rest(self) -> None:
        self._awaited = False
        self._kept.clear()  # a connection may stay for long

    def head(self) -> Head | None:
        self._trim()
        return None if _is_interim(_STATUS_LINE.match(self._kept)) else read_head(self._kept)

    def data_received(self, data: bytes) -> None:
        if self._awaited:
            self._kept += data
            if len(self._kept) > HEAD_LIMIT:
                self._trim()
        self._inner.data_received(data)

    def _trim(self) -> None:
        """Of what came keep the beginning of the final answer. Most answers are never looked at so closely."""
        kept = self._kept.lstrip(b"\r\n")
        while (end := _END.search(kept)) and _is_interim(_STATUS_LINE.match(kept)):
            del kept[: end.end()]
        self._kept = kept[:HEAD_LIMIT]

    def eof_received(self) -> bool | None:
        keeps_open: bool | None = self._inner.eof_received()
        return keeps_open

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _witness_of(transport: asyncio.BaseTransport) -> _Witness:
    protocol = transport.get_protocol()
    if not isinstance(protocol, _Witness):
        protocol = _Witness(protocol)
        transport.set_protocol(protocol)
    return protocol


class StatusResponse(aiohttp.ClientResponse):
    """A response that begins as soon as its status is known, whatever follows. It may have no body then."""

    async def start(self, connection: Connection) -> Self:
        transport = connection.transport
        if transport is None:  # it is lost by now, and this will tell how
            await super().start(connection)
            return self
        witness = _witness_of(transport)
        witness.begin()
        try:
            await super().start(connection)
        except (aiohttp.ClientError, OSError, asyncio.CancelledError) as error:
            head = witness.head()
            if head is None:
                raise
            forgive(error)
            self._begin(head)
        finally:
            witness.rest()
        return self

    def _begin(self, head: Head) -> None:
        self.status, self.reason = head.status, ""
        self._headers, self.content = head.headers, aiohttp.EMPTY_PAYLOAD
        self.close()


def forgive(error: BaseException) -> None:
    """Take a cancellation back: what was called off has its result already, and sending again would repeat it."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None:
        task.uncancel()


async def status_counts(
    request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A middleware of aiohttp's client: the answer is a `StatusResponse`."""
    request.response_class = StatusResponse
    return await send(request)
