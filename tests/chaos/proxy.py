"""A way to a server that can be cut."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_PORT: Final = 27017
"""MongoDB's, where a URL names none."""


class Proxy:
    """Stands before a server: `async with Proxy(url) as proxy`. `cut` drops all there is and all that comes."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._open: set[asyncio.StreamWriter] = set()
        self._cut = False
        self.turned_away = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """That of a database. Without its query the driver asks the server for its address, and goes there."""
        direct = self._target._replace(netloc=f"127.0.0.1:{self.port}", query="directConnection=true")
        return str(urlunsplit(direct))

    def cut(self) -> None:
        self._cut = True
        for writer in self._open:
            writer.close()

    def mend(self) -> None:
        self._cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._cut:
                raise ConnectionRefusedError
            onward, back = await asyncio.open_connection(self._target.hostname, self._target.port or _PORT)
        except OSError:
            self.turned_away += 1
            writer.close()
            return
        self._open |= {writer, back}
        await asyncio.gather(_pipe(reader, back), _pipe(onward, writer))
        self._open -= {writer, back}


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        writer.close()
