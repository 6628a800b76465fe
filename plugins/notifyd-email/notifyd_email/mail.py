"""From a message to the bytes of a mail (RFC 5322): a pure function, so that a retry sends the same mail."""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final

from attrs import frozen

from notifyd.plugin import SECOND, Field, Mailbox, Message, clean, fit, one_line
from notifyd_email.headers import address_field, text_field, token_field

SUBJECT_LIMIT: Final = 250

_LANGUAGE: Final = re.compile(r"[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8}){0,9}")  # RFC 5646, 2.1


@frozen
class Letterhead:
    """What all mails of a channel have in common."""

    sender: Mailbox
    channel: str
    reply_to: Mailbox | None = None

    @property
    def list_id(self) -> str:
        """By which a reader's filters know the channel (RFC 2919)."""
        return f"<{self.channel}.{self.sender.domain}>"


@frozen
class Mail:
    sender: Mailbox
    recipient: Mailbox
    content: bytes

    @property
    def needs_utf8(self) -> bool:
        """Is an address in it not ASCII, so that the server must speak SMTPUTF8 (RFC 6531)?"""
        return not self.content.isascii()


def compose(message: Message, letterhead: Letterhead, recipient: Mailbox, now: int) -> Mail:
    """The mail for `message`. `now` (microseconds) dates it only where its event bears no time."""
    subject = _subject(message)
    head = b"".join(_headers(message, letterhead, recipient, subject, now))
    return Mail(letterhead.sender, recipient, head + _body(message, subject))


def _headers(
    message: Message, letterhead: Letterhead, recipient: Mailbox, subject: str, now: int
) -> Iterator[bytes]:
    domain = letterhead.sender.domain
    yield address_field("From", letterhead.sender)
    yield address_field("To", recipient)
    if letterhead.reply_to is not None:
        yield address_field("Reply-To", letterhead.reply_to)
    yield text_field("Subject", subject)
    yield token_field("Date", format_datetime(_date(message.event.get("occurredAt"), now)))
    yield token_field("Message-ID", f"<{_safe_id(message.id)}@{domain}>")
    if thread := _thread(message.event):
        yield token_field("In-Reply-To", f"<{thread}@{domain}>")
        yield token_field("References", f"<{thread}@{domain}>")
    yield token_field("List-Id", letterhead.list_id)
    yield token_field("Auto-Submitted", "auto-generated")  # RFC 3834: no out-of-office reply
    yield token_field("X-Auto-Response-Suppress", "All")  # the same, for Exchange
    if _LANGUAGE.fullmatch(message.locale):
        yield token_field("Content-Language", message.locale)
    yield token_field("MIME-Version", "1.0")


def _subject(message: Message) -> str:
    """The title; of an approval what it is about, as mail programs take mails for a thread only while it stays."""
    event = message.event
    if _thread(event) is None:
        return fit(one_line(message.title), SUBJECT_LIMIT)
    told, mark = event.get("message"), f"[{fit(one_line(str(event['runId'])), SUBJECT_LIMIT // 2)}]"
    title = told.get("title") if isinstance(told, Mapping) else None
    about = one_line(str(title or event.get("packId") or ""))
    return f"{fit(about, SUBJECT_LIMIT - len(mark) - 1)} {mark}" if about else mark


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


# --- the body ----------------------------------------------------------------------------------------------


def _body(message: Message, subject: str) -> bytes:
    plain = _part("text/plain", _plain(message, subject))
    if message.html is None:
        return plain
    # "=_" cannot occur in a quoted-printable part, so that no text can end one. Short enough for one line: of
    # a parameter that is continued on the next (RFC 2231) many programs read nothing.
    boundary = "=_" + _digest(["boundary", message.id])[:24]
    between = f"\r\n--{boundary}".encode()
    return b"".join(
        [
            token_field("Content-Type", "multipart/alternative;", f'boundary="{boundary}"'),
            between + b"\r\n" + plain,
            between + b"\r\n" + _part("text/html", message.html),
            between + b"--\r\n",
        ]
    )


def _part(kind: str, text: str) -> bytes:
    """Quoted-printable, so that no server on the way changes a line; it ends with a line's end."""
    encoded = binascii.b2a_qp(clean(text).rstrip("\n").encode() + b"\n").replace(b"\n", b"\r\n")
    return b"".join(
        [
            token_field("Content-Type", f"{kind};", "charset=utf-8"),
            token_field("Content-Transfer-Encoding", "quoted-printable"),
            b"\r\n",
            encoded,
        ]
    )


def _plain(message: Message, subject: str) -> str:
    """Title and what a reader must see first, the text, the other facts, the links."""
    title = one_line(message.title)
    blocks = [
        title if title != subject else "",
        _facts(f for f in message.fields if f.lead),
        clean(message.body).strip("\n"),
        _facts(f for f in message.fields if not f.lead),
        "\n".join(f"{one_line(a.label)}:\n{one_line(a.url)}" for a in message.actions),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _facts(fields: Iterable[Field]) -> str:
    return "\n".join(f"{one_line(f.name)}: {clean(f.value)}" for f in fields)


def _safe_id(message_id: str) -> str:
    plain = message_id.isascii() and message_id.isalnum() and len(message_id) <= 128
    return message_id if plain else _digest(["id", message_id])


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
