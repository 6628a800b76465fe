"""Receivers that answer over a raw socket, and all that they may do once the status is told."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Final

from notifyd.heads import HEAD_LIMIT


class Then(Enum):
    """What the receiver does once it has written."""

    HOLD = "keeps the connection open"
    CLOSE = "closes it"
    RESET = "resets it"


@asynccontextmanager
async def receiver(
    *writes: bytes,
    then: Then = Then.HOLD,
    heads: list[bytes] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """The URL of a server that takes one request for each connection and answers with `writes`, one by one.

    The heads of the requests are added to `heads`, as they came.
    """
    over, scheme = asyncio.Event(), "https" if tls else "http"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        for data in writes:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)
        if then is Then.HOLD:
            await over.wait()
        if then is Then.RESET:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        over.set()
        server.close()
        await server.wait_closed()


HEAD: Final = b"HTTP/1.1 %d Whatever\r\nRetry-After: 7\r\n"

ENDINGS: Final = {
    "no length": (b"\r\nsome", b"thing"),
    "a length that does not come": (b"Content-Length: 100\r\n\r\nhalf",),
    "chunks without end": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",),
    "a broken chunk with the head": (b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\nok\r\n",),
    "a broken chunk later": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"zz\r\n"),
    "an endless chunk size": (b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",),
    "chunk extensions out of order": (b'Transfer-Encoding: chunked\r\n\r\n2;=;\x01="\r\nok\r\n0\r\n\r\n',),
    "broken trailers": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n: \x00\r\nbroken\r\n\r\n",),
    "an encoding nobody knows": (b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n\x01\x02",),
    "an encoding that does not fit": (b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",),
    "a transfer encoding nobody knows": (b"Transfer-Encoding: br\r\n\r\nok",),
    "both lengths": (b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",),
    "two lengths": (b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",),
    "a length that is none": (b"Content-Length: -2\r\n\r\nok",),
    "a header above 8 KB": (b"X-Long: " + b"x" * 20_000 + b"\r\nContent-Length: 2\r\n\r\nok",),
    "a header above all limits": (b"X-Long: " + b"x" * (2 * HEAD_LIMIT) + b"\r\n\r\nok",),
    "a thousand headers": (b"".join(b"X-%d: y\r\n" % n for n in range(1000)) + b"\r\nok",),
    "a header that is repeated": (b"Host: a\r\nHost: b\r\nContent-Type: a\r\nContent-Type: b\r\n\r\nok",),
    "bytes that no header may hold": (b"X-Odd: \x00\x01\xff\r\n\xe4: \xf6\r\nno colon\r\n\r\nok",),
    "a header that is folded": (b"X-Folded: a\r\n b\r\n\r\nok",),
    "more than its length": (b"Content-Length: 2\r\n\r\nok, and more",),
    "another answer behind it": (b"Content-Length: 0\r\n\r\nHTTP/1.1 404 Gone\r\n\r\n",),
    "a strange Location": (b"Location: http://[::1\x7f/\r\nContent-Length: 0\r\n\r\n",),
    "a protocol to switch to": (b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",),
}
