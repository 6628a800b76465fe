"""How a message is kept with its delivery: JSON text, sealed where it carries a link or a token."""

from __future__ import annotations

import orjson
from attrs import asdict

from notifyd.model import Action, Field, Level, Message
from notifyd.secrets import Keyring

_LABEL = "message"


def wrap(message: Message, keyring: Keyring, *, sealed: bool) -> str:
    """The text a delivery's row holds."""
    plain = orjson.dumps(asdict(message))
    return keyring.seal(_LABEL, plain) if sealed else plain.decode()


def unwrap(text: str, keyring: Keyring, *, sealed: bool) -> Message:
    """The message in a row's text. Raises `SealError` where its key is gone."""
    data = orjson.loads(keyring.open(_LABEL, text) if sealed else text)
    data["level"] = Level(data["level"])
    data["fields"] = tuple(Field(**one) for one in data["fields"])
    data["actions"] = tuple(Action(**one) for one in data["actions"])
    return Message(**data)
