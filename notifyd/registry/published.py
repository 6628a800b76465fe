"""What an address publishes, such as an issuer's keys: read when it is first needed, kept, and read anew.

It is read again when it is old, and when it lacks what is asked for, at most once in so long, whoever asks. An
address that is down leaves in force what was read last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import aiohttp

from notifyd.errors import UnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")

LIFE: Final = 600.0
"""Seconds after which it is read anew, so that a key that was withdrawn is not taken for long."""

PAUSE: Final = 30.0
"""Seconds from one reading to the next, whatever asks for it."""

TIMEOUT: Final = 5.0
"""Seconds that a reading may take."""

_SIZE_LIMIT: Final = 1024 * 1024

FAILURES: Final = (aiohttp.ClientError, OSError, ValueError, RuntimeError)
"""How a reading ends badly: TimeoutError is an OSError, and RuntimeError is a session that is closed."""


def _nothing(_: object) -> bool:
    return False


class Published(Generic[T]):
    """What is at `address`, as `parse` reads it, which raises ValueError. `name` is what messages call it.

    `now` gives seconds that only go forward.
    """

    def __init__(
        self,
        name: str,
        address: str,
        parse: Callable[[bytes], T],
        http: aiohttp.ClientSession,
        now: Callable[[], float],
    ) -> None:
        self.address = address
        self.current: T | None = None
        self._name = name
        self._parse = parse
        self._http = http
        self._now = now
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def take_over(self, earlier: Published[T]) -> None:
        """Begin with what was read from the same address under an earlier configuration."""
        if earlier.address == self.address:
            self.current, self._read_at = earlier.current, earlier._read_at

    async def prepare(self, lacks: Callable[[T], bool] = _nothing) -> T:
        """What is published: read anew where it is old, and waited for where it `lacks` what is needed.

        Raises `UnavailableError` where nothing is known, or not enough, and the address gives no more.
        """
        lacking = self.current is None or lacks(self.current)
        now = self._now()
        if (lacking or now - self._read_at >= LIFE) and now - self._tried_at >= PAUSE:
            self._tried_at = now
            self._reading = asyncio.create_task(self._read())
        if lacking and self._reading is not None:
            await asyncio.wait([self._reading])
        if self.current is None or (lacking and self._read_at < self._tried_at):
            raise UnavailableError(f"{self._name} cannot be read", retry_after=PAUSE)
        return self.current

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                self.current = self._parse(await self._fetch())
            self._read_at = self._tried_at
        except FAILURES as error:
            kept = "there is nothing else" if self.current is None else "what was read before stays in force"
            why = str(error) or type(error).__name__
            log.warning("%s cannot be read, and %s: %s", self._name, kept, why)

    async def _fetch(self) -> bytes:
        async with self._http.get(self.address, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"the answer is {answer.status}")
            return await read_bounded(answer)

    async def aclose(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])


async def read_bounded(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises ValueError where it is too long."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _SIZE_LIMIT:
            raise ValueError(f"the answer is longer than {_SIZE_LIMIT} bytes")
    return bytes(body)
