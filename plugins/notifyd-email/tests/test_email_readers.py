"""What a mail says is what its readers get: two parsers that are not Python's own, and the rules of the RFCs."""

from __future__ import annotations

import base64
import quopri
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from notifyd_email.mail import Letterhead, compose

from notifyd.plugin import Field, Mailbox, Message, clean, one_line
from notifyd.testing import NOW, sample_message
from tests.mail_readers import Person, by_mailparse, by_postal_mime

ADDRESS = Mailbox("", "notifyd", "acme.example")

GERMAN = "Freigabe nötig für die Größenänderung der Übergabe-Datenbank in Zürich, Österreich: bitte prüfen"
FRENCH = "Approbation nécessaire : déploiement du cœur à l’été, où ça plaît — « très » fâcheux, n° 3"
JAPANESE = "本番環境への展開には承認が必要です。データベースのスキーマが変わります、ご確認ください"
EMOJI = ["👩‍👩‍👧", "🇨🇭", "👍🏽", "🚀", "❤️", "e\u0301", "한국어", "ประเทศ", "हिन्दी", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"]
SPECIAL = [
    '"',
    "\\",
    ",",
    ":",
    ";",
    "<",
    ">",
    "@",
    "(",
    ")",
    ".",
    "=?utf-8?q?x?=",
    "=?",
    "?=",
    "_",
    "=20",
    "%",
    "'",
]

words = st.one_of(
    *(st.sampled_from(text.split()) for text in (GERMAN, FRENCH)),
    st.text(JAPANESE, min_size=1, max_size=12),
    st.sampled_from([*EMOJI, *SPECIAL]),
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20),
    st.text("aZ0-/+!*", min_size=1, max_size=90),
)
texts = (
    st.tuples(st.lists(words, min_size=1, max_size=40), st.sampled_from(["", " "]))
    .map(lambda made: one_line(made[1].join(made[0]))[:300].strip())
    .filter(bool)
)
addresses = st.builds(
    Mailbox,
    texts | st.just(""),
    st.sampled_from(["alice", "a.b+c", "o'neil", "x" * 64]),
    st.sampled_from(["acme.example", "xn--fa-hia.example", ".".join(["y" * 60] * 4)]),
)


READERS = pytest.mark.parametrize("read", [by_postal_mime, by_mailparse])


def mail(message: Message, sender: Mailbox, recipient: Mailbox, reply_to: Mailbox | None = None) -> bytes:
    return compose(message, Letterhead(sender, "release-mail", reply_to), recipient, NOW).content


def person(mailbox: Mailbox) -> Person:
    return mailbox.name, mailbox.address


@READERS
@settings(max_examples=60, deadline=None)
@given(texts, addresses, addresses, st.none() | addresses)
@example(GERMAN, ADDRESS, ADDRESS, None)
@example(FRENCH, Mailbox("a@evil.example, b", "x", "y.example"), Mailbox('"', "x", "y.example"), ADDRESS)
@example(JAPANESE * 6, Mailbox(JAPANESE * 3, "x", "y.example"), Mailbox("x" * 300, "x", "y.example"), None)
@example("x" * 300, Mailbox("\\", "x", "y.example"), Mailbox("=?utf-8?q?x?=", "x", "y.example"), None)
@example(
    "".join(EMOJI) * 5,
    Mailbox("e" + "\u0301" * 80, "x", "y.example"),
    Mailbox("a  b", "x", "y.example"),
    None,
)
def test_two_readers_get_what_was_put_in(
    read: Any, title: str, sender: Mailbox, recipient: Mailbox, reply_to: Mailbox | None
) -> None:
    message = sample_message(title=title, event={}, body=title, html=f"<p>{title}</p>", fields=(), actions=())
    said = title if len(title.encode("utf-16-le")) // 2 <= 250 else None
    content = mail(message, sender, recipient, reply_to)
    senders, recipients, replies, subject, plain, html = read(content)
    assert senders == [person(sender)]
    assert recipients == [person(recipient)]
    assert replies == ([person(reply_to)] if reply_to else [])
    assert subject == said if said else title.startswith(subject.removesuffix("…"))
    assert plain.replace("\r\n", "\n").strip("\n").endswith(title)
    assert html.replace("\r\n", "\n").strip("\n") == f"<p>{title}</p>"
    keeps_the_rules(content)


ENCODED = re.compile(r"=\?utf-8\?([bq])\?([^? ]*)\?=")


def keeps_the_rules(content: bytes) -> None:
    """RFC 5322, 2.1.1, and RFC 2047, 2 and 5: lines, encoded words, and nothing in the pieces of RFC 2231."""
    head = content.split(b"\r\n\r\n")[0].decode("ascii")
    assert "\n" not in head.replace("\r\n", "")
    for line in head.split("\r\n"):
        assert line.strip(), "a line of nothing but spaces"
        alone = len(line.split()) <= 2  # a name and one word: an address or an id may be longer
        assert len(line) <= (998 if alone and "=?" not in line else 76)
    for token in head.split():
        if "=?" in token:  # with a space on each side, or the end of a line
            encoding, text = ENCODED.fullmatch(token).groups()  # type: ignore[union-attr] # fails where it is none
            assert len(token) <= 75
            octets = base64.b64decode(text) if encoding == "b" else quopri.decodestring(text, header=True)
            octets.decode()  # whole characters
    parameters = head[head.index("MIME-Version") :]
    assert "*" not in parameters  # RFC 2231


@READERS
@settings(max_examples=30, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x85\u2028\u2029"), max_size=300)
)
@example("line\n.\nFrom me\n--=_x\n\ttab \n " + "ü" * 200)
@example("=" * 100 + "\n" + " " * 100 + "x")
def test_two_readers_get_the_text_as_it_was_cleaned(read: Any, body: str) -> None:
    message = sample_message(body="begin\n" + body + "\nend", fields=(), actions=(), event={}, title="T")
    *_, plain, _ = read(mail(message, ADDRESS, ADDRESS))
    assert plain.replace("\r\n", "\n").strip("\n") == clean(f"begin\n{body}\nend")


@READERS
@pytest.mark.parametrize(
    "name",
    ["Müller, Köln <eve@evil.example>", "eve@evil.example, x", 'a" <eve@evil.example>, "b', "x; y: z,"],
)
def test_a_name_is_one_sender_whatever_it_holds(read: Any, name: str) -> None:
    senders, recipients, *_ = read(mail(sample_message(), Mailbox(name, "a", "b.example"), ADDRESS))
    assert senders == [(name, "a@b.example")]
    assert recipients == [("", ADDRESS.address)]


@READERS
def test_a_deadline_stands_above_the_text(read: Any) -> None:
    facts = (Field("Environment", "production"), Field("Decide by", "5 November 2026, 10:30 CET", lead=True))
    *_, plain, _ = read(mail(sample_message(fields=facts), ADDRESS, ADDRESS))
    assert (
        plain.index("Approval needed") < plain.index("Decide by: 5 November") < plain.index("asks to deploy")
    )
    assert plain.index("asks to deploy") < plain.index("Environment: production")
