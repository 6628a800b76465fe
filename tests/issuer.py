"""An issuer of JWTs: its keys, the key set it publishes, and tokens of any shape."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

ISSUER: Final = "https://login.acme.example"
AUDIENCE: Final = "notifyd"


KEYS: Final[Mapping[str, Key]] = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}
"""By algorithm; PS256 shares that of RS256. Made once: a key of RSA takes a while."""


def key_for(algorithm: str) -> Key:
    return KEYS["RS256" if algorithm == "PS256" else algorithm]


def jwks(*keys: Key) -> str:
    """A key set, of all the issuer's keys by default."""
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys or KEYS.values()]})


def signed(header: Mapping[str, Any], claims: Any, key: Key | None) -> str:
    """A token as it is told, sensible or not; without a key, with an empty signature."""
    told = f"{part(header)}.{part(claims)}"
    if key is None:
        return f"{told}."
    algorithm = jws.JWSRegistry.algorithms[header["alg"]]
    return f"{told}.{_base64(algorithm.sign(told.encode(), key))}"


def part(document: Any) -> str:
    return _base64(document if isinstance(document, bytes) else json.dumps(document).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(now: float, algorithm: str = "ES256", **claims: Any) -> str:
    """A good token of the issuer, with `claims` besides or instead; None leaves one out."""
    key = key_for(algorithm)
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice@acme.example",
        "exp": int(now) + 300,
        "iat": int(now),
    }
    whole = {name: value for name, value in (said | claims).items() if value is not None}
    return signed({"alg": algorithm, "kid": key.kid, "typ": "at+jwt"}, whole, key)
