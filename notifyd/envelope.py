"""How a message is kept with its delivery: JSON text, sealed where it carries a link or a token."""

from __future__ import annotations

from typing import Any

import orjson
from attrs import asdict

from notifyd.errors import SealError
from notifyd.model import Action, Field, Level, Message
from notifyd.secrets import Keyring

_LABEL = "message"


def wrap(message: Message, keyring: Keyring, *, sealed: bool) -> str:
    """The text a delivery's row holds."""
    plain = orjson.dumps(_plain(message))
    return keyring.seal(_LABEL, plain) if sealed else plain.decode()


def _plain(message: Message) -> dict[str, Any]:
    """The record as a document, one level at a time: attrs' own walk would copy the whole event."""
    flat = asdict(message, recurse=False)
    flat["fields"] = [asdict(one) for one in message.fields]
    flat["actions"] = [asdict(one) for one in message.actions]
    return flat


def unwrap(text: str, keyring: Keyring, *, sealed: bool) -> Message:
    """The message in a row's text. Raises `SealError` where its key is gone, or it is none."""
    plain = keyring.open(_LABEL, text) if sealed else text
    try:
        data = orjson.loads(plain)
        data["level"] = Level(data["level"])
        data["fields"] = tuple(Field(**one) for one in data["fields"])
        data["actions"] = tuple(Action(**one) for one in data["actions"])
        return Message(**data)
    except (ValueError, TypeError, KeyError) as error:
        raise SealError("the message was stored by another version") from error
