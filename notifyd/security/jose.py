"""What joserfc does: it reads a public key (RFC 7517) and verifies a JWS (RFC 7515).

Imported where a key is first read: it brings 75 modules, 2 MB of them, and a service that takes no JWT needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeAlias

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

PublicKey: TypeAlias = RSAKey | ECKey | OKPKey


class _Only(jws.JWSRegistry):
    """One algorithm and no other. joserfc's own choice warns of EdDSA, whose name RFC 9864 gives up."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(strict_check_header=False)  # unknown parameters mean nothing (RFC 7515, section 4)
        self._algorithm = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._algorithm:
            raise ValueError("the token names another algorithm")
        return self.algorithms[name]


_KINDS: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_only = cache(_Only)


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
