"""What a person's browser keeps of a sign-in, sealed: that it has begun, who it was, and what was typed.

Each value says what it is for and until when, and opens under a key of its own use.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import orjson
from attrs import astuple, frozen

from notifyd.errors import SealError
from notifyd.model import Instant
from notifyd.security.links import Link, MineLink
from notifyd.security.secrets import Keyring


@frozen
class Begun:
    """A sign-in under way, for the page at `path`: below `/approvals/`, or one of the console's.

    `verifier` is PKCE's.
    """

    state: str
    nonce: str
    verifier: str
    path: str
    until: Instant


@frozen
class SignedIn:
    """Whom a provider has named. `name` is as the claim says it, and `about` what it was `signed_in_for`."""

    about: str
    name: str
    until: Instant


def signed_in_for(link: Link | MineLink, issuer: str) -> str:
    """The subject of a link, and the provider, in 64 digits: ids may be long, cookies not."""
    return hashlib.sha256(orjson.dumps([*link.subject, issuer])).hexdigest()


@frozen
class Session:
    """Who is signed in to the console, and whose data they look at.

    `proof` is what has to hold still for it to go on: of a client's API token the SHA-256, in hex, and of a person
    the provider that named them. `way` says which.
    """

    id: str
    way: str
    name: str
    proof: str
    tenant: str
    until: Instant


@frozen
class Draft:
    """What was typed on a link's page before it could be sent.

    `inputs` are the fields by the names of their inputs, None where there were none.
    """

    comment: str = ""
    break_glass: bool = False
    inputs: Mapping[str, str] | None = None


Kind = TypeVar("Kind", Begun, SignedIn, Session)

_LABELS: Final[dict[type[Any], str]] = {
    Begun: "sign-in-begun",
    SignedIn: "sign-in",
    Session: "console",
}
_DRAFT: Final = "draft"


def seal(keyring: Keyring, record: Begun | SignedIn | Session) -> str:
    return keyring.seal(_LABELS[type(record)], orjson.dumps(astuple(record)))


def open_sealed(keyring: Keyring, kind: type[Kind], text: str, now: Instant) -> Kind | None:
    """The record in `text`; None where it was not sealed here as a `kind`, or is over."""
    try:
        record = kind(*orjson.loads(keyring.open(_LABELS[kind], text)))
    except (SealError, TypeError, orjson.JSONDecodeError):
        return None
    return record if now < record.until else None


def seal_draft(keyring: Keyring, path: str, draft: Draft) -> str:
    """A draft for the page at `path`, packed: a comment of 2,000 characters comes to less than 7,300."""
    return keyring.seal(_DRAFT, zlib.compress(orjson.dumps([_of(path), *astuple(draft)]), 9))


def open_draft(keyring: Keyring, path: str, text: str) -> Draft:
    """The draft; an empty one where there is none for this link."""
    try:
        of, *kept = orjson.loads(zlib.decompress(keyring.open(_DRAFT, text)))
    except (SealError, zlib.error, ValueError):
        return Draft()
    return Draft(*kept) if of == _of(path) else Draft()


def _of(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:32]
