"""`[auth.jwt]` at work: tokens of the issuer, judged by the keys it publishes, which are kept and read anew.

A key id that nobody has heard of has the keys read again, at most once in so long, whoever sends it. A source that
is down leaves the keys in force that were read last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp

from notifyd.config.settings import Jwt, Scope
from notifyd.errors import UnauthenticatedError, UnavailableError
from notifyd.model import SECOND, Instant, Principal
from notifyd.security.jwt import (
    INVALID,
    ClaimNames,
    Expected,
    KeySet,
    principal_of,
    read_header,
    verify,
)

log = logging.getLogger(__name__)

LIFE: Final = 600.0
"""Seconds after which keys are read anew, so that one the issuer has withdrawn is not taken for long."""

PAUSE: Final = 30.0
"""Seconds from one reading to the next, whatever asks for it."""

_TIMEOUT: Final = 5.0
"""Seconds that a reading may take."""

_SIZE_LIMIT: Final = 1024 * 1024

_FAILURES: Final = (aiohttp.ClientError, OSError, ValueError, RuntimeError)
"""How a reading ends badly: TimeoutError is an OSError, and RuntimeError is a session that is closed."""


class Keys:
    """The keys at one address. `now` gives seconds that only go forward."""

    def __init__(self, address: str, http: aiohttp.ClientSession, now: Callable[[], float]) -> None:
        self._address = address
        self._http = http
        self._now = now
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self.current = KeySet()

    def take_over(self, earlier: Keys) -> None:
        """Begin with what was read from the same address under an earlier configuration."""
        if earlier._address == self._address:
            self.current, self._read_at = earlier.current, earlier._read_at

    async def prepare(self, kid: str | None) -> None:
        """Have the keys read where they are old or lack `kid`. Waits for it where nothing can be judged without.

        Raises `UnavailableError` where that cannot be told, as the address gives no keys.
        """
        lacking = not self.current.keys or (kid is not None and not self.current.knows(kid))
        now = self._now()
        if (lacking or now - self._read_at >= LIFE) and now - self._tried_at >= PAUSE:
            self._tried_at = now
            self._reading = asyncio.create_task(self._read())
        if lacking and self._reading is not None:
            await asyncio.wait([self._reading])
        if lacking and self._read_at < self._tried_at:
            raise UnavailableError("the keys of the tokens' issuer cannot be read", retry_after=PAUSE)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                self.current = KeySet.parse(await self._fetch())
            self._read_at = self._tried_at
        except _FAILURES as error:
            kept = "those read before stay in force" if self.current.keys else "there are none"
            why = str(error) or type(error).__name__
            log.warning("the keys of auth.jwt cannot be read, and %s: %s", kept, why)

    async def _fetch(self) -> bytes:
        async with self._http.get(self._address, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"the answer is {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > _SIZE_LIMIT:
                    raise ValueError(f"the answer is longer than {_SIZE_LIMIT} bytes")
            return bytes(body)

    async def aclose(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])


class Tokens:
    """Judges JWTs by `[auth.jwt]`; without one, none is valid."""

    def __init__(self, settings: Jwt | None = None, keys: Keys | None = None) -> None:
        self._settings = settings
        self.keys = keys

    async def prepare(self, token: str) -> None:
        """Have the keys at hand that `token` is judged by. Raises `UnavailableError`."""
        header = read_header(token) if self.keys is not None else None
        if self.keys is not None and header is not None:
            await self.keys.prepare(header.kid)

    def principal(self, token: str, now: Instant, tolerance: int) -> Principal:
        """Whom a token proves, by the keys at hand. `tolerance` in microseconds. Raises `UnauthenticatedError`."""
        settings = self._settings
        if settings is None:
            raise UnauthenticatedError(INVALID)
        known = self.keys.current if self.keys is not None else settings.jwks.keys or KeySet()
        expected = Expected(settings.issuer, settings.audience, now / SECOND, tolerance / SECOND)
        return self._principal(settings, verify(token, known, expected))

    @staticmethod
    def _principal(settings: Jwt, claims: Mapping[str, Any]) -> Principal:
        names = ClaimNames(settings.tenant_claim, settings.grants_claim, settings.actor_claim)
        return principal_of(claims, names, [scope.value for scope in Scope])
