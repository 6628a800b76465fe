"""A stand-in for GitHub: the two calls of its API that a gate makes, and the webhook by which it asks.

It checks what GitHub documents: the App's JWT (RS256, `iss`, `iat`, `exp`), the installation's token, and of an
answer its members and the length of its comment. A run is decided once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from notifyd.testing import Received, Reply, Sink

APP_ID: Final = "Iv23liNotifydTests"
INSTALLATION: Final = 4711
WEBHOOK_SECRET: Final = "it's a secret to everybody"
REPOSITORY: Final = "acme/payments"
RUN: Final = 15891
_ANSWER: Final = re.compile(r"/repos/([^/]+/[^/]+)/actions/runs/([0-9]+)/deployment_protection_rule")
_TOKENS: Final = re.compile(r"/app/installations/([0-9]+)/access_tokens")
_REVIEWS: Final = re.compile(rf"/repos/{REPOSITORY}/actions/runs/([0-9]+)/approvals")
_MESSAGES: Final = {401: "Bad credentials", 404: "Not Found", 422: "Validation Failed"}


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def pem() -> str:
    """The App's private key as GitHub hands it out, in PKCS #1."""
    return (
        key()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        .decode()
    )


class GithubApi(Sink):
    """`received` has the answers alone; `decided` those that were taken, by run and environment.

    `made` counts tokens. `reply`, where a test sets it, is what an answer gets in place of GitHub's own verdict,
    and `token_reply` what a wish for a token gets. `held` keeps an answer waiting for its verdict, undecided; with
    `losing` the next one is taken, and a proxy between says that it was not.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._tokens: set[str] = set()
        self._own = self.reply
        self.made = 0
        self.held = False
        self.losing = False
        self.token_reply: Reply | None = None
        self.decided: dict[tuple[int, str], dict[str, Any]] = {}

    def revoke(self) -> None:
        """Make every token invalid."""
        self._tokens.clear()

    async def choose(self, received: Received) -> Reply:
        if _TOKENS.fullmatch(received.path):
            self.received.remove(received)
            return self.token_reply or self._token(received)
        if found := _REVIEWS.fullmatch(received.path):
            self.received.remove(received)
            return self._reviews(received, int(found[1]))
        if self.held:
            await self._closing.wait()
        return self._answered(received) if self.reply is self._own else self.reply

    def _token(self, received: Received) -> Reply:
        if not self._is_app(_bearer(received)):
            return _refusal(401)
        if received.path != f"/app/installations/{INSTALLATION}/access_tokens":
            return _refusal(404)
        self.made += 1
        token = f"ghs_{self.made:036d}"
        self._tokens.add(token)
        until = datetime.fromtimestamp(self._clock() + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        permissions = json.loads(received.body)["permissions"]
        return Reply(201, json.dumps({"token": token, "expires_at": until, "permissions": permissions}))

    def _is_app(self, token: str) -> bool:
        head, _, signature = token.rpartition(".")
        try:
            key().public_key().verify(_decoded(signature), head.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            return False
        header, claims = (json.loads(_decoded(part)) for part in head.split("."))
        now, right = self._clock(), (header["alg"], claims["iss"]) == ("RS256", APP_ID)
        return right and claims["iat"] <= now < claims["exp"] <= now + 600

    def _answered(self, received: Received) -> Reply:
        found = _ANSWER.fullmatch(received.path)
        if _bearer(received) not in self._tokens:
            return _refusal(401)
        if found is None or found[1] != REPOSITORY:
            return _refusal(404)
        given = json.loads(received.body)
        decision = int(found[2]), given.get("environment_name", "")
        good = given.get("state") in ("approved", "rejected") and 0 < len(given.get("comment", "")) <= 1024
        if not good or not decision[1] or decision in self.decided:
            return _refusal(422)
        self.decided[decision] = given
        lost, self.losing = self.losing, False
        return Reply(502, "") if lost else Reply(204, "")

    def _reviews(self, received: Received, run: int) -> Reply:
        """The history of a run, as far as GitHub's page tells of its members."""
        if received.method != "GET" or _bearer(received) not in self._tokens:
            return _refusal(401)
        found = [
            {"state": given["state"], "comment": given["comment"], "environments": [{"id": 1, "name": name}]}
            for (decided, name), given in self.decided.items()
            if decided == run
        ]
        return Reply(200, json.dumps(found))


def _refusal(status: int) -> Reply:
    return Reply(status, json.dumps({"message": _MESSAGES[status], "status": str(status)}))


def _bearer(received: Received) -> str:
    return received.headers.get("Authorization", "").removeprefix("Bearer ")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- the webhook -------------------------------------------------------------------------------------------


def payload(at: float | None = None, **changes: Any) -> dict[str, Any]:
    """A `deployment_protection_rule`, as far as GitHub's page tells of its members."""
    created = datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    api = f"https://api.github.com/repos/{REPOSITORY}"
    return {
        "action": "requested",
        "environment": "production",
        "event": "push",
        "deployment_callback_url": f"{api}/actions/runs/{RUN}/deployment_protection_rule",
        "deployment": {
            "id": 1127,
            "sha": "d53fd7a3c7f5a1c4c2f0a1c3b6e8a9f00d1e2f3a",
            "ref": "main",
            "task": "deploy",
            "environment": "production",
            "created_at": created,
            "updated_at": created,
            "creator": {"login": "github-actions[bot]"},
        },
        "pull_requests": [],
        "repository": {"id": 99, "full_name": REPOSITORY, "html_url": f"https://github.com/{REPOSITORY}"},
        "organization": {"login": "acme"},
        "installation": {"id": INSTALLATION},
        "sender": {"login": "octocat"},
    } | changes


def webhook(
    document: object, secret: str = WEBHOOK_SECRET, event: str = "deployment_protection_rule"
) -> tuple[dict[str, str], bytes]:
    """The headers, by names in lower case, and the body of a delivery."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "content-type": "application/json",
        "x-github-event": event,
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "x-hub-signature-256": f"sha256={signature}",
    }, body
