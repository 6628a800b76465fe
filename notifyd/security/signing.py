"""Standard Webhooks signatures (https://www.standardwebhooks.com, specification 1.0.0), both ways.

Headers `webhook-id`, `webhook-timestamp` (seconds since the epoch) and `webhook-signature`: a space-separated
list of `v1,<base64 HMAC-SHA256 of "id.timestamp.body">`, one for each secret that is valid at the time.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from notifyd.errors import SignatureInvalidError
from notifyd.security.secrets import Secret

PREFIX: Final = "whsec_"


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
    code = _keyed(key).copy()
    code.update(b"%s.%d.%s" % (message_id.encode(), timestamp, body))
    return "v1," + base64.b64encode(code.digest()).decode()


@lru_cache(maxsize=256)
def _keyed(key: bytes) -> hmac.HMAC:
    """A code that has read its key and nothing else: to copy one is quicker than to begin."""
    return hmac.new(key, digestmod="sha256")


def sign(secrets: Sequence[Secret], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers for `body`, signed with each of `secrets`; `timestamp` in seconds since the epoch."""
    signatures = (signature(secret_bytes(s), message_id, timestamp, body) for s in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def verify(
    keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float, tolerance: float
) -> None:
    """Check the three headers against any of `keys`. Times in seconds. Raises `SignatureInvalidError`."""
    message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:
        raise SignatureInvalidError("webhook-id and webhook-timestamp (whole seconds) are required")
    if abs(now - int(stamp)) > tolerance:
        raise SignatureInvalidError("webhook-timestamp is outside the tolerance: check both clocks")
    offered = [s.encode() for s in headers.get("webhook-signature", "").split(" ")[:8]]
    for key in keys:
        expected = signature(key, message_id, int(stamp), body).encode()
        # No early exit inside the list: which signature matched is nobody's business.
        if sum(hmac.compare_digest(expected, candidate) for candidate in offered):
            return
    raise SignatureInvalidError("webhook-signature does not match the body under any valid secret")
