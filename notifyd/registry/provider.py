"""`[auth.oidc]` at work: an approver's sign-in at an OpenID provider, by authorization code with PKCE.

Each sign-in is two calls of the browser to notifyd with one to the provider in between; the provider's description
and keys are read when they are first needed, so that a start needs no provider.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final
from urllib.parse import quote_plus

import aiohttp

from notifyd.config.settings import Oidc
from notifyd.errors import UnauthenticatedError, UnavailableError
from notifyd.model import SECOND, Instant
from notifyd.registry.published import FAILURES, PAUSE, TIMEOUT, Published, read_bounded
from notifyd.registry.tokens import prepare_keys
from notifyd.security.jwt import Expected, KeySet, verify
from notifyd.security.oidc import DISCOVERY, Metadata, challenge, name_of, with_query
from notifyd.security.sign_in import Begun
from notifyd.text import json_object

SIGNED_IN: Final = "/approvals/signed-in"
"""The path that the provider sends approvers' browsers back to."""

BEGUN_LIFE: Final[Instant] = 600 * SECOND
"""How long a sign-in may take."""

_ERROR: Final = re.compile(r"[a-z_]{1,40}")


class Provider:
    """The provider of one configuration. `now` gives seconds that only go forward."""

    def __init__(
        self, settings: Oidc, public_url: str, http: aiohttp.ClientSession, now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._callback = public_url + SIGNED_IN
        self._http = http
        self._now = now
        issuer = settings.issuer
        self._metadata = Published(
            "the description of the provider in auth.oidc",
            issuer.rstrip("/") + DISCOVERY,
            partial(Metadata.parse, issuer=issuer),
            http,
            now,
        )
        self._keys: Published[KeySet] | None = None

    @property
    def issuer(self) -> str:
        return self._settings.issuer

    async def begin(self, path: str, now: Instant, *, person: str, again: bool) -> tuple[Begun, str]:
        """A sign-in for the page at `path` below `/approvals/`, and the address to send the browser to.

        `person` is whom it should be; `again` has the provider ask who it is, though it may know somebody.
        Raises `UnavailableError`.
        """
        metadata = await self._metadata.prepare()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._callback,
            "scope": "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
            "login_hint": person,
        } | ({"prompt": "login"} if again else {})
        begun = Begun(state, nonce, verifier, path, now + BEGUN_LIFE)
        return begun, with_query(metadata.authorization, asked)

    async def redeem(self, code: str, begun: Begun, now: Instant, tolerance: int) -> str:
        """Whom `code` proves, as the claim says it. `tolerance` in microseconds.

        Raises `UnauthenticatedError`, and `UnavailableError` where the provider does not answer.
        """
        metadata = await self._metadata.prepare()
        id_token = await self._exchange(metadata, code, begun.verifier)
        settings = self._settings
        expected = Expected(settings.issuer, settings.client_id, now / SECOND, tolerance / SECOND)
        claims = verify(id_token, await prepare_keys(self._keys_of(metadata), id_token), expected)
        return name_of(claims, client=settings.client_id, nonce=begun.nonce, claim=settings.actor_claim)

    def _keys_of(self, metadata: Metadata) -> Published[KeySet]:
        if self._keys is None or self._keys.address != metadata.keys:
            self._keys = Published(
                "the keys of the provider in auth.oidc", metadata.keys, KeySet.parse, self._http, self._now
            )
        return self._keys

    async def _exchange(self, metadata: Metadata, code: str, verifier: str) -> str:
        """The ID token for a code (OpenID Connect Core, 3.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "code_verifier": verifier,
        }
        id_token = (await self._call(metadata, form)).get("id_token")
        if not isinstance(id_token, str):
            raise UnauthenticatedError("the provider answers without an ID token")
        return id_token

    async def _call(self, metadata: Metadata, form: Mapping[str, str]) -> Mapping[str, object]:
        own, headers = self._credentials(metadata)
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                self._http.post(
                    metadata.token, data={**form, **own}, headers=headers, allow_redirects=False
                ) as answer,
            ):
                status, body = answer.status, await read_bounded(answer)
        except FAILURES as error:
            why = str(error) or type(error).__name__
            raise UnavailableError(f"the provider cannot be asked: {why}", retry_after=PAUSE) from None
        document = json_object(body)
        if status == 200:
            return document
        told = f"the provider answers {status} {_error_of(document)}".rstrip()
        if status == 429 or status >= 500:
            raise UnavailableError(told, retry_after=PAUSE)
        raise UnauthenticatedError(told)

    def _credentials(self, metadata: Metadata) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """The client's name and secret: as members of the form, or as a header (RFC 6749, 2.3.1)."""
        name, secret = self._settings.client_id, self._settings.client_secret.reveal()
        if not metadata.basic:
            return {"client_id": name, "client_secret": secret}, {}
        pair = f"{quote_plus(name)}:{quote_plus(secret)}".encode()
        return {}, {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    async def aclose(self) -> None:
        await self._metadata.aclose()
        if self._keys is not None:
            await self._keys.aclose()


def _error_of(document: Mapping[str, object]) -> str:
    """The error code of OAuth 2.0 in an answer, which says nothing of the code or the secret."""
    error = document.get("error")
    return error if isinstance(error, str) and _ERROR.fullmatch(error) else ""
