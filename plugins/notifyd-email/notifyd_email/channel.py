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
    ascii_host,
    clean,
    fit,
    hide,
    mailbox,
)
from notifyd_email import EmailConfig
from notifyd_email.answers import About, read
from notifyd_email.mail import Letterhead, Mail, compose

EXCERPT_LIMIT: Final = 500


async def open_channel(config: EmailConfig, context: ChannelContext) -> EmailChannel:
    # Off the loop, because it reads the system's certificates.
    trust = await asyncio.to_thread(config.tls_ca.context if config.tls_ca else ssl.create_default_context)
    return EmailChannel(config, context, trust)


class EmailChannel:
    def __init__(self, config: EmailConfig, context: ChannelContext, trust: ssl.SSLContext) -> None:
        self._config = config
        self._context = context
        self._trust = trust
        reply_to = None if config.reply_to is None else mailbox(config.reply_to)
        self._letterhead = Letterhead(mailbox(config.from_), context.name, reply_to)

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
        return compose(message, self._letterhead, recipient, self._context.clock())

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
            hostname=ascii_host(config.host),
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
            return PermanentError(
                "the mail server takes no address that is not ASCII before the @ (it lacks SMTPUTF8)",
                reason=Reason.UNSUPPORTED,
            )
        if isinstance(error, TimeoutError):
            return TransientError("the mail server gave no answer in time", reason=Reason.TIMEOUT)
        return TransientError(f"the mail server cannot be used: {_kind(error)}", reason=Reason.NETWORK)

    def _answered(self, error: aiosmtplib.SMTPResponseException) -> TransientError | PermanentError:
        if error.code == aiosmtplib.SMTPStatus.invalid_response:
            detail, said = "what answers there is no mail server", self._shown(error.message)
            return TransientError(detail, reason=Reason.SERVER_ERROR, excerpt=said)
        answer = read(error.code, error.message, _about(error))
        verdict = TransientError if answer.transient else PermanentError
        return verdict(
            f"the mail server answered {answer.said}",
            reason=answer.reason,
            status=error.code,
            excerpt=self._shown(error.message),
        )

    def _shown(self, text: str) -> str:
        secrets: tuple[Secret, ...] = () if self._config.password is None else (self._config.password,)
        return hide(clean(text), secrets)[:EXCERPT_LIMIT]

    async def aclose(self) -> None:
        """Nothing is held: each mail has a connection of its own."""


def _about(error: aiosmtplib.SMTPResponseException) -> About:
    if isinstance(error, aiosmtplib.SMTPSenderRefused):
        return About.SENDER
    return About.RECIPIENT if isinstance(error, aiosmtplib.SMTPRecipientRefused) else About.OTHER


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
