"""What an approver's browser keeps of a sign-in, sealed: that it has begun, who it was, and a comment.

notifyd keeps no sessions. Each value says what it is for and until when, and opens under a key of its own use.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, Final, TypeVar

import orjson
from attrs import astuple, frozen

from notifyd.errors import SealError
from notifyd.model import Instant
from notifyd.security.links import Link
from notifyd.security.secrets import Keyring


@frozen
class Begun:
    """A sign-in under way, for the page of the link `token`. `verifier` is PKCE's."""

    state: str
    nonce: str
    verifier: str
    token: str
    until: Instant


@frozen
class SignedIn:
    """Whom a provider has named, for one plan in one round of one approval. `name` is as the claim says it."""

    tenant: str
    run_id: str
    approval_id: str
    round: int
    plan_hash: str
    issuer: str
    name: str
    until: Instant

    def is_for(self, link: Link) -> bool:
        return all(getattr(self, fact) == getattr(link, fact) for fact in _BOUND)


_BOUND: Final = ("tenant", "run_id", "approval_id", "round", "plan_hash")


Kind = TypeVar("Kind", Begun, SignedIn)

_LABELS: Final[dict[type[Any], str]] = {Begun: "sign-in-begun", SignedIn: "sign-in"}
_DRAFT: Final = "comment-draft"


def seal(keyring: Keyring, record: Begun | SignedIn) -> str:
    return keyring.seal(_LABELS[type(record)], orjson.dumps(astuple(record)))


def open_sealed(keyring: Keyring, kind: type[Kind], text: str, now: Instant) -> Kind | None:
    """The record in `text`; None where it was not sealed here as a `kind`, or is over."""
    try:
        record = kind(*orjson.loads(keyring.open(_LABELS[kind], text)))
    except (SealError, TypeError, orjson.JSONDecodeError):
        return None
    return record if now < record.until else None


def seal_draft(keyring: Keyring, token: str, comment: str) -> str:
    """A comment for the page of the link `token`, packed: 2,000 characters come to less than 7,300."""
    return keyring.seal(_DRAFT, zlib.compress(orjson.dumps([_of(token), comment]), 9))


def open_draft(keyring: Keyring, token: str, text: str) -> str:
    """The comment; "" where there is none for this link."""
    try:
        of, comment = orjson.loads(zlib.decompress(keyring.open(_DRAFT, text)))
    except (SealError, zlib.error, ValueError, TypeError):
        return ""
    return comment if of == _of(token) and isinstance(comment, str) else ""


def _of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:32]
