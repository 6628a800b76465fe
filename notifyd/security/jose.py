"""What joserfc does: it opens a JWE (RFC 7516), reads a public key (RFC 7517) and verifies a JWS (RFC 7515).

Imported where one of these is first asked for: it brings 75 modules, 2 MB of them, and many a start opens nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeAlias

from joserfc import jwe, jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

PublicKey: TypeAlias = RSAKey | ECKey | OKPKey


def _of_any_size() -> jwe.JWERegistry:
    """What is opened: of any size, for all that comes from outside is bounded where it comes in.

    By itself the library opens nothing above 64 KiB, which a message about a large event is when it is read back.
    """
    registry = jwe.JWERegistry(algorithms=["dir", "A256GCM"])
    registry.max_ciphertext_length = sys.maxsize
    return registry


class _Only(jws.JWSRegistry):
    """One algorithm and no other. joserfc's own choice warns of EdDSA, whose name RFC 9864 gives up."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(strict_check_header=False)  # unknown parameters mean nothing (RFC 7515, section 4)
        self._algorithm = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._algorithm:
            raise ValueError("the token names another algorithm")
        return self.algorithms[name]


_OPENED: Final = _of_any_size()
_KINDS: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_only = cache(_Only)


def decrypt(key: bytes, token: str) -> bytes:
    """The plaintext of a compact JWE, `dir` with `A256GCM`. Raises ValueError."""
    try:
        opened = jwe.decrypt_compact(token, OctKey.import_key(key), registry=_OPENED)
    except JoseError as error:
        raise ValueError(str(error)) from error
    return opened.plaintext or b""


def public_key(members: Mapping[str, Any]) -> PublicKey:
    """A key of type RSA, EC or OKP. Raises ValueError, and whatever else an odd document brings about."""
    try:
        return _KINDS[members["kty"]].import_key(dict(members))
    except JoseError as error:
        raise ValueError(str(error)) from error


def verify(token: str, key: PublicKey, algorithm: str) -> bytes:
    """The payload of a compact JWS that `key` has signed by `algorithm`. Raises ValueError, TypeError."""
    try:
        payload = jws.deserialize_compact(token, key, registry=_only(algorithm)).payload
    except JoseError as error:
        raise ValueError(str(error)) from error
    if payload is None:
        raise ValueError("the token holds no payload")
    return payload
