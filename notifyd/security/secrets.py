"""The `Secret` type, and sealing: what may not be read from a log, a message or the database."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from notifyd.errors import SealError
from notifyd.text import json_object

HIDDEN: Final = "***"


@final
class Secret:
    """A string that prints as `***`. `reveal()` is the only way to what it holds, and is easy to search for."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"Secret({HIDDEN!r})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled")


def derive_key(secret: bytes, label: str) -> bytes:
    """32 bytes by HKDF-SHA-256 (RFC 5869), without salt, `label` as info: one key for each use."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label.encode()).derive(secret)


@lru_cache(maxsize=256)
def keyed(key: bytes) -> HMAC:
    """An HMAC-SHA-256 that has read its key and nothing else: to copy one is quicker than to begin."""
    return HMAC(key, SHA256())


EVENT_CONTENT: Final = "event-content"
"""The use of `Keyring.identify` whose identities are stored, and so outlive their key."""

_IDENTITY_KEY: Final = "identity-key"

_HEADER: Final = {"alg": "dir", "enc": "A256GCM"}

_NONCE: Final = 12
_TAG: Final = 16
"""Bytes of a nonce and of a tag of A256GCM (RFC 7518, section 5.3)."""


def encrypt(key: bytes, plaintext: bytes, kid: str = "") -> str:
    """A compact JWE (RFC 7516), `dir` with `A256GCM`, under 32 bytes of key. `kid` goes into the header.

    Put together here, and taken apart in `decrypt`: each accepted request is sealed once, and each message with a
    link opened once, for which the library's general way takes five to ten times as long. It reads and writes the
    same, which a test compares.
    """
    head, cipher = _sealing(key, kid)
    nonce = os.urandom(_NONCE)
    sealed = cipher.encrypt(nonce, plaintext, head)
    # The second part, the encrypted key, is empty: "dir" uses the key itself.
    parts = (head, b"", _base64url(nonce), _base64url(sealed[:-_TAG]), _base64url(sealed[-_TAG:]))
    return b".".join(parts).decode()


@lru_cache(maxsize=64)
def _sealing(key: bytes, kid: str) -> tuple[bytes, AESGCM]:
    """The encoded header, which the cipher also authenticates, and the cipher."""
    header = _HEADER | ({"kid": kid} if kid else {})
    return _base64url(json.dumps(header, separators=(",", ":")).encode()), AESGCM(key)


def _base64url(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=")


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def _decoded(part: str) -> bytes:
    """Raises ValueError, also for another spelling of the same bytes: a token that was changed is none."""
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if _base64url(decoded) != part.encode():
        raise ValueError("is not base64 as it is written here")
    return decoded


def decrypt(key: bytes, token: str) -> bytes:
    """The plaintext of a compact JWE made by `encrypt`. Raises `SealError`."""
    try:
        head, empty, *parts = token.split(".")
        nonce, sealed, tag = map(_decoded, parts)
        if empty or (len(nonce), len(tag)) != (_NONCE, _TAG):
            raise ValueError("is not put together as it is here")
        return AESGCM(key).decrypt(nonce, sealed + tag, head.encode())
    except (ValueError, InvalidTag) as error:
        raise SealError("the sealed value does not open under this key") from error


class Keyring:
    """`keys.seal`: the first key seals, all of them open. Each use has a label and so a key of its own.

    Of a key that was dropped, the one for `EVENT_CONTENT` may be left: an identity is not made anew under another
    key, since what it was made from is not kept.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("a keyring needs at least one key")
        self._keys = {key_id(key): key for key in keys}
        self.sealing_id = key_id(keys[0])
        self._identity_keys: dict[str, bytes] = {}
        self._derive = lru_cache(maxsize=64)(self._derived)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys that open, the sealing one first. An id says nothing about its key."""
        return tuple(self._keys)

    def _derived(self, kid: str, label: str) -> bytes:
        return derive_key(self._keys[kid], label)

    def seal(self, label: str, plaintext: bytes) -> str:
        """A compact JWE of `plaintext`, its `kid` the sealing key's id."""
        return encrypt(self._derive(self.sealing_id, label), plaintext, self.sealing_id)

    def open(self, label: str, token: str) -> bytes:
        """The plaintext. Raises `SealError` where the key was dropped, the label differs or a bit was changed."""
        header = _header(token)
        kid = header.get("kid")
        if not isinstance(kid, str) or header != {**_HEADER, "kid": kid}:
            raise SealError("this is no value that was sealed here")
        if kid not in self._keys:
            raise SealError("sealed under a key that is no longer configured")
        return decrypt(self._derive(kid, label), token)

    def identify(self, label: str, content: bytes, kid: str = "") -> str:
        """`<key id>:<hex HMAC-SHA-256>`: tells equal contents without keeping them.

        `kid` names the key of an earlier identity to compare with. Raises `SealError` where it was dropped.
        """
        kid = kid or self.sealing_id
        if kid in self._keys:
            key = self._derive(kid, label)
        elif label == EVENT_CONTENT and kid in self._identity_keys:
            key = self._identity_keys[kid]
        else:
            raise SealError("identified under a key that is no longer configured")
        code = keyed(key).copy()
        code.update(content)
        return f"{kid}:{code.finalize().hex()}"

    def same(self, label: str, content: bytes, identity: str) -> bool:
        """Is `content` what `identity` was made from?"""
        kid, _, _ = identity.partition(":")
        try:
            expected = self.identify(label, content, kid)
        except SealError:
            return False
        return identity.isascii() and hmac.compare_digest(expected, identity)

    def comparable(self, identity: str) -> bool:
        """Is the key of a stored identity still here, so that `same` can tell?"""
        kid = identity.partition(":")[0]
        return kid in self._keys or kid in self._identity_keys

    def keep_identity_keys(self) -> dict[str, str]:
        """What identities need of each key but the first, sealed under the first, for when that key is dropped."""
        kept = self._identity_keys | {kid: self._derive(kid, EVENT_CONTENT) for kid in self._keys}
        return {kid: self.seal(_IDENTITY_KEY, key) for kid, key in kept.items() if kid != self.sealing_id}

    def take_over(self, before: Keyring) -> None:
        """Know again what `before` knew, a keyring of the same keys."""
        self._identity_keys = before._identity_keys

    def adopt_identity_keys(self, kept: Mapping[str, str]) -> None:
        """Compare with identities under these keys too, as far as what was kept of them opens."""
        for kid, text in kept.items():
            with suppress(SealError):
                self._identity_keys[kid] = self.open(_IDENTITY_KEY, text)


def key_id(key: bytes) -> str:
    """Eight hex digits that name a key without telling anything of it."""
    return hashlib.sha256(b"notifyd key id\0" + key).hexdigest()[:8]


def sealed_under(token: str) -> str:
    """The `kid` in the header of a compact JWE, or of its first part alone; "" where there is none to read."""
    kid = _header(token).get("kid")
    return kid if isinstance(kid, str) else ""


def _header(token: str) -> dict[str, Any]:
    head = token.partition(".")[0]
    try:
        return json_object(_decoded(head))
    except ValueError:
        return {}
