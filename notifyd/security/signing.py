"""Standard Webhooks signatures (https://www.standardwebhooks.com, specification 1.0.0), both ways.

Headers `webhook-id`, `webhook-timestamp` (seconds since the epoch) and `webhook-signature`: a space-separated
list of `v1,<base64 HMAC-SHA256 of "id.timestamp.body">`, one for each secret that is valid at the time. What goes
out may also bear `v1a,<base64 Ed25519 signature>` of the same, which whoever has the public key can verify.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from multidict import istr

from notifyd.errors import SignatureInvalidError
from notifyd.security.secrets import Secret, keyed

ID_HEADER: Final = istr("webhook-id")
TIMESTAMP_HEADER: Final = istr("webhook-timestamp")
SIGNATURE_HEADER: Final = istr("webhook-signature")

PREFIX: Final = "whsec_"

MISMATCH: Final = "webhook-signature does not match the body under any valid secret"

_SIGNATURES: Final = 8
"""Of how many signatures in the header note is taken."""


def secret_bytes(secret: Secret) -> bytes:
    """The key in `whsec_<base64>`. Raises ValueError, which never holds the secret."""
    value = secret.reveal()
    if not value.startswith(PREFIX):
        raise ValueError(f"a signing secret is written {PREFIX}<base64>")
    try:
        key = base64.b64decode(value[len(PREFIX) :], validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {PREFIX} is not base64") from None
    if not 24 <= len(key) <= 64:
        raise ValueError(f"a signing secret holds 24 to 64 bytes, this one {len(key)}")
    return key


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    code = keyed(key).copy()
    code.update(_signed(message_id, timestamp, body))
    return "v1," + binascii.b2a_base64(code.finalize(), newline=False).decode()


def _signed(message_id: str, timestamp: int, body: bytes) -> bytes:
    return b"%s.%d.%s" % (message_id.encode(), timestamp, body)


def sign(
    secrets: Sequence[Secret], message_id: str, timestamp: int, body: bytes, others: Sequence[str] = ()
) -> dict[str, str]:
    """The three headers for `body`, signed with each of `secrets`; `timestamp` in seconds since the epoch.

    `others` are signatures that were made elsewhere, such as those of `ChannelContext.signatures`. Raises
    ValueError as `secret_bytes` does.
    """
    signatures = (signature(secret_bytes(s), message_id, timestamp, body) for s in secrets)
    return {
        str(ID_HEADER): message_id,
        str(TIMESTAMP_HEADER): str(timestamp),
        str(SIGNATURE_HEADER): " ".join((*signatures, *others)),
    }


def check_head(headers: Mapping[str, str], now: float, tolerance: float) -> tuple[str, int, list[bytes]]:
    """The message's id, its timestamp and its `v1` signatures, as far as they can be judged without the body.

    Times in seconds. Raises `SignatureInvalidError`. Whose clock is wrong, and by how much, is safe to say: the
    service's own stands in each of its answers.
    """
    message_id, stamp = headers.get(ID_HEADER, ""), headers.get(TIMESTAMP_HEADER, "")
    if not message_id or not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:
        raise SignatureInvalidError("webhook-id and webhook-timestamp (whole seconds) are required")
    ahead = int(stamp) - now
    if abs(ahead) > tolerance:
        direction = "ahead of" if ahead > 0 else "behind"
        drift = f"{abs(ahead):.0f} s {direction} the service's clock"
        raise SignatureInvalidError(
            f"webhook-timestamp is outside the tolerance of {tolerance:g} s: it is {drift}; check both clocks"
        )
    found = headers.get(SIGNATURE_HEADER, "").split(" ")[:_SIGNATURES]
    offered = [one.encode() for one in found if one.startswith("v1,")]
    if not offered:
        raise SignatureInvalidError(MISMATCH)
    return message_id, int(stamp), offered


def verify(
    keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float, tolerance: float
) -> None:
    """Check the three headers against any of `keys`. Times in seconds. Raises `SignatureInvalidError`."""
    message_id, timestamp, offered = check_head(headers, now, tolerance)
    for key in keys:
        expected, matched = signature(key, message_id, timestamp, body).encode(), False
        for candidate in offered:
            # No early exit inside the list: which signature matched is nobody's business.
            matched |= hmac.compare_digest(expected, candidate)
        if matched:
            return
    raise SignatureInvalidError(MISMATCH)


# --- asymmetric ----------------------------------------------------------------------------------------------

PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"

_SEED: Final = 32


def signing_key(secret: Secret) -> Ed25519PrivateKey:
    """The key in `whsk_<base64>` or, as `keys.seal` has them, in base64 alone.

    It is the 32 bytes of RFC 8032, alone or, as others write it, before the public key. Raises ValueError, which
    never holds the secret.
    """
    try:
        held = base64.b64decode(secret.reveal().removeprefix(PRIVATE_PREFIX), validate=True)
    except ValueError:
        raise ValueError(f"a signing key is written {PRIVATE_PREFIX}<base64>") from None
    if len(held) not in (_SEED, 2 * _SEED):
        raise ValueError(f"a signing key holds 32 bytes, or 64 with the public key, this one {len(held)}")
    key = Ed25519PrivateKey.from_private_bytes(held[:_SEED])
    if held[_SEED:] not in (b"", _public(key)):
        raise ValueError("the public key in the signing key is that of another")
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """`whpk_<base64>`, by which a receiver verifies."""
    return PUBLIC_PREFIX + base64.b64encode(_public(key)).decode()


def _public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


class SigningKeys:
    """`keys.sign`: the first key signs, all of them are published. Raises ValueError as `signing_key` does."""

    def __init__(self, secrets: Sequence[Secret] = ()) -> None:
        self._keys = tuple(map(signing_key, secrets))

    def __bool__(self) -> bool:
        return bool(self._keys)

    def signatures(self, message_id: str, timestamp: int, body: bytes) -> tuple[str, ...]:
        """`v1a` of the first key; none without a key."""
        made = self.sign(_signed(message_id, timestamp, body))
        return tuple("v1a," + base64.b64encode(one).decode() for _, one in made)

    def sign(self, data: bytes) -> tuple[tuple[str, bytes], ...]:
        """The first key's id and its Ed25519 signature of `data`; nothing without a key."""
        return tuple((_jwk(_public(key))["kid"], key.sign(data)) for key in self._keys[:1])

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys as a JSON Web Key Set (RFC 7517, RFC 8037), each under its thumbprint (RFC 7638)."""
        return {"keys": [_jwk(_public(key)) for key in self._keys]}


def _jwk(public: bytes) -> dict[str, str]:
    x = base64.urlsafe_b64encode(public).rstrip(b"=").decode()
    thumbprint = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest()
    kid = base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA"}
