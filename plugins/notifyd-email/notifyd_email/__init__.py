"""The `email` channel: one mail to one person for each message, by SMTP (RFC 5321)."""

from __future__ import annotations

from typing import Any, Final

import attrs
from attrs import field, frozen
from attrs.validators import ge, in_, le, optional

from notifyd.plugin import CaFile, Channel, ChannelContext, ChannelType, Secret, ascii_host, hookimpl, mailbox

# RFC 8314, 3 and 7.3: submission with STARTTLS, submission over TLS, plain SMTP.
_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _is_mailbox(config: EmailConfig, attribute: attrs.Attribute[Any], value: str) -> None:
    mailbox(value)


def _is_host(config: EmailConfig, attribute: attrs.Attribute[str], value: str) -> None:
    ascii_host(value)


@frozen
class EmailConfig:
    """`from_` is written `from` in TOML: an address, or `Name <address>`. `reply_to` is one too.

    `tls` is `starttls` (port 587, and refused where the server does not offer it), `tls` (port 465) or `none`
    (port 25). A server's certificate is checked against the system's authorities, and those of `tls_ca`.
    """

    host: str = field(validator=_is_host)
    from_: str = field(validator=_is_mailbox)
    port: int | None = field(default=None, validator=optional([ge(1), le(65535)]))
    tls: str = field(default="starttls", validator=in_(tuple(_PORTS)))
    username: str | None = None
    password: Secret | None = None
    reply_to: str | None = field(default=None, validator=optional(_is_mailbox))
    tls_ca: CaFile | None = None

    def __attrs_post_init__(self) -> None:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.password is not None and self.tls == "none" and self.host not in _LOOPBACK:
            raise ValueError('with tls = "none" the password would travel in clear: use "starttls" or "tls"')

    @property
    def effective_port(self) -> int:
        return _PORTS[self.tls] if self.port is None else self.port


async def _open(config: EmailConfig, context: ChannelContext) -> Channel:
    from notifyd_email.channel import open_channel  # here, because it imports aiosmtplib

    return await open_channel(config, context)


@hookimpl
def notifyd_channel_types() -> tuple[ChannelType, ...]:
    return (ChannelType("email", EmailConfig, _open, personal=True),)
