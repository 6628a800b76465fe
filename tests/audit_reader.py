"""A verifier of exported audit trails, written from `docs/contract/audit.md` alone, without notifyd's code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature

from tests.receipt_reader import decoded, key_of

TYPE = "application/vnd.notifyd.audit-seal.v1+json"


def check(lines: Iterable[str], jwks: dict[str, Any]) -> int:
    """How many records a whole trail has. Raises ValueError where it is not whole, or not signed to its end."""
    sealed, previous, signed = list(seals(lines)), None, False
    last = json.loads(sealed[-1][0])
    for number, (payload, envelope, records) in enumerate(sealed, start=last["first"]):
        seal = json.loads(payload)
        if seal["number"] != number or (previous and seal["previous"] != previous):
            raise ValueError(f"seal {number} is not there, or not as it was")
        signed, previous = is_signed(payload, envelope, jwks), hashlib.sha256(payload).hexdigest()
        wanted = [(one["id"], one["hash"]) for one in seal["records"]]
        found = [(one["id"], digest(seal["tenant"], one)) for one in records]
        there = dict(found)
        gone = {one["id"] for one in seal["records"] if one["id"] not in there and is_old(one, last)}
        if found != [one for one in wanted if one[0] not in gone]:
            raise ValueError(f"the records of seal {number} are not what was sealed")
    if not signed:
        raise ValueError("the newest seal is not signed")
    return sum(len(records) for _, _, records in sealed)


def is_old(record: dict[str, Any], last: dict[str, Any]) -> bool:
    bound = last["purgedBefore"]
    return bound is not None and datetime.fromisoformat(record["at"]) < datetime.fromisoformat(bound)


def seals(lines: Iterable[str]) -> Iterator[tuple[bytes, dict[str, Any], list[dict[str, Any]]]]:
    """Payload and envelope of each seal, with the records behind it."""
    records: list[dict[str, Any]] = []
    envelope: dict[str, Any] = {}
    for line in map(json.loads, lines):
        if "envelope" in line:
            if envelope:
                yield decoded(envelope["payload"]), envelope, records
            envelope, records = json.loads(line["envelope"]), []
        else:
            records.append({name: line[name] for name in line if name != "seal"})
    yield decoded(envelope["payload"]), envelope, records


def is_signed(payload: bytes, envelope: dict[str, Any], jwks: dict[str, Any]) -> bool:
    data = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(payload), payload)
    for one in envelope["signatures"]:
        try:
            key_of(one["keyid"], jwks).verify(decoded(one["sig"]), data)
        except InvalidSignature:
            raise ValueError("a signature does not hold") from None
    return bool(envelope["signatures"]) and envelope["payloadType"] == TYPE


def digest(tenant: str, record: dict[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps({"tenant": tenant, **record})).hexdigest()
