"""What a daemon under test sends to: an HTTP server and a mail server on free ports of the loopback address."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections import deque
from collections.abc import Callable, Iterable
from email.message import EmailMessage
from typing import Any, Self

import orjson
from aiosmtpd.smtp import SMTP, Envelope, Session

from notifyd.testing import Received, Reply, Sink
from tests.waiting import until

__all__ = ["HttpSink", "MailSink", "Received", "Reply"]


class HttpSink(Sink):
    """`Sink` with a script and a gate: `async with HttpSink([Reply(503), Reply()]) as sink`.

    Requests are answered with each of `script` in turn, then with `reply`. While `gate` is clear they are
    recorded, and wait for their answers.
    """

    def __init__(self, script: Iterable[Reply] = ()) -> None:
        super().__init__()
        self.script = deque(script)
        self.gate = asyncio.Event()
        self.gate.set()

    async def choose(self, received: Received) -> Reply:
        reply = self.script.popleft() if self.script else self.reply
        await self.gate.wait()
        return reply

    async def __aexit__(self, *exc: object) -> None:
        self.gate.set()
        await super().__aexit__(*exc)

    @property
    def documents(self) -> list[Any]:
        """The bodies received, read as JSON."""
        return [orjson.loads(one.body) for one in self.received]

    async def wait(
        self, count: int = 1, where: Callable[[Received], bool] = lambda _: True
    ) -> list[Received]:
        """The requests for which `where` holds, once there are `count` of them."""

        def enough() -> list[Received]:
            found = list(filter(where, self.received))
            return found if len(found) >= count else []

        return await until(enough)


class MailSink:
    """An SMTP server: `async with MailSink() as sink`. `mails` holds what it took, parsed.

    `answer` is its reply to a mail's content; what does not begin with 2 refuses the mail.
    """

    def __init__(self) -> None:
        self.host, self.port = "127.0.0.1", 0
        self.mails: list[EmailMessage] = []
        self.answer = "250 taken"
        self._sessions: list[SMTP] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for session in self._sessions:
            if session.transport is not None:
                session.transport.close()
        await until(lambda: all(session.transport is None for session in self._sessions))

    def _session(self) -> SMTP:
        loop = asyncio.get_running_loop()
        session = SMTP(self, enable_SMTPUTF8=True, hostname="sink.example", loop=loop)
        self._sessions.append(session)
        return session

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Called by aiosmtpd."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        if self.answer.startswith("2"):
            mail = email.message_from_bytes(content, policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
        return self.answer

    async def wait(self, count: int = 1) -> list[EmailMessage]:
        """The mails, once there are `count` of them."""
        return await until(lambda: self.mails if len(self.mails) >= count else [])
