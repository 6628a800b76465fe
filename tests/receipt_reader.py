"""A verifier of receipts, written from `docs/contract/receipt.md` alone: it knows nothing of notifyd's code."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TYPE = "application/vnd.in-toto+json"


def statement(receipt: bytes, jwks: dict[str, Any]) -> dict[str, Any]:
    """What the receipt says. Raises ValueError where it is not proved by a key of the set."""
    envelope = json.loads(receipt)
    if set(envelope) != {"payloadType", "payload", "signatures"} or envelope["payloadType"] != TYPE:
        raise ValueError("not an envelope of a statement")
    if not envelope["signatures"]:
        raise ValueError("not signed")
    payload = decoded(envelope["payload"])
    signed = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(payload), payload)
    for one in envelope["signatures"]:
        if set(one) != {"keyid", "sig"}:
            raise ValueError("not a signature")
        try:
            key_of(one["keyid"], jwks).verify(decoded(one["sig"]), signed)
        except InvalidSignature:
            raise ValueError("the signature does not hold") from None
    said: dict[str, Any] = json.loads(payload)
    if said["_type"] != "https://in-toto.io/Statement/v1":
        raise ValueError("not a statement")
    if said["predicateType"] != "urn:notifyd:approval:v1":
        raise ValueError("not about an approval")
    return said


def decoded(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("another spelling of base64")
    return data


def key_of(kid: str, jwks: dict[str, Any]) -> Ed25519PublicKey:
    for key in jwks["keys"]:
        if (key["kty"], key.get("crv"), key.get("kid")) == ("OKP", "Ed25519", kid):
            return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
    raise ValueError("the key is not in the set")
