"""Being a GitHub App: its JWT, and for each installation a token that works for an hour.

Vendor's rules: https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app
(RS256; issued 60 s ago against clocks that differ, for 10 minutes at most),
https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app (`token`, `expires_at`),
https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit,
https://docs.github.com/en/rest/actions/workflow-runs#get-the-review-history-for-a-workflow-run (*Actions* read).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import aiohttp
from attrs import frozen
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from notifyd.plugin import (
    SECOND,
    Answer,
    ChannelContext,
    Reason,
    Receipt,
    Secret,
    TransientError,
    check_response,
    post,
)
from notifyd_github.config import GithubConfig

_BACKDATED: Final = 60
_JWT_AGE: Final = 540
"""Seconds: ten minutes are the most, and the clocks may differ."""
_LEFT: Final = 300
"""Seconds that a kept token must still have."""
_UNHURRIED: Final = 60
"""Seconds to wait where a limit is told without a time."""
_LEAST_KEY: Final = 2048
_REVIEWS_LIMIT: Final = 1024 * 1024
"""Bytes that are read of a run's history."""
_TOKEN: Final = re.compile(r'"token"\s*:\s*"([^"\\]{1,8000})"')
_EXPIRES: Final = re.compile(r'"expires_at"\s*:\s*"([^"\\]{1,40})"')
"""Read from the text, which may be cut off behind them."""


_HEADERS: Final = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}


def app_key(pem: Secret) -> RSAKey:
    """The App's key. Raises ValueError, which does not show it."""
    try:
        key = RSAKey.import_key(pem.reveal().strip())
        good = key.is_private and key.raw_value.key_size >= _LEAST_KEY
    except (ValueError, TypeError, JoseError):
        good = False
    if not good:
        raise ValueError("not an RSA private key of at least 2,048 bits in PEM")
    return key


@frozen
class InstallationToken:
    """`kept` says that it was made for an earlier answer, and may have been revoked since."""

    value: Secret
    kept: bool


class GithubApp:
    """Calls GitHub's API for an App."""

    def __init__(self, config: GithubConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context
        self._key = app_key(config.private_key)

    async def call(self, path: str, body: Mapping[str, object], token: Secret) -> Answer:
        """One POST. Raises as `post` does."""
        bearer = Secret(f"Bearer {token.reveal()}")
        headers: dict[str, str | Secret] = {**_HEADERS, "authorization": bearer}
        encoded = json.dumps(body, separators=(",", ":")).encode()
        answer = await post(self._context.http, self._config.url(path), encoded, headers)
        return Answer(answer.status, answer.headers, answer.text.replace(token.reveal(), "***"))

    async def reviews(self, path: str, token: Secret) -> list[Any]:
        """The history of a run's reviews; empty where it may not be read. Raises `TransientError`."""
        headers = {**_HEADERS, "authorization": f"Bearer {token.reveal()}"}
        raw, url = b"", self._config.url(path).reveal()
        try:
            async with self._context.http.get(url, headers=headers, allow_redirects=False) as response:
                status, content = response.status, response.content
                while len(raw) < _REVIEWS_LIMIT and not content.at_eof():
                    raw += await content.read(_REVIEWS_LIMIT - len(raw))
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise TransientError("GitHub does not say whether it was told before") from None
        if status >= 500:
            raise TransientError("GitHub cannot say whether it was told before", status=status)
        return _list(raw) if status == 200 else []

    async def token(self, installation: int) -> InstallationToken:
        """A token that may answer for deployments. Raises `TransientError` and `PermanentError`."""
        kept = await self._context.state.get(_name(installation))
        if kept is not None:
            known = json.loads(kept)
            if known["until"] > self._now() + _LEFT:
                return InstallationToken(Secret(known["token"]), True)
        answer = await self.call(
            f"/app/installations/{installation}/access_tokens",
            {"permissions": {"actions": "read", "deployments": "write"}},
            self._jwt(),
        )
        self.check(answer)
        return InstallationToken(await self._keep(installation, answer), False)

    async def forget(self, installation: int) -> None:
        """Make a new token for the next answer."""
        await self._context.state.delete(_name(installation))

    def check(self, answer: Answer) -> Receipt:
        """The verdict: a limit is told by 403 too. Raises `TransientError` and `PermanentError`."""
        limited = _is_limited(answer)
        return check_response(
            429 if limited else answer.status,
            answer.headers,
            answer.text,
            now=self._context.clock(),
            retry_after=self._wait(answer) if limited else None,
            said=str(answer.json.get("message", "")),
        )

    def _wait(self, answer: Answer) -> object:
        if "Retry-After" in answer.headers:
            return None  # which is read there
        reset = answer.headers.get("x-ratelimit-reset", "")
        if answer.headers.get("x-ratelimit-remaining") == "0" and reset.isdecimal():
            return max(0, int(reset) - self._now())
        return _UNHURRIED

    async def _keep(self, installation: int, answer: Answer) -> Secret:
        token, expires = _TOKEN.search(answer.text), _EXPIRES.search(answer.text)
        try:
            until = datetime.fromisoformat(expires[1]).timestamp() if expires else 0.0
        except ValueError:
            until = 0.0
        if token is None or not token[1].isascii():
            raise TransientError("GitHub gave no installation token", reason=Reason.SERVER_ERROR)
        known = {"token": token[1], "until": int(until)}
        await self._context.state.set(_name(installation), json.dumps(known))
        return Secret(token[1])

    def _jwt(self) -> Secret:
        now = self._now()
        claims = {"iat": now - _BACKDATED, "exp": now + _JWT_AGE, "iss": self._config.app_id}
        return Secret(jwt.encode({"alg": "RS256"}, claims, self._key))

    def _now(self) -> int:
        return self._context.clock() // SECOND


def _list(raw: bytes) -> list[Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _name(installation: int) -> str:
    return f"token-{installation}"


def _is_limited(answer: Answer) -> bool:
    if answer.status not in (403, 429):
        return False
    told = "Retry-After" in answer.headers or answer.headers.get("x-ratelimit-remaining") == "0"
    return answer.status == 429 or told or "rate limit" in str(answer.json.get("message", "")).lower()
