"""Checking a chain of seals over an audit trail, with nothing but what is served and the public keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from notifyd.model import Instant
from notifyd.security.dsse import EnvelopeError, UnsignedError, contents, opened
from notifyd.security.jwt import KeySet
from notifyd.wire.audit import PAYLOAD_TYPE, Seal, SealedRecord, record_hash
from notifyd.wire.codec import rfc3339

_Records = Sequence[Mapping[str, Any]]


@frozen
class Head:
    """The number and hash of a seal, as a receipt or an earlier check names one."""

    number: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Head:
        """From `NUMBER:HASH`. Raises ValueError."""
        number, _, digest = text.partition(":")
        return cls(int(number), digest)

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


@define
class ChainCheck:
    """Reads one tenant's chain from its start, and tells whatever does not hold, each fault in one line.

    `keys` are the public keys that have to have signed it; with None only the hashes are checked. A signature
    vouches for all seals before it too. `expected` is a seal that has to be in the chain.
    """

    keys: KeySet | None = None
    expected: Head | None = None
    seals: int = 0
    records: int = 0
    purged: int = 0
    signed: int = 0  # the number of the last seal that one of `keys` has signed
    _last: Seal | None = None
    _start: int = 0  # the number of the first seal that is there
    _met: bool = False
    _missing: list[tuple[int, SealedRecord]] = field(factory=list)

    @property
    def head(self) -> Head | None:
        """The last seal."""
        return None if self._last is None else Head(self._last.number, self._last.hash)

    def add(self, number: int, envelope: str, records: _Records) -> Iterator[str]:
        """What is wrong with the next seal, and with the records that bear its number, in their order."""
        try:
            seal = Seal.parse(contents(envelope, PAYLOAD_TYPE))
            self._check_signature(seal, envelope)
        except (EnvelopeError, ValueError) as error:
            yield f"seal {number}: {error}"
            return
        yield from self._follows(seal)
        yield from self._holds(seal, records)
        self.seals += 1
        self.records += len(records)
        self._start = self._start or seal.number
        self._met |= self.expected == Head(seal.number, seal.hash)
        self._last = seal

    def end(self, strays: _Records = ()) -> Iterator[str]:
        """What is wrong with the chain as a whole. `strays` are records that bear the number of no seal in it."""
        last = self._last
        if last is not None:
            yield from _gone(last.first, self._start - 1)
            yield from self._unsigned(last)
        yield from self._lost(last.purged_before if last else None)
        yield from (f"record {one.get('id')} is under a seal that is not there" for one in strays)
        if self.expected is not None and not self._met:
            kept = self.expected.number >= self._start
            why = "is not in the chain" if kept else "is older than what is kept: it cannot be checked"
            yield f"seal {self.expected} {why}"

    def _check_signature(self, seal: Seal, envelope: str) -> None:
        """Raises `EnvelopeError` for a signature that is not that of the key it names."""
        try:
            if self.keys is not None:
                opened(envelope, PAYLOAD_TYPE, self.keys)
                self.signed = seal.number
        except UnsignedError:
            return  # a later one may vouch for it

    def _unsigned(self, last: Seal) -> Iterator[str]:
        if self.keys is not None and self.signed < last.number:
            yield f"from seal {self.signed + 1} on none is signed by a key that is known"

    def _follows(self, seal: Seal) -> Iterator[str]:
        before = self._last
        if before is None:
            if seal.number == 1 and seal.previous is not None:
                yield "seal 1 names one before it"
        elif seal.tenant != before.tenant:
            yield f"seal {seal.number} is of another tenant"
        elif seal.number <= before.number:
            yield f"seal {seal.number} stands behind seal {before.number}"
        elif seal.number > before.number + 1:
            yield from _gone(before.number + 1, seal.number - 1)
        elif seal.previous != before.hash:
            yield f"seal {before.number} was changed: it is not the one that seal {seal.number} follows"

    def _holds(self, seal: Seal, records: _Records) -> Iterator[str]:
        found = {str(one.get("id")): one for one in records}
        for one in seal.records:
            if one.id not in found:
                self._missing.append((seal.number, one))
            elif record_hash(seal.tenant, found[one.id]) != one.hash:
                yield f"seal {seal.number}: record {one.id} was changed"
        named = {one.id for one in seal.records}
        for id_ in found.keys() - named:
            yield f"seal {seal.number}: record {id_} is not among those that were sealed"
        stored = [id_ for id_ in found if id_ in named]
        yield from _reordered(seal, stored, [one.id for one in seal.records if one.id in found])

    def _lost(self, purged_before: Instant | None) -> Iterator[str]:
        """The records that are missing, but for those that age may have removed."""
        for number, one in self._missing:
            if purged_before is not None and one.at < purged_before:
                self.purged += 1
            else:
                yield f"seal {number}: record {one.id} of {rfc3339(one.at)} is missing, or cannot be read"


def _gone(first: int, last: int) -> Iterator[str]:
    if first <= last:
        which = f"seal {first} is" if first == last else f"seals {first} to {last} are"
        yield f"{which} missing"


def _reordered(seal: Seal, found: Sequence[str], sealed: Sequence[str]) -> Iterator[str]:
    for id_, should in zip(found, sealed, strict=True):
        if id_ != should:
            yield f"seal {seal.number}: record {id_} stands where {should} was: they were reordered"
            return
