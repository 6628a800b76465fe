"""What a daemon under test sends to: an HTTP server and a mail server on free ports of the loopback address."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from email.message import EmailMessage
from typing import Any

import orjson
from aiosmtpd.smtp import SMTP, Envelope, Session

from notifyd.demo.neighbours import Mailbox
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


class MailSink(Mailbox):
    """An SMTP server: `async with MailSink() as sink`. `mails` holds what it took, parsed.

    `answer` is its reply to a mail's content; what does not begin with 2 refuses the mail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answer = "250 taken"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.answer.startswith("2"):
            await super().handle_DATA(server, session, envelope)
        return self.answer

    async def wait(self, count: int = 1) -> list[EmailMessage]:
        """The mails, once there are `count` of them."""
        return await until(lambda: self.mails if len(self.mails) >= count else [])
