"""The resume callback as a channel: one signed POST to the address the request named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import aiohttp

from notifyd.errors import PermanentError, Reason
from notifyd.model import SECOND, Clock, Message, Receipt
from notifyd.post import check_response, post
from notifyd.security.secrets import Secret
from notifyd.security.signing import SigningKeys, sign


class CallbackChannel:
    """Sends `message.body` to `message.recipient`, a URL, signed for the client that `message.event` names.

    `https` may go to any public address and to private ones that the operator allowed; plain `http` goes over
    `private`, a session that reaches the latter only. Neither follows a redirect.
    """

    def __init__(
        self,
        public: aiohttp.ClientSession,
        private: aiohttp.ClientSession,
        clock: Clock,
        secrets_of: Callable[[str], Sequence[Secret]],
        keys: SigningKeys,
    ) -> None:
        self._sessions = {"https": public, "http": private}
        self._clock = clock
        self._secrets_of = secrets_of
        self._keys = keys

    async def send(self, message: Message) -> Receipt:
        secrets = self._secrets_of(message.event["client"])
        if not secrets and not self._keys:
            raise PermanentError(
                "no key to sign with: resume.secrets and keys.sign are empty, and the client that asked has none",
                reason=Reason.UNAUTHORIZED,
            )
        url, body, now = Secret(message.recipient or ""), message.body.encode(), self._clock()
        own = self._keys.signatures(message.id, now // SECOND, body)
        headers = sign(secrets, message.id, now // SECOND, body, own)
        headers["X-Correlation-ID"] = message.event["correlationId"]
        answer = await post(self._sessions[urlsplit(url.reveal()).scheme], url, body, headers)
        return check_response(answer.status, answer.headers, answer.text, now=self._clock())

    async def aclose(self) -> None:
        """Nothing of its own to close: the sessions belong to who opened them."""
