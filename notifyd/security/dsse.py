"""DSSE envelopes (https://github.com/secure-systems-lab/dsse, version 1), signed by Ed25519.

An envelope is JSON: `payloadType`, the payload in base64, and `signatures` with `keyid` and `sig` in base64. What
is signed is `DSSEv1 <length of the type> <type> <length of the payload> <payload>`.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import orjson
from attrs import frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from notifyd.security.jwt import KeySet
from notifyd.security.signing import SigningKeys

_ENVELOPE: Final = {"payloadType", "payload", "signatures"}
_SIGNATURE: Final = {"keyid", "sig"}


class EnvelopeError(Exception):
    """An envelope that does not prove what it holds; the text says what is wrong."""


class UnsignedError(EnvelopeError):
    """Nobody whose key is known has signed it."""


@frozen
class Opened:
    """What an envelope holds, and the ids of the keys that have signed it."""

    payload: bytes
    keys: tuple[str, ...]


def sealed(keys: SigningKeys, payload_type: str, payload: bytes) -> str:
    """An envelope of `payload`, signed by the first of `keys`, if any; the same bytes each time."""
    signed = _signed(payload_type, payload)
    signatures = [{"keyid": kid, "sig": _base64(made)} for kid, made in keys.sign(signed)]
    envelope = {"payloadType": payload_type, "payload": _base64(payload), "signatures": signatures}
    return orjson.dumps(envelope).decode()


def contents(text: str | bytes, payload_type: str) -> bytes:
    """What an envelope holds, whoever has signed it. Raises `EnvelopeError`."""
    envelope = _read(text)
    if envelope["payloadType"] != payload_type:
        raise EnvelopeError(f"payloadType is not {payload_type}")
    return _decoded(envelope["payload"], "payload")


def opened(text: str | bytes, payload_type: str, keys: KeySet) -> Opened:
    """What an envelope holds whose signatures are all of `keys`. Raises `EnvelopeError`, `UnsignedError`.

    It is read strictly, so that of each envelope there is one spelling: no other members, no other base64.
    """
    payload = contents(text, payload_type)
    signatures = _read(text)["signatures"]
    if not isinstance(signatures, list) or not signatures:
        raise UnsignedError("nobody has signed it")
    signed = _signed(payload_type, payload)
    return Opened(payload, tuple(_verified(one, signed, keys) for one in signatures))


def _read(text: str | bytes) -> dict[str, Any]:
    try:
        envelope = json.loads(text, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        raise EnvelopeError("it is not JSON, or names a member twice") from None
    if not isinstance(envelope, dict) or envelope.keys() != _ENVELOPE:
        raise EnvelopeError("it is not a DSSE envelope with payloadType, payload and signatures alone")
    return envelope


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is named twice")
    return members


def _verified(signature: Any, signed: bytes, keys: KeySet) -> str:
    """The id of the key that has signed."""
    if not isinstance(signature, dict) or signature.keys() != _SIGNATURE:
        raise EnvelopeError("a signature has keyid and sig alone")
    kid = signature["keyid"]
    found = keys.choose(kid, "EdDSA") if isinstance(kid, str) else None
    public = found.key.public_key if found is not None else None
    if not isinstance(public, Ed25519PublicKey):
        raise UnsignedError(f"the key {kid!r} is not among the public keys")
    try:
        public.verify(_decoded(signature["sig"], "sig"), signed)
    except InvalidSignature:
        raise EnvelopeError(f"the signature is not one of the key {kid!r} over this payload") from None
    return str(kid)


def _decoded(text: Any, member: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise EnvelopeError(f"{member} is not base64") from None
    if _base64(data) != text:
        raise EnvelopeError(f"{member} is not base64 as it is written")
    return data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _signed(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
