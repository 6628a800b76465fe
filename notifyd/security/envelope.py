"""How a message is kept with its delivery: JSON text, sealed where it carries a link or a token."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, Final

import orjson
from attrs import asdict, fields

from notifyd.errors import SealError
from notifyd.model import Action, Button, Field, Level, Message
from notifyd.security.secrets import Keyring

_LABEL = "message"
_LINK: Final = re.compile(r"(?<=/approvals/)(?:mine/)?[\w-]+\.\.[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_NAMES: Final = tuple(one.name for one in fields(Message))
_VALUES: Final = attrgetter(*_NAMES)


def wrap(message: Message, keyring: Keyring, *, sealed: bool) -> str:
    """The text a delivery's row holds."""
    plain = orjson.dumps(_plain(message))
    return keyring.seal(_LABEL, plain) if sealed else plain.decode()


def _plain(message: Message) -> dict[str, Any]:
    """The record as a document, one level at a time: attrs' own walk would copy the whole event."""
    flat = dict(zip(_NAMES, _VALUES(message), strict=True))
    flat["fields"] = [
        {"name": one.name, "value": one.value, "lead": one.lead, "at": one.at} for one in message.fields
    ]
    flat["actions"] = [{"label": one.label, "url": one.url} for one in message.actions]
    # A notifyd that knows no buttons reads all other messages: two versions run while one is replaced. What a
    # message follows is looked up when it is sent.
    del flat["buttons"], flat["follows"]
    if message.buttons:
        flat["buttons"] = [asdict(one) for one in message.buttons]
    return flat


def wrap_anew(text: str, keyring: Keyring, renew: Callable[[str], str]) -> str:
    """A sealed text under the first key. `renew` is given each link in it, and answers what is to stand there.

    Raises `SealError` where its key is gone.
    """
    renewed = cache(renew)  # the link stands in text, HTML and button, and is one
    plain = keyring.open(_LABEL, text).decode()
    return keyring.seal(_LABEL, _LINK.sub(lambda found: renewed(found[0]), plain).encode())


def unwrap(text: str, keyring: Keyring, *, sealed: bool) -> Message:
    """The message in a row's text. Raises `SealError` where its key is gone, or it is none."""
    plain = keyring.open(_LABEL, text) if sealed else text
    try:
        data = orjson.loads(plain)
        data["level"] = Level(data["level"])
        data["fields"] = tuple(Field(**one) for one in data["fields"])
        data["actions"] = tuple(Action(**one) for one in data["actions"])
        data["buttons"] = tuple(Button(**one) for one in data.get("buttons", ()))
        return Message(**data)
    except (ValueError, TypeError, KeyError) as error:
        raise SealError("the message was stored by another version") from error
