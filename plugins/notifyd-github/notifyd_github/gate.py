"""The gate: GitHub's calls in, by their signature, and the ends of what they asked out, by the App's token."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from notifyd.plugin import (
    ChannelContext,
    InboundRequest,
    InboundResponse,
    Message,
    PermanentError,
    Reason,
    Receipt,
    TransientError,
)
from notifyd_github.app import GithubApp
from notifyd_github.asked import Waiting, answer, event, is_told, waiting
from notifyd_github.config import GithubConfig

_EVENT: Final = "deployment_protection_rule"
_FORWARDERS: Final = "resume."


class GithubGate:
    def __init__(self, config: GithubConfig, context: ChannelContext) -> None:
        self._config = config
        self._context = context
        self._app = GithubApp(config, context)

    async def receive(self, request: InboundRequest) -> InboundResponse:
        """GitHub shows what is answered beside the delivery, where an operator looks first."""
        if not self._proved(request):
            return InboundResponse(401, "X-Hub-Signature-256 is missing, or made with another secret")
        kind = request.headers.get("x-github-event", "")
        if kind == "ping":
            return InboundResponse(200, "the address and the secret are right")
        if kind != _EVENT:
            return InboundResponse(202, f"nothing to do: only {_EVENT} is for this gate")
        try:
            return await self._asked(request, _payload(request))
        except ValueError as error:
            return InboundResponse(422, f"the payload cannot be used: {error}")
        except PermanentError as error:
            return InboundResponse(422, error.detail)

    async def _asked(self, request: InboundRequest, payload: Mapping[str, Any]) -> InboundResponse:
        if payload.get("action") != "requested":
            return InboundResponse(202, "nothing to do: only the action requested asks")
        repository = waiting(payload).repository
        if not self._config.admits(repository):
            self._context.logger.warning("a repository that is not among `repositories` asks: %s", repository)
            return InboundResponse(403, "this repository is not among those that may ask")
        await request.ask(event(payload, request.body, self._context.name.removeprefix(_FORWARDERS)))
        return InboundResponse(202, "people are asked")

    def _proved(self, request: InboundRequest) -> bool:
        given = request.headers.get("x-hub-signature-256", "").encode(errors="surrogateescape")
        secrets = self._config.webhook_secrets
        return any(hmac.compare_digest(given, _signature(one.reveal(), request.body)) for one in secrets)

    async def send(self, message: Message) -> Receipt:
        """One answer. A token that was kept and is refused is made anew for the next attempt.

        GitHub takes an answer once. Where one came through although nobody heard so, the next is refused, and the
        run's history tells.
        """
        data, asks = _end(message)
        told, token = answer(data, asks), await self._app.token(asks.installation)
        answered = await self._app.call(asks.path, told, token.value)
        if answered.status == 401:
            await self._app.forget(asks.installation)
            if token.kept:
                raise TransientError(
                    "GitHub takes the kept token no more", reason=Reason.CHANNEL_FAULT, status=401
                )
        if answered.status == 422 and is_told(await self._app.reviews(asks.reviews, token.value), told):
            return Receipt("an earlier attempt has told it")
        return self._app.check(answered)

    async def aclose(self) -> None:
        """Nothing is held: the session belongs to the daemon."""


def _signature(secret: str, body: bytes) -> bytes:
    return b"sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode()


def _payload(request: InboundRequest) -> Mapping[str, Any]:
    """Raises ValueError."""
    try:
        payload = json.loads(request.body)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON: the webhook's content type must be application/json") from None
    if not isinstance(payload, dict):
        raise ValueError("it is not an object")
    return payload


def _end(message: Message) -> tuple[Mapping[str, Any], Waiting]:
    try:
        data = json.loads(message.body)["data"]
        return data, Waiting.read(data["resumeToken"])
    except (ValueError, TypeError, KeyError):
        raise PermanentError("this is no end of what GitHub asked", reason=Reason.UNSUPPORTED) from None
