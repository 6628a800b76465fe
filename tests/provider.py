"""An OpenID provider on this machine, which can lie, and a browser that an approver signs in with."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.cookies
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from urllib.parse import parse_qs, parse_qsl, urlsplit

from aiohttp import web
from attrs import define, field, frozen
from joserfc.jwk import Key
from multidict import CIMultiDictProxy

from tests.daemon import Answer, Daemon
from tests.issuer import jwks, key_for, signed

CLIENT: Final = "notifyd"
SECRET: Final = "the client's secret of the provider"
OUTSIDE: Final = "https://notifyd.acme.example"
"""The `server.public_url` of tests."""


@frozen
class Asked:
    """What a browser brought to the authorization endpoint, and who signs in."""

    parameters: Mapping[str, str]
    email: str


@define
class OpenIdProvider:
    """`claims` are those of its ID tokens beside the usual; None leaves one out. `sign` writes a token.

    `status` is what its token endpoint answers; `held` keeps all its endpoints from answering. `issued` are all
    the codes and ID tokens that it has given out.
    """

    url: str = ""
    claims: dict[str, Any] = field(factory=dict)
    description: dict[str, Any] = field(factory=dict)
    sign: Callable[[Mapping[str, Any]], str] = field(default=lambda claims: id_token(claims))
    status: int = 200
    codes: dict[str, Asked] = field(factory=dict)
    paths: list[str] = field(factory=list)
    issued: list[str] = field(factory=list)
    held: asyncio.Event = field(factory=asyncio.Event)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.paths.append(request.path)
        await self.held.wait()
        match request.path:
            case "/.well-known/openid-configuration":
                return web.json_response(self.described())
            case "/keys":
                return web.Response(text=jwks(), content_type="application/json")
            case "/token":
                return self.redeem(request.headers, await request.text())
        return web.Response(status=404)

    def described(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=acme",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        } | self.description

    def sign_in(self, address: str, email: str) -> str:
        """A person signs in at `address`: where the browser is sent back to."""
        asked = dict(parse_qsl(urlsplit(address).query))
        assert address.startswith(f"{self.url}/authorize?")
        assert (asked["client_id"], asked["response_type"], asked["tenant"]) == (CLIENT, "code", "acme")
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = f"code-{secrets.token_hex(16)}"
        self.issued.append(code)
        self.codes[code] = Asked(asked, email)
        return f"{asked['redirect_uri']}?code={code}&state={asked['state']}"

    def redeem(self, headers: Mapping[str, str], body: str) -> web.Response:
        form = {name: values[0] for name, values in parse_qs(body).items()}
        asked = self.codes.pop(form["code"], None)
        basic = base64.b64encode(b"notifyd:the+client%27s+secret+of+the+provider").decode()
        named = headers.get("Authorization") == f"Basic {basic}" or form.get("client_secret") == SECRET
        if self.status != 200:
            echoed = f"{headers.get('Authorization')} {form}"  # as careless ones do
            return web.json_response(
                {"error": "server_error", "error_description": echoed}, status=self.status
            )
        if asked is None or not named or not self._same_browser(asked.parameters, form):
            return web.json_response({"error": "invalid_grant"}, status=400)
        said = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "248289761001",
            "exp": int(time.time()) + 300,
            "iat": int(time.time()),
            "nonce": asked.parameters["nonce"],
            "email": asked.email,
            "email_verified": True,
        } | self.claims
        claims = {name: value for name, value in said.items() if value is not None}
        self.issued.append(self.sign(claims))
        return web.json_response({"id_token": self.issued[-1], "access_token": "x", "token_type": "Bearer"})

    @staticmethod
    def _same_browser(asked: Mapping[str, str], form: Mapping[str, str]) -> bool:
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return (challenge, form["redirect_uri"]) == (asked["code_challenge"], asked["redirect_uri"])


def id_token(claims: Mapping[str, Any], algorithm: str = "RS256", key: Key | None = None) -> str:
    key = key or key_for(algorithm)
    return signed({"alg": algorithm, "kid": key.kid}, claims, key)


@asynccontextmanager
async def provider() -> AsyncIterator[OpenIdProvider]:
    running = OpenIdProvider()
    running.held.set()
    runner = web.ServerRunner(web.Server(running.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    running.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield running
    finally:
        running.held.set()
        await runner.cleanup()


@define
class Browser:
    """Keeps cookies by path, as RFC 6265 has it, and says what a browser says of a request's origin."""

    notifyd: Daemon
    cookies: dict[tuple[str, str], http.cookies.Morsel[str]] = field(factory=dict)

    async def get(self, path: str, site: str = "none") -> Answer:
        return await self._call("GET", path, site)

    async def post(self, path: str, form: Mapping[str, str], site: str = "same-origin") -> Answer:
        """Cookies are SameSite=Lax: another site's form is sent without."""
        return await self._call("POST", path, site, data=form)

    async def _call(self, method: str, path: str, site: str, **more: Any) -> Answer:
        sent = {} if (method, site) == ("POST", "cross-site") else self.sent_to(path)
        cookie = "; ".join(f"{name}={value}" for name, value in sent.items())
        headers = {"Sec-Fetch-Site": site} | ({"Cookie": cookie} if cookie else {})
        answer = await self.notifyd.call(method, path, headers=headers, **more)
        self._keep(answer)
        return answer

    def sent_to(self, path: str) -> dict[str, str]:
        path = path.partition("?")[0]
        within = {
            name: m for (name, at), m in self.cookies.items() if path == at or path.startswith(f"{at}/")
        }
        return {name: morsel.value for name, morsel in within.items()}

    def _keep(self, answer: Answer) -> None:
        for header in cast(CIMultiDictProxy[str], answer.headers).getall("Set-Cookie", []):
            for name, morsel in http.cookies.SimpleCookie(header).items():
                assert (morsel["secure"], morsel["httponly"], morsel["samesite"]) == (True, True, "Lax")
                assert len(name) + len(morsel.value) <= 4096  # what browsers take
                self.cookies.pop((name, morsel["path"]), None)
                if morsel["max-age"] != "0":
                    self.cookies[name, morsel["path"]] = morsel
