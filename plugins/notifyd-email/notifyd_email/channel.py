"""Sending a mail through a server, and what its answers mean for a retry."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Final

import aiosmtplib

from notifyd.plugin import (
    ChannelContext,
    Message,
    PermanentError,
    Reason,
    Receipt,
    Secret,
    TransientError,
    clean,
    fit,
    hide,
)
from notifyd_email import EmailConfig
from notifyd_email.mail import Mail, compose, mailbox

EXCERPT_LIMIT: Final = 500

_PERMANENT: Final = {
    523: Reason.TOO_LARGE,
    530: Reason.UNAUTHORIZED,
    534: Reason.UNAUTHORIZED,
    535: Reason.UNAUTHORIZED,
    538: Reason.UNAUTHORIZED,
    552: Reason.TOO_LARGE,
}
"""RFC 5321, 4.2.3 and RFC 4954, 6; any other 5yz is a plain refusal."""


async def open_channel(config: EmailConfig, context: ChannelContext) -> EmailChannel:
    # Off the loop, because it reads the system's certificates.
    trust = await asyncio.to_thread(ssl.create_default_context)
    return EmailChannel(config, context, trust)


class EmailChannel:
    def __init__(self, config: EmailConfig, context: ChannelContext, trust: ssl.SSLContext) -> None:
        self._config = config
        self._context = context
        self._trust = trust
        self._sender = mailbox(config.from_)

    async def send(self, message: Message) -> Receipt:
        mail = self._compose(message)
        try:
            answer = await self._transfer(mail)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise self._verdict(error) from None
        return Receipt(detail=fit(self._shown(answer), 120))

    def _compose(self, message: Message) -> Mail:
        if message.recipient is None:
            raise PermanentError("a mail needs a recipient, and the rule names none in `to` or `lists`")
        try:
            recipient = mailbox(message.recipient)
        except ValueError as error:
            raise PermanentError(f"the recipient is {error}") from None
        return compose(message, self._sender, recipient, self._context.clock())

    async def _transfer(self, mail: Mail) -> str:
        """Hand the mail to the server over a connection of its own, and give the server's last words."""
        client = self._client()
        options = ["SMTPUTF8"] if mail.needs_utf8 else []
        try:
            await client.connect()
            _, answer = await client.sendmail(
                mail.sender.address, [mail.recipient.address], mail.content, mail_options=options
            )
            with suppress(aiosmtplib.SMTPException, OSError):  # the mail is taken, whatever happens now
                await client.quit(timeout=1)
        finally:
            # Not the client's own context: on cancellation that says QUIT and waits for an answer.
            client.close()
        return answer

    def _client(self) -> aiosmtplib.SMTP:
        config = self._config
        return aiosmtplib.SMTP(
            hostname=config.host,
            port=config.effective_port,
            username=config.username,
            password=None if config.password is None else config.password.reveal(),
            local_hostname=_greeting(),
            use_tls=config.tls == "tls",
            start_tls=config.tls == "starttls",
            tls_context=None if config.tls == "none" else self._trust,
        )

    def _verdict(self, error: Exception) -> TransientError | PermanentError:
        if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
            error = error.recipients[0]
        if isinstance(error, aiosmtplib.SMTPResponseException):
            return self._answered(error)
        if isinstance(error, aiosmtplib.SMTPNotSupported):
            return PermanentError("the mail server does not take addresses that are not ASCII (SMTPUTF8)")
        if isinstance(error, TimeoutError):
            return TransientError("the mail server gave no answer in time", reason=Reason.TIMEOUT)
        return TransientError(f"the mail server cannot be used: {_kind(error)}", reason=Reason.NETWORK)

    def _answered(self, error: aiosmtplib.SMTPResponseException) -> TransientError | PermanentError:
        detail, excerpt = f"the mail server answered {error.code}", self._shown(error.message)
        if error.code >= 500:
            reason = _PERMANENT.get(error.code, Reason.REJECTED)
            return PermanentError(detail, reason=reason, status=error.code, excerpt=excerpt)
        return TransientError(detail, reason=Reason.SERVER_ERROR, status=error.code, excerpt=excerpt)

    def _shown(self, text: str) -> str:
        secrets: tuple[Secret, ...] = () if self._config.password is None else (self._config.password,)
        return hide(clean(text), secrets)[:EXCERPT_LIMIT]

    async def aclose(self) -> None:
        """Nothing is held: each mail has a connection of its own."""


def _greeting() -> str:
    """This host's name for EHLO; where it is not fully qualified an address literal (RFC 5321, 4.1.4)."""
    name = socket.gethostname()
    return name if "." in name and name.isascii() else "[127.0.0.1]"


def _kind(error: Exception) -> str:
    """A few words on a fault: the library's own are about host and port, and never about the login."""
    if isinstance(error, aiosmtplib.SMTPException):
        return clean(str(error.message))
    return (
        clean(error.strerror or type(error).__name__) if isinstance(error, OSError) else type(error).__name__
    )
