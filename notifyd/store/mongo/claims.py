"""Claiming from a queue that several nodes share.

Few round trips take a batch of any size: candidates are read without a lock, one conditional update leases those
of them that are free still, and what it leased is read back by the claim's own mark. Nodes that meet at the head
of a queue spread out: after a claim that lost documents to another, the next one takes a random part of a longer
stretch, and comes back to the head when nobody disputes it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Ids
from itertools import islice
from typing import Any, Final, TypeVar

from attrs import define, field, frozen
from bson import ObjectId

from notifyd.model import Instant
from notifyd.store import CollectionName
from notifyd.store.aside import KEYS
from notifyd.store.mongo.base import LEASE_CEILING, Base
from notifyd.store.mongo.driver import Collection, Document, Filter
from notifyd.store.mongo.reading import collection_of, some, without
from notifyd.store.mongo.schema import CLAIMABLE, QUEUE
from notifyd.store.turns import Flow, in_turn, to_ask

T = TypeVar("T")

_ROUNDS: Final = 3
_WIDEST: Final = 16
_REMEMBERED: Final = 5.0
"""For how many seconds a scan for flows is good."""

_AT_ONCE: Final = 64
"""How many flows are asked at the same time."""

_ORDER: Final = [("claim_at", 1), ("position", 1)]


@frozen
class Wanted:
    """What is to be claimed, beside being claimable: documents that meet `where`, up to `limit`.

    `in_turn`: where more is due than is wanted, tenants and their rules each have their share; who has something
    is remembered for a while under `part`, the name of this part of the queue. `horizon` is the time beyond which
    no due time can be meant; `due_only` looks at no due time that cannot be meant. `size` is how many bytes the
    field `text` may have in all of them; the first is taken whatever it has.

    `changed` names the fields of the record that claiming changes, each with a check of what it is now: a document
    that does not decode must not be made to.
    """

    where: Filter
    now: Instant
    limit: int
    passed_over: Ids[str] = ()
    horizon: Instant | None = None
    due_only: bool = False
    in_turn: bool = False
    part: str = ""
    size: int | None = None
    text: str = ""
    changed: Mapping[str, Callable[[Any], bool]] = field(factory=dict)

    def conditions(self) -> list[Document]:
        """What makes a document claimable now, what comes first before the others."""
        # Times are integers, so "before now + 1" is "by now": SecantusDB 0.7.0b3, which tests use, misses an
        # inclusive upper bound inside a compound index.
        due: Document = {"claim_at": {"$gte": 0, "$lt": self.now + 1}}
        # Set by a clock that has been set back since: nobody could have set this time by now.
        far = {"$gte": 0, "$gt": self.now + LEASE_CEILING}
        ahead: Document = {"claim_at": far, "set_from": {"$gt": self.now}}
        if self.due_only:
            return [due]
        if self.horizon is None:
            return [ahead, due]
        beyond: Document = {"claim_at": {"$gt": max(self.horizon, self.now)}, "lease_owner": None}
        return [{**CLAIMABLE, "$or": [ahead, beyond]}, due]


def _within(wanted: Wanted, chosen: list[Document], taken: list[Document]) -> list[Document]:
    """Those of `chosen` that come first and fit beside what is taken; one at least if nothing is."""
    if wanted.size is None:
        return chosen
    room = wanted.size - sum(_bytes(one.get(wanted.text)) for one in taken)
    fitting: list[Document] = []
    for one in chosen:
        room -= one["size"]
        if room < 0 and (fitting or taken):
            break
        fitting.append(one)
    return fitting


def _bytes(text: object) -> int:
    return len(text.encode()) if isinstance(text, str) else 0


def _measured(name: str) -> Document:
    """The expression that counts the bytes of a text; what is none has no bytes, and fails no query."""
    is_text = {"$eq": [{"$type": f"${name}"}, "string"]}
    return {"$cond": [is_text, {"$strLenBytes": f"${name}"}, 0]}


@define(eq=False)
class Queue:
    """The claimable documents of a collection. `freed` are fields of the record that have to go with a lease."""

    base: Base
    name: CollectionName
    freed: Mapping[str, Any] = field(factory=dict)
    _unanswered: list[tuple[list[Any], ObjectId]] = field(factory=list)  # ids, and the mark of their claim
    _spread: int = 1  # how many times as many candidates as are wanted
    _known: dict[str, tuple[float, list[Flow]]] = field(factory=dict)  # flows, and when to look anew

    @property
    def collection(self) -> Collection:
        return collection_of(self.base, self.name)

    async def claim(self, wanted: Wanted, change: Mapping[str, Any]) -> list[Document]:
        """Make `change` to what can be claimed, and answer it as it is then."""
        await self._free_unanswered()
        taken: list[Document] = []
        for _ in range(_ROUNDS):
            room = wanted.limit - len(taken)
            chosen = self._choose(await self._candidates(wanted, room * self._spread), room)
            chosen = _within(wanted, chosen, taken)
            if not chosen:
                break
            won = await self._take(wanted, chosen, change)
            taken += won
            if len(won) == len(chosen):
                self._spread = max(1, self._spread // 2)
                break
            self._spread = min(_WIDEST, self._spread * 4)
        return taken

    def _choose(self, candidates: list[Document], room: int) -> list[Document]:
        if self._spread == 1 or len(candidates) <= room:
            return candidates[:room]
        places = random.sample(range(len(candidates)), room)  # nosec B311 # so that nodes differ
        return [candidates[place] for place in sorted(places)]

    async def _candidates(self, wanted: Wanted, count: int) -> list[Document]:
        count += len(wanted.passed_over)
        found = await self._first(wanted, wanted.where, count)
        if len(found) < count or not wanted.in_turn:
            return found
        flows = to_ask(await self._flows(wanted), count)
        return await self._of_each(wanted, flows, count) if len(flows) > 1 else found

    async def _of_each(self, wanted: Wanted, flows: Sequence[Flow], count: int) -> list[Document]:
        rules = Counter(tenant for tenant, _ in flows)
        found: dict[Flow, list[Document]] = {}
        for start in range(0, len(flows), _AT_ONCE):
            asked = flows[start : start + _AT_ONCE]
            stretches = await asyncio.gather(
                *(
                    self._first(
                        wanted,
                        {**wanted.where, "tenant": tenant, "rule": rule},
                        min(count, 1 + 4 * count // (len(rules) * rules[tenant])),
                    )
                    for tenant, rule in asked
                )
            )
            found |= {flow: rows for flow, rows in zip(asked, stretches, strict=True) if rows}
            if len(found) >= count:
                break
        return list(islice(in_turn(found), count))

    async def _first(self, wanted: Wanted, where: Filter, count: int) -> list[Document]:
        """Ids, and sizes if wanted, of the longest due, after those that nobody can have meant to wait so long."""
        while True:
            found = await self._found(wanted, where, count)
            usable = [one for one in found if self._is_usable(wanted, one)]
            if usable or not found:
                return [one for one in usable if one.get("id") not in wanted.passed_over]

    async def _found(self, wanted: Wanted, where: Filter, count: int) -> list[Document]:
        fields: Document = dict.fromkeys((*KEYS[self.name], "id", *wanted.changed), 1)
        if wanted.size is not None:
            fields["size"] = _measured(wanted.text)
        others = without(where, self.base.aside.passed_over(self.name))
        found: list[Document] = []
        for condition in wanted.conditions():
            found += await self.collection.find(
                {**others, **condition}, fields=fields, sort=_ORDER, limit=count
            )
        return found

    def _is_usable(self, wanted: Wanted, one: Document) -> bool:
        wrong = [name for name, fits in wanted.changed.items() if not fits(one.get(name))]
        if wrong:
            fault = ", ".join(f"{name} has a value that this notifyd does not know" for name in wrong)
            self.base.aside.put(self.name, one["_id"], one, fault)
        return not wrong

    async def _flows(self, wanted: Wanted) -> list[Flow]:
        """Each tenant and rule that is in the queue: a scan of its index, so only in a backlog."""
        until, flows = self._known.get(wanted.part, (0.0, []))
        if time.monotonic() >= until:
            names = {"tenant": "$tenant", "rule": "$rule"}
            found = await self.collection.aggregate(
                {"$match": {**wanted.where, **CLAIMABLE}}, {"$group": {"_id": names}}, {"$sort": {"_id": 1}}
            )
            named = ((one["_id"].get("tenant"), one["_id"].get("rule")) for one in found)
            # What has no name is found among all others once these are fewer.
            flows = [(t, r) for t, r in named if isinstance(t, str) and isinstance(r, str)]
            self._known[wanted.part] = time.monotonic() + _REMEMBERED, flows
        return flows

    async def _take(
        self, wanted: Wanted, chosen: list[Document], change: Mapping[str, Any]
    ) -> list[Document]:
        mark = ObjectId()
        ids = [one["_id"] for one in chosen]
        among = {"_id": {"$in": ids}}
        marked = {**change, "$set": {**change["$set"], "claim": mark}}
        try:
            if not await self.collection.update_many({**among, "$or": wanted.conditions()}, marked):
                return []
            won = {str(one["_id"]): one for one in await self.collection.find({**among, "claim": mark})}
        except BaseException:
            self._unanswered.append((ids, mark))
            raise
        return [won[str(one)] for one in ids if str(one) in won]

    async def _free_unanswered(self) -> None:
        """End the leases of claims that were done and not answered: nobody here knows of them."""
        while self._unanswered:
            ids, mark = lost = self._unanswered.pop()  # before the wait: another claim may come in it
            try:
                await self._free({"_id": {"$in": ids}, "claim": mark})
            except BaseException:
                self._unanswered.append(lost)
                raise

    async def void(self, node: str, where: Filter) -> None:
        """End all leases of `node` on documents that meet `where`: those of a life before this one."""
        await self._free({**where, "lease_owner": node}, hint=QUEUE)

    async def _free(self, where: Filter, hint: str | None = None) -> None:
        freed = {"$set": {"claim_at": 0, "set_from": 0, "lease_owner": None, **self.freed}}
        await self.collection.update_many({**CLAIMABLE, **where}, freed, hint=hint)


async def claim(queue: Queue, kind: type[T], wanted: Wanted, change: Mapping[str, Any]) -> list[T]:
    """Claim the records of documents; go on where none of what was claimed decodes."""
    while True:
        claimed = await queue.claim(wanted, change)
        records = some(queue.base, kind, claimed)
        if records or not claimed:
            return records
