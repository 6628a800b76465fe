"""What a server's answers mean for a retry, and what they are called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

import pytest
from notifyd_email import EmailConfig, notifyd_channel_types
from notifyd_email.answers import About, read

from notifyd.plugin import PermanentError, Reason, TransientError
from notifyd.testing import opened, sample_message

(EMAIL,) = notifyd_channel_types()

PERMANENT: Final[Mapping[str, str]] = {
    "not_found": "1.0 1.1 1.2 1.3 1.4 1.6 1.10 2.1 7.17 7.18",
    "too_large": "2.3 3.4 7.16",
    "unauthorized": "7.8 7.9 7.11 7.12 7.13 7.14",
    "unsupported": "3.3 6.7 6.8 6.9 6.10 7.3 7.4 7.6 7.30",
    "policy": "7.0 7.1 7.2 7.5 7.7 7.10 7.15 7.19 7.20 7.21 7.22 7.23 7.24 7.25 7.26 7.27 7.28 7.29",
    "rejected": "0.0 1.5 1.7 1.8 1.9 2.0 2.4 3.0 3.2 3.5 3.6 4.0 4.4 4.6 5.0 5.1 5.2 5.3 5.4 5.5 5.6 "
    "6.0 6.1 6.2 6.3 6.4 6.5 6.6",
    "mailbox_full": "2.2",
    "server_error": "3.1 4.1 4.2 4.3 4.7",
    "throttled": "4.5",
}
"""All of IANA's registry, as 5.X.Y in a 550: the last three rows are transient even so."""

REGISTRY: Final = [(detail, Reason(name)) for name, row in PERMANENT.items() for detail in row.split()]


@pytest.mark.parametrize(("detail", "reason"), REGISTRY)
def test_each_registered_code_says_what_it_is(detail: str, reason: Reason) -> None:
    answer = read(550, f"5.{detail} said the server")
    assert answer.reason is reason
    assert answer.transient == (reason.value in ("mailbox_full", "server_error", "throttled"))
    assert answer.said.startswith(f"550 5.{detail}")
    assert (" (" in answer.said) == (detail != "0.0")  # the words of the registry follow


@pytest.mark.parametrize("detail", [detail for detail, _ in REGISTRY])
def test_a_reply_of_class_4_is_transient_whatever_its_detail(detail: str) -> None:
    for enhanced in (f"4.{detail}", f"5.{detail}"):
        answer = read(451, f"{enhanced} later")
        assert answer.transient
        assert answer.reason in (Reason.SERVER_ERROR, Reason.THROTTLED, Reason.MAILBOX_FULL)
        if detail.startswith("7."):
            assert answer.reason is Reason.THROTTLED


CASES = [
    (552, "5.2.2 Mailbox full", True, Reason.MAILBOX_FULL),
    (452, "4.2.2 Over quota", True, Reason.MAILBOX_FULL),
    (552, "5.3.4 Message too big", False, Reason.TOO_LARGE),
    (552, "5.7.0 This message was blocked because its content presents a risk", False, Reason.POLICY),
    (552, "too big", False, Reason.TOO_LARGE),
    (552, "5.5.3 too many", False, Reason.REJECTED),
    (452, "4.5.3 too many recipients", True, Reason.THROTTLED),
    (450, "greylisted", True, Reason.SERVER_ERROR),
    (451, "4.7.1 Greylisting in action", True, Reason.THROTTLED),
    (421, "4.7.28 Gmail has detected an unusual rate", True, Reason.THROTTLED),
    (454, "4.7.0 Temporary authentication failure", True, Reason.SERVER_ERROR),
    (530, "5.7.0 Must issue a STARTTLS command first", False, Reason.UNAUTHORIZED),
    (530, "log in first", False, Reason.UNAUTHORIZED),
    (535, "5.7.8 credentials invalid", False, Reason.UNAUTHORIZED),
    (550, "no such user", False, Reason.REJECTED),
    (550, "#5.1.0 Address rejected", False, Reason.NOT_FOUND),
    (550, "5.7.606 Access denied, banned sending IP", False, Reason.POLICY),
    (550, "5.1.1: <alice@acme.example> unknown", False, Reason.NOT_FOUND),
    (550, "05.001.01 unknown", False, Reason.REJECTED),
    (550, "5.001.01 unknown", False, Reason.NOT_FOUND),
    (550, "192.5.7.1 is listed", False, Reason.REJECTED),
    (550, "5.7.1.2 is listed", False, Reason.REJECTED),
    (550, "Requested action not taken\n5.7.1 refused\n5.1.1 unknown", False, Reason.POLICY),
    (556, "domain does not accept mail", False, Reason.NOT_FOUND),
]


@pytest.mark.parametrize(("code", "text", "transient", "reason"), CASES)
def test_reply_and_enhanced_code_are_read_together(
    code: int, text: str, transient: bool, reason: Reason
) -> None:
    answer = read(code, text)
    assert (answer.transient, answer.reason) == (transient, reason)
    assert answer.said.startswith(str(code))


def test_what_a_code_is_about_follows_from_the_command_it_answers() -> None:
    assert read(552, "quota", About.RECIPIENT).reason is Reason.MAILBOX_FULL
    assert read(552, "quota", About.SENDER).reason is Reason.TOO_LARGE
    assert read(550, "5.1.1 who is that", About.SENDER).reason is Reason.REJECTED
    assert read(550, "5.7.23 SPF", About.SENDER).reason is Reason.POLICY


@asynccontextmanager
async def scripted(**answers: str) -> AsyncIterator[int]:
    """A server on a port that answers each command as told; `end` is the answer to the end of the data."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.get("greeting", "220 here\r\n").encode())
        while line := (await reader.readline()).decode():
            verb = line[:4].strip().lower()
            usual = {"data": "354 go on\r\n", "quit": "221 bye\r\n"}.get(verb, "250 fine\r\n")
            writer.write(answers.get(verb, usual).encode())
            if verb == "data" and "data" not in answers:
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(answers.get("end", "250 2.0.0 queued\r\n").encode())
            if verb == "quit":
                break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversations.create_task(converse(reader, writer))

    async with asyncio.TaskGroup() as conversations:
        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]


MANY_LINES = "{0}-5.7.1 Refused: see\r\n{0}-5.7.1 https://mx.example/why\r\n{0} 5.7.1 and write to us\r\n"

STEPS = [
    ("greeting", MANY_LINES.format(554), PermanentError, Reason.POLICY, 554),
    ("greeting", "421 4.3.2 Going down\r\n", TransientError, Reason.THROTTLED, 421),
    ("mail", "553 5.1.8 No such domain\r\n", PermanentError, Reason.REJECTED, 553),
    ("mail", "452 4.3.1 Insufficient storage\r\n", TransientError, Reason.SERVER_ERROR, 452),
    ("rcpt", "552 5.2.2 Mailbox full\r\n", TransientError, Reason.MAILBOX_FULL, 552),
    ("rcpt", "552 Mailbox full\r\n", TransientError, Reason.MAILBOX_FULL, 552),
    ("rcpt", "550-5.1.1 No such\r\n550 5.1.1 user\r\n", PermanentError, Reason.NOT_FOUND, 550),
    ("rcpt", "450 4.7.1 Greylisted\r\n", TransientError, Reason.THROTTLED, 450),
    ("data", "554 5.5.1 No valid recipients\r\n", PermanentError, Reason.REJECTED, 554),
    ("end", "552 5.2.3 Too long\r\n", PermanentError, Reason.TOO_LARGE, 552),
    ("end", "552 5.2.2 Over quota\r\n", TransientError, Reason.MAILBOX_FULL, 552),
    ("end", MANY_LINES.format(550), PermanentError, Reason.POLICY, 550),
    ("end", "451 4.7.1 Later\r\n", TransientError, Reason.THROTTLED, 451),
]


@pytest.mark.parametrize(("step", "answer", "kind", "reason", "status"), STEPS)
async def test_each_step_is_judged_by_what_the_server_said(
    step: str, answer: str, kind: type[Exception], reason: Reason, status: int
) -> None:
    async with scripted(**{step: answer}) as port:
        config = EmailConfig(host="127.0.0.1", port=port, from_="notifyd@acme.example", tls="none")
        async with opened(EMAIL, config) as channel:
            with pytest.raises(kind) as caught:
                await channel.send(sample_message(recipient="alice@acme.example"))
    error = caught.value
    assert isinstance(error, TransientError | PermanentError)
    assert (error.reason, error.status) == (reason, status)
    lines = [line[4:] for line in answer.strip().split("\r\n")]
    assert error.excerpt == "\n".join(lines)
