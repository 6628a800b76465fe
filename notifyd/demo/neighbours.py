"""Who the daemon speaks with in the demo: a mail server, and receivers of HTTP."""

from __future__ import annotations

import asyncio
import email
import email.policy
import time
from email.message import EmailMessage
from typing import Any, Final, Self

import orjson
from aiosmtpd.smtp import SMTP, Envelope, Session

from notifyd.errors import SignatureInvalidError
from notifyd.security.secrets import Secret
from notifyd.security.signing import secret_bytes, verify
from notifyd.testkit.receivers import Received, Reply, Sink

_TOLERANCE: Final = 60.0


class Mailbox:
    """An SMTP server on a free port: `async with Mailbox() as mailbox`. `mails` holds what it took."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[EmailMessage] = []
        self._arrived = asyncio.Condition()
        self._sessions: list[_Conversation] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self._session, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for session in self._sessions:
            await session.end()

    def _session(self) -> SMTP:
        session = _Conversation(self, hostname="mail.acme.example", loop=asyncio.get_running_loop())
        self._sessions.append(session)
        return session

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """aiosmtpd calls this for each mail; the answer is what the server says to it."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        mail: Any = email.message_from_bytes(content, policy=email.policy.default)
        async with self._arrived:
            self.mails.append(mail)
            self._arrived.notify_all()
        return "250 taken"

    async def mail(self, number: int) -> EmailMessage:
        """The mail that came as the `number`-th, from 0, once it is there."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.mails) > number)
        return self.mails[number]


class _Conversation(SMTP):
    """One connection, whose end can be awaited."""

    def __init__(self, mailbox: Mailbox, **options: Any) -> None:
        super().__init__(mailbox, enable_SMTPUTF8=True, **options)
        self._over = asyncio.Event()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._over.set()

    async def end(self) -> None:
        if self.transport is not None:
            self.transport.close()
            await self._over.wait()


class SignedSink(Sink):
    """A receiver that takes what is signed with its secret (Standard Webhooks), and refuses the rest."""

    def __init__(self, secret: Secret) -> None:
        super().__init__()
        self.documents: list[Any] = []
        self._key = secret_bytes(secret)
        self._taken = asyncio.Condition()

    async def choose(self, received: Received) -> Reply:
        try:
            verify([self._key], received.headers, received.body, time.time(), _TOLERANCE)
        except SignatureInvalidError as error:
            return Reply(401, error.detail)
        async with self._taken:
            self.documents.append(orjson.loads(received.body))
            self._taken.notify_all()
        return Reply(204, "")

    async def document(self, number: int) -> Any:
        """The body that came as the `number`-th, from 0, read as JSON, once it is there."""
        async with self._taken:
            await self._taken.wait_for(lambda: len(self.documents) > number)
        return self.documents[number]
