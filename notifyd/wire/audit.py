"""The audit trail as it is served and sealed: `docs/contract/audit.md` tells it field by field.

A seal names the records of one batch with their hashes, in the order in which they are stored, and the seal
before it in its tenant's chain. It travels in a DSSE envelope, signed where `keys.sign` has a key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve, field, frozen

from notifyd.model import AuditRecord, AuditSeal, Instant
from notifyd.security.dsse import EnvelopeError, contents, sealed
from notifyd.security.signing import SigningKeys
from notifyd.wire.codec import canonical, parse_instant, rfc3339

PAYLOAD_TYPE: Final = "application/vnd.notifyd.audit-seal.v1+json"


def audit_json(record: AuditRecord) -> dict[str, Any]:
    """A record as it is served."""
    return {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name.value,
        "at": rfc3339(record.at),
        "actor": record.actor,
        "correlationId": record.correlation_id,
        "runId": record.run_id,
        "approvalId": record.approval_id,
        "data": record.data,
    }


def record_hash(tenant: str, served: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a record as it is served, in canonical form. `tenant` is for one that was exported without.

    notifyd writes no number that RFC 8785 has no form for. Where another program did, `data` is taken as text.
    """
    facts = {"tenant": tenant, **served}
    try:
        text = canonical(facts)
    except ValueError:
        text = canonical({**facts, "data": json.dumps(facts.get("data"), sort_keys=True)})
    return hashlib.sha256(text).hexdigest()


@frozen
class SealedRecord:
    """What a seal says of one record."""

    id: str
    at: Instant
    hash: str


@frozen
class Seal:
    """What a seal says. `previous` is the hash of the seal before it, None for the first of a chain.

    `first` is the number of the first seal that has to be there, and `purged_before` the time before which records
    may have been removed by age, None where none may. `hash` is that of the payload it was read from.
    """

    tenant: str
    number: int
    previous: str | None
    sealed_at: Instant
    first: int = 1
    purged_before: Instant | None = None
    records: tuple[SealedRecord, ...] = ()
    hash: str = field(default="", eq=False)

    @classmethod
    def parse(cls, payload: bytes) -> Seal:
        """Raises ValueError where it is none."""
        try:
            said = json.loads(payload)
            purged = said["purgedBefore"]
            return cls(
                tenant=str(said["tenant"]),
                number=int(said["number"]),
                previous=said["previous"],
                sealed_at=parse_instant(said["sealedAt"]),
                first=int(said["first"]),
                purged_before=None if purged is None else parse_instant(purged),
                records=tuple(
                    SealedRecord(str(one["id"]), parse_instant(one["at"]), str(one["hash"]))
                    for one in said["records"]
                ),
                hash=hashlib.sha256(payload).hexdigest(),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("it is no seal of an audit trail") from error

    def payload(self) -> bytes:
        records = [{"id": one.id, "at": rfc3339(one.at), "hash": one.hash} for one in self.records]
        return canonical(
            {
                "tenant": self.tenant,
                "number": self.number,
                "previous": self.previous,
                "sealedAt": rfc3339(self.sealed_at),
                "first": self.first,
                "purgedBefore": None if self.purged_before is None else rfc3339(self.purged_before),
                "records": records,
            }
        )

    def over(self, records: Sequence[AuditRecord]) -> Seal:
        """This seal, over `records`."""
        served = ((one, audit_json(one)) for one in records)
        sealed_ones = (SealedRecord(one.id, one.at, record_hash(self.tenant, said)) for one, said in served)
        return evolve(self, records=tuple(sealed_ones))


def next_seal(before: Seal | None, tenant: str, now: Instant) -> Seal:
    """The seal that follows `before`, over no record yet."""
    if before is None:
        return Seal(tenant, 1, None, now)
    return Seal(tenant, before.number + 1, before.hash, now, before.first, before.purged_before)


def read_seal(stored: AuditSeal) -> Seal:
    """What a stored seal says, whoever has signed it.

    One that cannot be read any more has no hash: the chain goes on from its number, and whoever checks it is told.
    """
    try:
        return Seal.parse(contents(stored.envelope, PAYLOAD_TYPE))
    except (EnvelopeError, ValueError):
        return Seal(stored.tenant, stored.number, None, 0)


def signed_seal(seal: Seal, keys: SigningKeys) -> AuditSeal:
    """`seal` as it is stored, signed if there is a key."""
    return AuditSeal(seal.tenant, seal.number, sealed(keys, PAYLOAD_TYPE, seal.payload()))
