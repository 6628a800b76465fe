"""One address, in the many ways in which it is written."""

from __future__ import annotations

import pytest

from notifyd.mailbox import Mailbox, mailbox


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice@acme.example", Mailbox("", "alice", "acme.example")),
        ("<alice@acme.example>", Mailbox("", "alice", "acme.example")),
        ("ACME Inc. <a@b.example>", Mailbox("ACME Inc.", "a", "b.example")),
        ("Müller, Jörg: Ops <a@b.example>", Mailbox("Müller, Jörg: Ops", "a", "b.example")),
        (r'"a \"b\" \\ <c@d>" <a@b.example>', Mailbox(r'a "b" \ <c@d>', "a", "b.example")),
        ("a@Faß.Example", Mailbox("", "a", "xn--fa-hia.example")),
        ("a@βόλος.example", Mailbox("", "a", "xn--nxasmm1c.example")),
        ("jo\u0308rg@b.example", Mailbox("", "jörg", "b.example")),
        ('"a b"@c.example', Mailbox("", '"a b"', "c.example")),
        ('"a<b"@c.example', Mailbox("", '"a<b"', "c.example")),
        ('"a"@c.example', Mailbox("", "a", "c.example")),
        (r'"a\.b"@c.example', Mailbox("", "a.b", "c.example")),
        ("a@c.example (the boss)", Mailbox("", "a", "c.example")),
        ("(the (very) boss) a(1)@(2)c.example(3)", Mailbox("", "a", "c.example")),
        (r"a@c.example (\()", Mailbox("", "a", "c.example")),
        ('"(a)"@c.example', Mailbox("", '"(a)"', "c.example")),
        ("Alice :( <a(1)@c.example> (2)", Mailbox("Alice :(", "a", "c.example")),
        ("a@[192.0.2.1]", Mailbox("", "a", "[192.0.2.1]")),
        ("a@[IPv6:2001:DB8::1]", Mailbox("", "a", "[IPv6:2001:db8::1]")),
    ],
)
def test_an_address_is_read_with_any_name(text: str, expected: Mailbox) -> None:
    assert mailbox(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a@b.example, Bob <c@d.example>", "<a@b> c", 'a" <b@c>', "a <b@c", "a@☃.example", "a@b..c", "a@b.example.",
        "a@::1", "a@[::1]", "a@[x]", ".a@b.c", "a.@b.c", "a@b@c", "@b", "x" * 65 + "@b.c",
        "a\u202e@b.c", "a\u00a0@b.c",
        "a@b.c (x", "a@b.c x)", "a (x) @b.c", "a@b.c\n", '"a"b@c', "a b@c", '"a@c', "a<b@c>d",
    ],
)  # fmt: skip
def test_what_is_not_one_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not one e-mail address"):
        mailbox(text)
