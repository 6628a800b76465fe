"""From a message to the bytes of a mail (RFC 5322): a pure function, so that a retry sends the same mail."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.errors import NonASCIILocalPartDefect
from email.headerregistry import Address, BaseHeader, HeaderRegistry, MessageIDHeader
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from typing import Any, Final, cast

from attrs import frozen

from notifyd.plugin import SECOND, Message, clean, fit, one_line

SUBJECT_LIMIT: Final = 250

_HEADERS: Final = HeaderRegistry()
for _name in ("references", "in-reply-to"):
    # As any other header a long id would be folded into an encoded word, and no reader would know it again.
    _HEADERS.map_to_type(_name, cast("type[BaseHeader]", MessageIDHeader))


@frozen
class Mailbox:
    """An address that can stand in a header and on the wire. `domain` is in its ASCII form."""

    name: str
    local: str
    domain: str

    @property
    def address(self) -> str:
        return Address(username=self.local, domain=self.domain).addr_spec

    @property
    def header(self) -> Address:
        return Address(self.name, self.local, self.domain)


def mailbox(text: str) -> Mailbox:
    """The one address in `text`, which may be `Name <address>`. Raises ValueError where there is none."""
    fault = ValueError("not one e-mail address")
    if not text.isprintable() or len(text) > 500:
        raise fault
    try:
        parsed: Any = HeaderRegistry()("to", text)
        (address,) = parsed.addresses
        domain = address.domain.encode("idna").decode()
    except (IndexError, ValueError):  # the parser's own faults at odd input are IndexErrors
        raise fault from None
    defects = [d for d in parsed.defects if not isinstance(d, NonASCIILocalPartDefect)]
    if defects or ":" in text.partition("<")[0] or not address.username or not domain:
        raise fault
    return Mailbox(address.display_name, address.username, domain)


@frozen
class Mail:
    sender: Mailbox
    recipient: Mailbox
    content: bytes

    @property
    def needs_utf8(self) -> bool:
        """Is an address not ASCII, so that the server must speak SMTPUTF8 (RFC 6531)?"""
        return not (self.sender.local + self.recipient.local).isascii()


def compose(message: Message, sender: Mailbox, recipient: Mailbox, now: int) -> Mail:
    """The mail for `message`. `now` (microseconds) dates it only where its event bears no time."""
    mail = Mail(sender, recipient, b"")
    policy = (SMTPUTF8 if mail.needs_utf8 else SMTP).clone(header_factory=_HEADERS)
    content = EmailMessage(policy)
    for name, value in _headers(message, mail, now).items():
        content[name] = value
    # Quoted-printable: no server may then change a line, and "=_" in a boundary cannot occur in any part.
    content.set_content(_plain(message), cte="quoted-printable")
    if message.html is not None:
        content.add_alternative(_encodable(message.html), subtype="html", cte="quoted-printable")
        content.set_boundary("=_" + _digest(["boundary", message.id]))
    content["Content-Language"] = one_line(message.locale)  # last, else it would move into the first part
    return Mail(sender, recipient, content.as_bytes())


def _headers(message: Message, mail: Mail, now: int) -> dict[str, Any]:
    domain = mail.sender.domain
    headers = {
        "From": mail.sender.header,
        "To": mail.recipient.header,
        # The library decodes what looks like an encoded word (RFC 2047), and a title must stay as it is read.
        "Subject": fit(one_line(message.title).replace("=?", "= ?"), SUBJECT_LIMIT),
        "Date": _date(message.event.get("occurredAt"), now),
        "Message-ID": f"<{_safe_id(message.id)}@{domain}>",
        "Auto-Submitted": "auto-generated",  # RFC 3834: no out-of-office reply
        "X-Auto-Response-Suppress": "All",  # the same, for Exchange
    }
    if thread := _thread(message.event):
        headers |= {"In-Reply-To": f"<{thread}@{domain}>", "References": f"<{thread}@{domain}>"}
    return headers


def _date(occurred_at: object, now: int) -> datetime:
    try:
        moment = datetime.fromisoformat(str(occurred_at))
    except ValueError:
        return datetime.fromtimestamp(now // SECOND, UTC)
    return moment.replace(microsecond=0, tzinfo=moment.tzinfo or UTC).astimezone(UTC)


def _thread(event: Mapping[str, Any]) -> str | None:
    """The id of a mail that was never sent, to which all mails about one approval refer (RFC 5322, 3.6.4)."""
    tenant = event.get("tenant")
    run, approval = event.get("runId"), event.get("approvalId")
    if run is None or approval is None:
        return None
    return _digest(["thread", tenant.get("id") if isinstance(tenant, Mapping) else tenant, run, approval])


def _plain(message: Message) -> str:
    blocks = [
        clean(message.body).strip("\n"),
        "\n".join(f"{one_line(f.name)}: {clean(f.value)}" for f in message.fields),
        "\n".join(f"{one_line(a.label)}:\n{one_line(a.url)}" for a in message.actions),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _encodable(html: str) -> str:
    return html.encode("utf-8", "replace").decode()


def _safe_id(message_id: str) -> str:
    plain = message_id.isascii() and message_id.isalnum() and len(message_id) <= 128
    return message_id if plain else _digest(["id", message_id])


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
