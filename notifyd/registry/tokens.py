"""`[auth.jwt]` at work: tokens of the issuer, judged by the keys it publishes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from notifyd.config.settings import Jwt, Scope
from notifyd.errors import UnauthenticatedError
from notifyd.model import SECOND, Instant, Principal
from notifyd.registry.published import Published
from notifyd.security.jwt import (
    INVALID,
    ClaimNames,
    Expected,
    KeySet,
    principal_of,
    read_header,
    verify,
)


async def prepare_keys(keys: Published[KeySet], token: str) -> KeySet:
    """The keys that `token` is judged by: read anew where its key id is not known. Raises `UnavailableError`.

    What is not a token of the kind taken here is refused under any keys, so nothing is read for it.
    """
    header = read_header(token)
    if header is None:
        return keys.current or KeySet()
    kid = header.kid
    return await keys.prepare(lambda known: kid is not None and not known.knows(kid))


class Tokens:
    """Judges JWTs by `[auth.jwt]`; without one, none is valid."""

    def __init__(self, settings: Jwt | None = None, keys: Published[KeySet] | None = None) -> None:
        self._settings = settings
        self.keys = keys

    async def prepare(self, token: str) -> None:
        """Have the keys at hand that `token` is judged by. Raises `UnavailableError`."""
        if self.keys is not None:
            await prepare_keys(self.keys, token)

    def principal(self, token: str, now: Instant, tolerance: int) -> Principal:
        """Whom a token proves, by the keys at hand. `tolerance` in microseconds. Raises `UnauthenticatedError`."""
        settings = self._settings
        if settings is None:
            raise UnauthenticatedError(INVALID)
        known = (self.keys.current if self.keys is not None else settings.jwks.keys) or KeySet()
        expected = Expected(settings.issuer, settings.audience, now / SECOND, tolerance / SECOND)
        return self._principal(settings, verify(token, known, expected))

    @staticmethod
    def _principal(settings: Jwt, claims: Mapping[str, Any]) -> Principal:
        names = ClaimNames(settings.tenant_claim, settings.grants_claim, settings.actor_claim)
        return principal_of(claims, names, [scope.value for scope in Scope])
