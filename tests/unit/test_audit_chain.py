"""A chain of seals shows what became of an audit trail: whatever was changed, removed or moved is told by name."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from attrs import define, evolve, field

from notifyd.model import AuditSeal
from notifyd.security.jwt import KeySet
from notifyd.security.secrets import Secret
from notifyd.security.signing import SigningKeys
from notifyd.wire.audit import Seal, audit_json, next_seal, read_seal, record_hash, signed_seal
from notifyd.wire.chain import ChainCheck, Head
from tests.store.makers import MINUTE, NOW, TENANT, audit_record

Item = tuple[int, str, list[dict[str, Any]]]
OLD, NEW = (Secret("whsk_" + base64.b64encode(letter * 32).decode()) for letter in (b"o", b"n"))


def signing(*secrets: Secret) -> SigningKeys:
    return SigningKeys(secrets)


def published(*secrets: Secret) -> KeySet:
    return KeySet.parse(json.dumps(signing(*secrets).jwks()))


@define
class Trail:
    """A chain as it is served: each seal with its records."""

    items: list[Item] = field(factory=list)

    def seal(self, *names: str, keys: SigningKeys | None = None, at: int = NOW, **changes: Any) -> Seal:
        records = [audit_record(name, at=at) for name in names]
        seal = evolve(next_seal(self.last, TENANT, at).over(records), **changes)
        stored = signed_seal(seal, keys or signing())
        self.items.append((seal.number, stored.envelope, [audit_json(one) for one in records]))
        return read_seal(stored)

    @property
    def last(self) -> Seal | None:
        return read_seal(AuditSeal(TENANT, *self.items[-1][:2])) if self.items else None

    def faults(self, keys: KeySet | None = None, head: Head | None = None) -> list[str]:
        check = ChainCheck(keys, head)
        found = [fault for item in self.items for fault in check.add(*item)]
        return [*found, *check.end()]

    def record(self, seal: int, place: int) -> dict[str, Any]:
        return self.items[seal - 1][2][place]


@pytest.fixture
def trail() -> Trail:
    """Three seals over two records each."""
    trail = Trail()
    for number in (1, 2, 3):
        trail.seal(f"a{number}", f"b{number}")
    return trail


def test_a_chain_that_nobody_has_touched_holds(trail: Trail) -> None:
    check = ChainCheck()
    assert [fault for item in trail.items for fault in check.add(*item)] == []
    assert list(check.end()) == []
    assert (check.seals, check.records, check.purged) == (3, 6, 0)
    assert check.head == Head(3, hashlib.sha256(_payload(trail.items[-1][1])).hexdigest())


def _payload(envelope: str) -> bytes:
    return base64.b64decode(json.loads(envelope)["payload"])


def test_a_record_s_hash_is_that_of_its_canonical_form_with_its_tenant() -> None:
    record = audit_record("a", data={"€": 1.5, "a": [None, True]})
    facts = {**audit_json(record), "tenant": TENANT}
    assert record_hash(TENANT, audit_json(record)) == hashlib.sha256(rfc8785.dumps(facts)).hexdigest()


def test_what_has_no_canonical_form_is_sealed_and_checked_all_the_same(trail: Trail) -> None:
    trail.seal("big")
    served = {**trail.record(4, 0), "data": {"number": 2**60 + 1}}
    assert record_hash(TENANT, served) != record_hash(TENANT, {**served, "data": {"number": 2**60 + 3}})


def changed(member: str, value: Any) -> Callable[[Trail], None]:
    return lambda trail: trail.record(2, 0).update({member: value})


def swapped(trail: Trail) -> None:
    trail.items[1][2].reverse()


def moved(trail: Trail) -> None:
    trail.items[2][2].append(trail.items[1][2].pop(0))


def added(trail: Trail) -> None:
    trail.items[1][2].append(audit_json(audit_record("x")))


def reseal(trail: Trail) -> None:
    """A record is removed, and its seal made anew without it."""
    seal = read_seal(AuditSeal(TENANT, *trail.items[1][:2]))
    shorter = signed_seal(evolve(seal, records=seal.records[1:]), signing())
    trail.items[1] = (2, shorter.envelope, trail.items[1][2][1:])


def exchanged(trail: Trail) -> None:
    (_, first, mine), (_, second, other) = trail.items[1:]
    trail.items[1:] = [(2, second, other), (3, first, mine)]


GONE = "of 2027-01-15T08:00:00Z is missing, or cannot be read"


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (changed("actor", "mallory"), ["seal 2: record a2 was changed"]),
        (changed("at", "2027-01-15T08:00:00.000001Z"), ["seal 2: record a2 was changed"]),
        (changed("data", {"channel": "slack", "tries": 3}), ["seal 2: record a2 was changed"]),
        (changed("runId", None), ["seal 2: record a2 was changed"]),
        (lambda trail: trail.items[1][2].pop(0), [f"seal 2: record a2 {GONE}"]),
        (lambda trail: trail.items[1][2].clear(), [f"seal 2: record a2 {GONE}", f"seal 2: record b2 {GONE}"]),
        (swapped, ["seal 2: record b2 stands where a2 was: they were reordered"]),
        (moved, ["seal 3: record a2 is not among those that were sealed", f"seal 2: record a2 {GONE}"]),
        (added, ["seal 2: record x is not among those that were sealed"]),
        (reseal, ["seal 2 was changed: it is not the one that seal 3 follows"]),
        (lambda trail: trail.items.pop(1), ["seal 2 is missing"]),
        (lambda trail: trail.items.pop(0), ["seal 1 is missing"]),
        (lambda trail: trail.items.__delitem__(slice(2)), ["seals 1 to 2 are missing"]),
        (exchanged, ["seal 2 is missing", "seal 2 stands behind seal 3"]),
    ],
)
def test_what_was_done_to_a_trail_is_told_by_seal_and_record(
    trail: Trail, tamper: Callable[[Trail], Any], told: list[str]
) -> None:
    tamper(trail)
    assert trail.faults() == told


@pytest.mark.parametrize(
    "envelope", ["", "{}", "no JSON", '{"payloadType": 1, "payload": "", "signatures": []}']
)
def test_a_seal_that_cannot_be_read_is_told_and_the_rest_is_checked(trail: Trail, envelope: str) -> None:
    trail.items[1] = (2, envelope, trail.items[1][2])
    changed("actor", "mallory")(trail)
    trail.record(3, 1)["actor"] = "mallory"
    unread, gap, record = trail.faults()
    assert unread.startswith("seal 2: ")
    assert (gap, record) == ("seal 2 is missing", "seal 3: record b3 was changed")


def test_what_age_has_removed_is_no_fault_and_the_rest_is(trail: Trail) -> None:
    trail.seal("new", at=NOW + MINUTE)
    trail.seal(purged_before=NOW + 1)
    trail.items[1][2].clear()
    check = ChainCheck()
    assert [fault for item in trail.items for fault in check.add(*item)] == []
    assert (list(check.end()), check.purged) == ([], 2)
    trail.items[3][2].clear()
    assert trail.faults() == ["seal 4: record new of 2027-01-15T08:01:00Z is missing, or cannot be read"]


def test_seals_may_be_gone_up_to_the_one_that_the_newest_names(trail: Trail) -> None:
    trail.seal(purged_before=NOW + 1, first=3)
    del trail.items[:2]
    assert trail.faults() == []
    del trail.items[0]
    assert trail.faults() == ["seal 3 is missing"]


def test_the_end_of_a_chain_is_known_by_a_head_that_was_kept(trail: Trail) -> None:
    last = trail.last
    assert last is not None
    head = Head.parse(f"3:{last.hash}")
    assert trail.faults(head=head) == []
    trail.items.pop()
    assert trail.faults(head=head) == [f"seal {head} is not in the chain"]
    trail.seal("a3")
    assert trail.faults(head=head) == [f"seal {head} is not in the chain"]


def test_a_head_from_before_what_is_kept_cannot_be_checked(trail: Trail) -> None:
    trail.seal(purged_before=NOW + 1, first=3)
    del trail.items[:2]
    told = "seal 1:00 is older than what is kept: it cannot be checked"
    assert trail.faults(head=Head(1, "00")) == [told]


def test_a_signature_vouches_for_all_seals_before_it_whoever_signed_them() -> None:
    trail = Trail()
    for number, keys in enumerate((signing(), signing(OLD), signing(NEW)), start=1):
        trail.seal(f"a{number}", keys=keys)
    assert trail.faults(published(NEW)) == []
    assert trail.faults(published(OLD, NEW)) == []
    assert trail.faults(published(OLD)) == ["from seal 3 on none is signed by a key that is known"]


def test_a_chain_that_was_made_anew_without_the_key_is_not_believed() -> None:
    trail = Trail()
    trail.seal("a", keys=signing(OLD))
    envelope = json.loads(trail.items[0][1])
    forged = Trail()
    forged.seal("b")
    forged_one = json.loads(forged.items[0][1]) | {"signatures": envelope["signatures"]}
    assert forged.faults(published(OLD)) == ["from seal 1 on none is signed by a key that is known"]
    forged.items[0] = (1, json.dumps(forged_one), forged.items[0][2])
    (told, *_) = forged.faults(published(OLD))
    assert told.startswith("seal 1: the signature is not one of the key")


def test_records_whose_seal_is_gone_are_told(trail: Trail) -> None:
    check = ChainCheck()
    told = list(check.end([audit_json(audit_record("stray"))]))
    assert told == ["record stray is under a seal that is not there"]
    assert check.head is None


def test_a_chain_goes_on_behind_a_seal_that_cannot_be_read(trail: Trail) -> None:
    trail.items[-1] = (3, "spoilt", trail.items[-1][2])
    assert trail.seal("next").number == 4
    unread, gap = trail.faults()
    assert (unread.partition(":")[0], gap) == ("seal 3", "seal 3 is missing")


def test_the_published_example_holds_and_is_signed() -> None:
    example = Path(__file__).parents[2] / "docs/contract/examples/SealedAuditPage.json"
    items = [tuple(item.values()) for item in json.loads(example.read_text())["items"]]
    assert Trail(items).faults(published(NEW)) == []


@pytest.mark.parametrize("text", ["", "x:y", "1.5:00"])
def test_a_head_is_a_number_and_a_hash(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Head.parse(text)
