"""How a message is kept with its delivery."""

from __future__ import annotations

import orjson
import pytest
from attrs import evolve

from notifyd.errors import SealError
from notifyd.model import Action, Button, Field, Level, Message
from notifyd.security.envelope import unwrap, wrap
from notifyd.security.secrets import Keyring

KEYRING = Keyring([b"k" * 32])
MESSAGE = Message(
    id="d1",
    title="Approve 🚀",
    body="line\nline",
    level=Level.WARNING,
    fields=(Field("Environment", "production"), Field("Empty", "", lead=True)),
    actions=(Action("Review", "https://notify.acme.example/approvals/x"),),
    locale="de-CH",
    html="<html lang='de'></html>",
    recipient="alice@acme.example",
    event={"kind": "pack.approval", "parameters": {"share": 0.5, "big": 2**53, "none": None}},
)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("message", [MESSAGE, Message(id="d2", title="", body="")])
def test_a_message_comes_out_as_it_was_put_in(message: Message, sealed: bool) -> None:
    assert unwrap(wrap(message, KEYRING, sealed=sealed), KEYRING, sealed=sealed) == message


def test_a_message_with_buttons_keeps_them_and_one_without_is_as_an_older_notifyd_reads_it() -> None:
    pressed = evolve(MESSAGE, buttons=(Button("Approve", "approved", "0" * 32),))
    assert unwrap(wrap(pressed, KEYRING, sealed=True), KEYRING, sealed=True) == pressed
    assert "buttons" not in orjson.loads(wrap(MESSAGE, KEYRING, sealed=False))


def test_a_sealed_message_shows_nothing_and_a_plain_one_is_json() -> None:
    sealed = wrap(MESSAGE, KEYRING, sealed=True)
    assert "notify.acme.example" not in sealed
    assert sealed.count(".") == 4
    assert orjson.loads(wrap(MESSAGE, KEYRING, sealed=False))["title"] == MESSAGE.title


def test_without_its_key_a_sealed_message_is_gone() -> None:
    with pytest.raises(SealError, match="no longer configured"):
        unwrap(wrap(MESSAGE, KEYRING, sealed=True), Keyring([b"n" * 32]), sealed=True)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "no JSON", '{"level":"loud","fields":[],"actions":[]}', '{"id":"d1","new":1}'],
)
def test_what_another_version_stored_does_not_open(text: str) -> None:
    with pytest.raises(SealError, match="another version"):
        unwrap(text, KEYRING, sealed=False)
