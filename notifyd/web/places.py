"""Cursors of work on several collections, bound to what they were given out for."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import orjson

from notifyd.security.secrets import Keyring
from notifyd.store import CollectionName, Place
from notifyd.web.problems import InvalidCursorError

WORK: Final = 1.0
"""Seconds that one request works for; the next one goes on."""


def seal_place(keyring: Keyring, label: str, place: Place | None) -> str | None:
    """`label` names the work. None at the end."""
    if place is None:
        return None
    content = orjson.dumps([place.collection.value, place.after])
    identity = keyring.identify(label, content)
    return base64.urlsafe_b64encode(orjson.dumps([content.decode(), identity])).decode()


def open_place(keyring: Keyring, label: str, cursor: str | None) -> Place | None:
    """None for the beginning. Raises `InvalidCursorError`."""
    if cursor is None:
        return None
    try:
        content, identity = orjson.loads(base64.urlsafe_b64decode(cursor))
        known = keyring.same(label, content.encode(), identity)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        known = False
    if not known:
        raise InvalidCursorError("a cursor goes on with the work it was given out for")
    collection, after = orjson.loads(content)
    return Place(CollectionName(collection), after)
