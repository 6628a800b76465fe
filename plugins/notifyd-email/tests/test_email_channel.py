"""The email channel against a real SMTP server; each mail is parsed by the standard library."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from notifyd_email import EmailConfig, notifyd_channel_types
from notifyd_email.mail import Letterhead, compose

from notifyd.plugin import CaFile, PermanentError, Reason, Receipt, Secret, TransientError, mailbox
from notifyd.testing import (
    NOW,
    NetworkConformance,
    Received,
    Receiver,
    Reply,
    Verdict,
    opened,
    sample_message,
)

(EMAIL,) = notifyd_channel_types()
FROM = "Notifier <notifyd@acme.example>"
TO = "alice@acme.example"
PASSWORD = "opensesame"


class Mailroom:
    """Takes mail, and answers RCPT and DATA as a test says."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.rcpt_answer = ""
        self.data_answer = ""
        self.logins: list[tuple[bytes, bytes]] = []
        self.url = ""
        self.received: list[Received] = []
        self.reply = Reply(250, "queued as 42")
        self.arrived = asyncio.Event()
        self.silent = False
        self.hangs_up = False

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.rcpt_answer:
            return self.rcpt_answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.mails.append(envelope)
        self.received.append(Received(envelope.content))
        self.arrived.set()
        if self.silent:
            await asyncio.Event().wait()
        if self.hangs_up and isinstance(server.transport, asyncio.Transport):
            server.transport.abort()
        said = self.reply.text(self.received[-1]).replace("\n", " ").replace("\r", " ")
        return self.data_answer or f"{self.reply.status} {said[:400]}"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


def content(room: Mailroom) -> bytes:
    (envelope,) = room.mails
    assert isinstance(envelope.content, bytes)
    return envelope.content


def parsed(room: Mailroom) -> EmailMessage:
    message = email.message_from_bytes(content(room), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


class Conversation(SMTP):
    def __init__(self, room: Mailroom, **options: Any) -> None:
        super().__init__(room, **options)
        self.over = asyncio.Event()
        self.over.set()  # until TLS has begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.over.clear()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.over.set()


@asynccontextmanager
async def mailroom(
    tls: ssl.SSLContext | None = None, utf8: bool = True, **options: Any
) -> AsyncIterator[Mailroom]:
    room, sessions = Mailroom(), list[Conversation]()
    loop = asyncio.get_running_loop()

    def conversation() -> SMTP:
        options.update(authenticator=room.authenticate, loop=loop, enable_SMTPUTF8=utf8)
        sessions.append(Conversation(room, **options))
        return sessions[-1]

    server = await loop.create_server(conversation, "127.0.0.1", 0, ssl=tls)
    room.url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield room
        for session in sessions:
            await session.over.wait()


class TestEmail(NetworkConformance):
    channel_type = EMAIL
    message = sample_message(recipient=TO, html="<!doctype html><p>Hello</p>")
    verdicts: ClassVar[Mapping[int, Verdict]] = {
        250: None,
        421: TransientError,
        450: TransientError,
        451: TransientError,
        452: TransientError,
        530: PermanentError,
        550: PermanentError,
        552: PermanentError,
        554: PermanentError,
    }

    receiver_loggers = frozenset({"mail.log"})

    def receiver(self) -> AbstractAsyncContextManager[Receiver]:
        return mailroom(auth_require_tls=False)

    def config(self, url: str) -> EmailConfig:
        host, _, port = url.rpartition(":")
        login: dict[str, Any] = {"username": "notifyd", "password": Secret(PASSWORD)}
        return EmailConfig(host=host, port=int(port), from_=FROM, tls="none", **login)

    def readable(self, received: Received) -> str:
        mail = email.message_from_bytes(received.body, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        body = mail.get_body(("plain",))
        assert body is not None
        return f"{mail['Subject']}\n{body.get_content()}"


def plain_config(room: Mailroom, **changes: Any) -> EmailConfig:
    options: dict[str, Any] = {"host": "127.0.0.1", "from_": FROM, "port": room.port, "tls": "none"}
    return EmailConfig(**options | changes)


async def send(config: EmailConfig, **changes: Any) -> Receipt:
    async with opened(EMAIL, config) as channel:
        return await channel.send(sample_message(**{"recipient": TO} | changes))


HTML = "<!doctype html><html><body><h1>Freigabe nötig</h1></body></html>"


async def test_a_mail_holds_the_text_and_the_html_under_the_documented_headers() -> None:
    async with mailroom() as room:
        receipt = await send(plain_config(room), html=HTML, locale="de-CH", title="Freigabe nötig: Zürich")
    mail, message = parsed(room), sample_message()
    assert (room.mails[0].mail_from, room.mails[0].rcpt_tos) == ("notifyd@acme.example", [TO])
    assert (mail["From"], mail["To"], mail["Reply-To"]) == (FROM, TO, None)
    assert (mail["Subject"], mail["List-Id"]) == ("[run-0042]", "<under-test.acme.example>")
    assert mail["Date"].datetime == datetime(2026, 9, 21, 14, tzinfo=UTC)
    assert (mail["Auto-Submitted"], mail["Content-Language"]) == ("auto-generated", "de-CH")
    assert mail["Message-ID"] == f"<{message.id}@acme.example>"
    assert mail.get_content_type() == "multipart/alternative"
    text, html = (part.get_content().replace("\r\n", "\n") for part in mail.iter_parts())
    assert text == (
        f"Freigabe nötig: Zürich\n\n{message.body}\n\nEnvironment: production\nRequested by: ci@acme.example\n\n"
        f"{message.actions[0].label}:\n{message.actions[0].url}\n"
    )
    assert html.strip() == HTML
    assert receipt == Receipt(detail="queued as 42")


async def test_a_message_without_html_is_one_plain_part() -> None:
    async with mailroom() as room:
        await send(plain_config(room))
    assert parsed(room).get_content_type() == "text/plain"


LETTERHEAD = Letterhead(mailbox(FROM), "release-mail")


def made(**changes: Any) -> EmailMessage:
    mail = compose(sample_message(**changes), LETTERHEAD, mailbox(TO), NOW)
    parsed = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def test_the_same_message_makes_the_same_bytes() -> None:
    message = sample_message(html=HTML)
    first, again = (compose(message, LETTERHEAD, mailbox(TO), now).content for now in (NOW, NOW + 10**9))
    assert first == again


def test_all_mails_about_one_approval_refer_to_one_thread() -> None:
    event = sample_message().event
    requested, expired = made(id="1" * 64), made(id="2" * 64, event={**event, "action": "expired"})
    other = made(event={**event, "approvalId": "another"})
    assert requested["Message-ID"] != expired["Message-ID"]
    assert requested["References"] == requested["In-Reply-To"] == expired["References"]
    assert other["References"] != requested["References"]


def test_all_mails_about_one_approval_have_one_subject() -> None:
    event = {**sample_message().event, "packId": "oci/payments@v3", "message": {"title": "Deploy v3"}}
    titles = ("Approval needed: Deploy v3", "Approved: Deploy v3", "Freigegeben: Deploy v3")
    assert {made(title=title, event=event)["Subject"] for title in titles} == {"Deploy v3 [run-0042]"}
    assert made(event=event | {"message": None})["Subject"] == "oci/payments@v3 [run-0042]"
    assert made(event=event | {"message": {"title": "x" * 300}})["Subject"].endswith("x… [run-0042]")
    assert made(title="Three messages", event={"kind": "digest"})["Subject"] == "Three messages"


def test_a_mail_about_no_approval_starts_no_thread_and_is_dated_by_the_clock() -> None:
    mail = made(event={})
    assert mail["References"] is None
    assert mail["Date"].datetime == datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)


def test_ids_of_a_long_domain_are_not_folded_into_another_id() -> None:
    domain = "mail." + "x" * 60 + ".acme.example"
    letterhead = Letterhead(mailbox("a@" + domain), "mail")
    mail = compose(sample_message(), letterhead, mailbox(TO), NOW).content.decode()
    for name in ("Message-ID", "References", "In-Reply-To"):
        (line,) = [line for line in mail.split("\r\n") if line.startswith(name + ":")]
        assert line.endswith(f"@{domain}>")


HOSTILE = [
    "Bcc: eve@evil.example\r\nX-Evil: 1",
    "line\r\n.\r\nMAIL FROM:<eve@evil.example>",
    "nul \x00 bell \x07 end",
    "=?utf-8?q?encoded?= word",
    "rtl \u202egnp.exe\u202c mark",
    "lone \ud800 surrogate",
    "emoji 👩‍👩‍👧 and ünïcode " + "ß" * 300,
    "x" * 5000,
    "--=_boundary\r\nContent-Type: text/html\r\n\r\n<script>",
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_changes_no_header_and_adds_no_part_or_recipient(text: str) -> None:
    async with mailroom() as room:
        await send(plain_config(room), title=text, body=text, html=f"<p>{text}</p>", locale=text)
    (envelope,) = room.mails
    mail = parsed(room)
    assert envelope.rcpt_tos == [TO]
    assert "X-Evil" not in mail
    assert "Bcc" not in mail
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert mail["Subject"] == "[run-0042]"
    assert text[:4] in next(mail.iter_parts()).get_content()


@pytest.mark.parametrize(
    "recipient", ["", "alice", "a@", "a@b, c@d", "a@b\r\nRCPT TO:<c@d>", "a b@c", "all: a@b;"]
)
async def test_a_recipient_that_is_not_one_address_is_permanent(recipient: str) -> None:
    async with mailroom() as room:
        with pytest.raises(PermanentError) as caught:
            await send(plain_config(room), recipient=recipient)
    assert caught.value.reason is Reason.REJECTED
    assert not room.mails


async def test_a_message_to_nobody_is_permanent() -> None:
    async with mailroom() as room:
        with pytest.raises(PermanentError, match="needs a recipient"):
            await send(plain_config(room), recipient=None)


async def test_an_address_that_is_not_ascii_travels_by_smtputf8_and_its_domain_in_ascii() -> None:
    async with mailroom() as room:
        await send(plain_config(room), recipient="Jörg <jörg@exämple.ch>")
    assert room.mails[0].rcpt_tos == ["jörg@xn--exmple-cua.ch"]
    assert room.mails[0].smtp_utf8
    assert "To: =?utf-8?b?SsO2cmc=?= <jörg@xn--exmple-cua.ch>\r\n".encode() in content(room)


async def test_a_server_without_smtputf8_gets_no_such_address_and_the_refusal_says_why() -> None:
    async with mailroom(utf8=False) as room:
        with pytest.raises(PermanentError, match="SMTPUTF8") as caught:
            await send(plain_config(room), recipient="jörg@acme.example")
        await send(plain_config(room), recipient="Jörg <joerg@exämple.ch>")
    assert caught.value.reason is Reason.UNSUPPORTED
    assert [mail.rcpt_tos for mail in room.mails] == [["joerg@xn--exmple-cua.ch"]]


async def test_a_reply_goes_where_the_configuration_says() -> None:
    async with mailroom() as room:
        await send(plain_config(room, reply_to="Ops, 24/7: Team <ops@faß.example>"))
    assert b'Reply-To: "Ops, 24/7: Team" <ops@xn--fa-hia.example>\r\n' in content(room)


LOGIN = {"username": "notifyd", "password": Secret(PASSWORD)}


async def test_it_logs_in_over_starttls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    context = server_certificate(monkeypatch, tmp_path)
    async with mailroom(tls_context=context, require_starttls=True, auth_required=True) as room:
        await send(plain_config(room, tls="starttls", **LOGIN))
    assert room.logins == [(b"notifyd", PASSWORD.encode())]
    assert len(room.mails) == 1


async def test_it_speaks_tls_from_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with mailroom(server_certificate(monkeypatch, tmp_path), auth_require_tls=False) as room:
        await send(plain_config(room, tls="tls", **LOGIN))
    assert room.logins == [(b"notifyd", PASSWORD.encode())]


async def test_a_wrong_password_is_permanent_and_is_not_shown() -> None:
    async with mailroom(auth_require_tls=False) as room:
        with pytest.raises(PermanentError) as caught:
            await send(plain_config(room, username="notifyd", password=Secret("wrong-password")))
    assert caught.value.reason is Reason.UNAUTHORIZED
    assert "wrong-password" not in f"{caught.value} {caught.value.excerpt}"
    assert not room.mails


async def test_a_server_without_starttls_gets_neither_password_nor_mail() -> None:
    async with mailroom(auth_require_tls=False) as room:
        with pytest.raises(TransientError, match="STARTTLS"):
            await send(plain_config(room, tls="starttls", **LOGIN))
    assert (room.logins, room.mails) == ([], [])


@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_an_authority_of_ones_own_is_trusted_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls: str
) -> None:
    context = server_certificate(monkeypatch, tmp_path)
    monkeypatch.delenv("SSL_CERT_FILE")
    own = CaFile.read(tmp_path / "trusted.pem")
    async with mailroom(context if tls == "tls" else None, tls_context=context) as room:
        await send(plain_config(room, tls=tls, tls_ca=own))
    assert len(room.mails) == 1


@pytest.mark.parametrize("tls", ["starttls", "tls"])
async def test_an_untrusted_certificate_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls: str
) -> None:
    context = server_certificate(monkeypatch, tmp_path)
    monkeypatch.delenv("SSL_CERT_FILE")
    async with mailroom(context if tls == "tls" else None, tls_context=context) as room:
        with pytest.raises(TransientError) as caught:
            await send(plain_config(room, tls=tls, **LOGIN))
    assert caught.value.reason is Reason.NETWORK
    assert (room.logins, room.mails) == ([], [])


async def test_a_server_that_speaks_no_smtp_is_told_as_that() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TransientError, match="no mail server") as caught:
            await send(EmailConfig(host="127.0.0.1", port=port, from_=FROM, tls="none"), recipient=TO)
    assert "HTTP/1.1 400" in caught.value.excerpt


async def test_a_server_that_is_not_there_is_transient() -> None:
    async with mailroom() as room:
        config = plain_config(room)
    with pytest.raises(TransientError) as caught:
        await send(config)
    assert caught.value.reason is Reason.NETWORK


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"host": ""}, "host name"),
        ({"host": "smtp.acme.example/x"}, "host name"),
        ({"from_": "nobody"}, "e-mail address"),
        ({"from_": "a@b\r\nBcc: c@d"}, "e-mail address"),
        ({"port": 0}, "port"),
        ({"tls": "ssl"}, "tls"),
        ({"username": "notifyd"}, "go together"),
        ({"tls": "none", **LOGIN}, "in clear"),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_its_reason(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        EmailConfig(**{"host": "smtp.acme.example", "from_": FROM} | options)


@pytest.mark.parametrize(("tls", "port"), [("starttls", 587), ("tls", 465), ("none", 25)])
def test_each_way_of_tls_has_its_port(tls: str, port: int) -> None:
    assert EmailConfig(host="localhost", from_=FROM, tls=tls).effective_port == port


def server_certificate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> ssl.SSLContext:
    """A server's context for 127.0.0.1, and the trust of this process in its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "trusted.pem", folder / "server.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    private.write_bytes(key_bytes + trusted.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(private)
    return context
