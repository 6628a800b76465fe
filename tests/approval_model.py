"""What must be true of one approval, after `docs/decisions.md` alone: a model beside notifyd's own code.

Times are seconds. What is refused raises `Refused` with the problem's code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, product
from typing import Any, Final

import rfc8785
from attrs import define, field, frozen

RUN: Final = ("acme", "deploy-prod")
"""Tenant and approvalId; the run's id is each model's own."""

BREAK_GLASS: Final = "Packs.BreakGlass"
REMIND_AFTER, REMIND_BEFORE, ESCALATE_AFTER = 3600, 1800, 7200


class Refused(Exception):  # noqa: N818 - it is an answer, and no error
    """`told` is the problem's code with the pointers of a 422."""

    def __init__(self, code: str, *pointers: str) -> None:
        super().__init__(code, *pointers)
        self.code = code
        self.told = (code, frozenset(pointers))


@frozen
class Asked:
    """What a request asks for. `groups` are (name, grant, required); `inputs` as the event has them."""

    plan: str
    occurred: int
    expires: int
    quorum: int
    requester: str
    grants: tuple[str, ...]
    groups: tuple[tuple[str, str, int], ...]
    inputs: tuple[Mapping[str, Any], ...]
    hours: bool  # may be approved in office hours only

    @property
    def proposed(self) -> dict[str, Any]:
        return {one["name"]: one["default"] for one in self.inputs if "default" in one}


@frozen
class Said:
    """A decision as it is sent. `message` names the signed request, "" where it was not signed."""

    actor: str
    approves: bool
    plan: str
    round: int | None
    comment: str
    grants: frozenset[str]
    inputs: Mapping[str, Any] = field(factory=dict)
    behalf: str = ""
    glass: bool = False
    message: str = ""
    client: str = ""

    @property
    def people(self) -> set[str]:
        return {self.actor, self.behalf} - {""}

    @property
    def decision(self) -> str:
        return "approved" if self.approves else "rejected"


@define
class Vote:
    """A decision that was recorded. What it sets off waits until `until`, which is 0 where nothing waits."""

    said: Said
    at: int
    round: int
    inputs: dict[str, Any]
    groups: set[str]
    hash: str
    until: int
    answer: bytes = b""

    @property
    def waits(self) -> bool:
        return self.until > 0


@define
class Model:
    """The approval as it must be. `ended` is what ended it: a vote, the clock or an event."""

    run: str
    asked: Asked | None = None
    round: int = 0
    status: str = "pending"
    known: bool = False
    by: str = ""
    heard: int = 0
    created: int = 0
    votes: list[Vote] = field(factory=list)
    void: list[Vote] = field(factory=list)
    void_asked: list[Asked] = field(factory=list)
    told: set[tuple[int, str]] = field(factory=set)  # the timers' steps, by round
    audited: dict[str, int] = field(factory=dict)

    # -- events -------------------------------------------------------------------------------------------

    def request(self, asked: Asked, now: int) -> str:
        """The outcome."""
        self._audit("requested")
        before = self.asked
        if not self.known:
            self.created = now
        elif self.status != "pending" or (before is not None and before.expires <= now):
            self._settle()
            return "recorded"
        elif asked.occurred <= self.heard:
            return "recorded"
        elif before is not None and asked.plan == before.plan:
            self.heard = asked.occurred
            return "recorded"
        self._settle()
        self.void += self.votes
        self.votes = []
        self.void_asked += [self.asked] if self.asked else []
        self.known, self.asked, self.round, self.heard = True, asked, self.round + 1, asked.occurred
        if asked.expires <= now:
            self._end("expired", "clock")
            self._audit("expired")
            return "expired"
        return "opened" if self.round == 1 else "new_round"

    def update(self, status: str) -> str:
        self._audit("updated")
        self._settle()
        if self.status != "pending":
            return "recorded"
        self.known = True
        self._end(status, "event")
        return "ended"

    def confers(self, grants: set[str], people: set[str]) -> bool:
        """Does a link with these grants let one of `people` decide, in whatever way?"""
        asked = self._asked
        if not set(asked.grants) <= grants:
            return False
        breaks = BREAK_GLASS in grants and asked.requester not in people
        return breaks or not asked.groups or bool({grant for _, grant, _ in asked.groups} & grants)

    def look(self, now: int) -> None:
        """What the daemon does by itself: expiry, timers, and what is due of what votes set off."""
        if self.asked is not None and self.status == "pending":
            if self.asked.expires <= now:
                self._settle()
                self._end("expired", "clock")
                self._audit("expired")
            else:
                self._take_timers(now)
        due = [index for index, vote in enumerate(self.votes) if vote.waits and vote.until <= now]
        self._settle(max(due, default=-1) + 1)

    def _take_timers(self, now: int) -> None:
        due = {(self.round, name) for name, at in self._timers() if at <= now}
        for _, name in due - self.told:
            self._audit(name.partition(" ")[0])
        self.told |= due

    def _timers(self) -> Iterator[tuple[str, int]]:
        assert self.asked is not None
        opened = max(self.created, self.asked.occurred)
        expires = self.asked.expires
        steps = [("reminded 1", opened + REMIND_AFTER), ("reminded 2", expires - REMIND_BEFORE)]
        return (
            step for step in [*steps, ("escalated", opened + ESCALATE_AFTER)] if opened < step[1] < expires
        )

    def _end(self, status: str, by: str) -> None:
        self.status, self.by = status, by

    def _settle(self, count: int | None = None) -> None:
        """The first `count` votes, or all, can no longer be taken back, and set off what they do."""
        for vote in self.votes[:count]:
            if vote.waits:
                vote.until = 0
                self._audit("overridden" if vote.said.glass else "acknowledged")

    def _audit(self, name: str) -> None:
        self.audited[name] = self.audited.get(name, 0) + 1

    # -- decisions ----------------------------------------------------------------------------------------

    def decide(self, said: Said, now: int, undo: int) -> Vote:
        """The vote, new or the one that this repeats. Raises `Refused`, in the order of the page."""
        if not self.known:
            raise Refused("not_found")
        self._check_grants(said)
        if (same := self._same(said)) is not None:
            return same
        self._check(said, now)
        asked = self._asked
        inputs = self._filled(said, asked.proposed) if said.approves else {}
        groups = {name for name, grant, _ in asked.groups if grant in said.grants}
        until = now + undo if undo and not said.glass else 0
        vote = Vote(said, now, self.round, inputs, groups, self.hash_of(said, inputs), until)
        self.votes.append(vote)
        if not until:
            self._audit("overridden" if said.glass else "acknowledged")
            self._settle()
        self._count(vote)
        return vote

    @property
    def _asked(self) -> Asked:
        assert self.asked is not None
        return self.asked

    def _count(self, last: Vote) -> None:
        if not last.said.approves:
            self._end("rejected", "vote")
        elif last.said.glass or self.reached:
            self._end("approved", "vote")

    def _check_grants(self, said: Said) -> None:
        if self.asked is None:
            return
        needed = {*self.asked.grants, *([BREAK_GLASS] if said.glass else [])}
        groups = {grant for _, grant, _ in self.asked.groups}
        if not needed <= said.grants or (groups and not said.glass and not groups & said.grants):
            raise Refused("grant_missing")

    def _same(self, said: Said) -> Vote | None:
        for vote in self.void + self.votes:
            present = vote.round == self.round
            one = vote.said
            if (one.actor, one.decision, one.plan, one.glass, one.behalf) != (
                *(said.actor, said.decision, said.plan, said.glass, said.behalf),
            ):
                continue
            base = self._asked.proposed if present else vote.inputs
            if (self._filled(said, base) if said.approves else {}) != vote.inputs:
                continue
            if said.message and (said.message, said.client) == (one.message, one.client):
                return vote
            named = said.round if said.round is not None else self.round
            if vote.round == named or (said.round is None and said.plan != self._asked.plan):
                return vote
        return None

    def _check(self, said: Said, now: int) -> None:
        if self.status == "expired" or (
            self.status == "pending" and self.asked is not None and self.asked.expires <= now
        ):
            raise Refused("expired")
        if self.status != "pending":
            raise Refused("already_decided")
        asked = self._asked
        if said.plan != asked.plan or said.round not in (None, self.round):
            raise Refused("plan_changed")
        reasonless = not said.comment.strip() and not said.approves
        if faults := set(self._faults(said)):
            raise Refused("invalid_event", *faults, *(["/comment"] if reasonless else []))
        if asked.requester in said.people:
            raise Refused("self_approval")
        voters = set(chain.from_iterable(vote.said.people for vote in self.votes))
        if not said.glass and voters & said.people:
            raise Refused("already_voted")
        first = next((vote.inputs for vote in self.votes if vote.said.approves), None)
        if (
            said.approves
            and asked.inputs
            and first is not None
            and self._filled(said, asked.proposed) != first
        ):
            raise Refused("inputs_differ")
        if reasonless:
            raise Refused("invalid_event", "/comment")
        if said.approves and not said.glass and asked.hours and not in_office(now):
            raise Refused("window_closed")

    def _faults(self, said: Said) -> Iterator[str]:
        if said.round is None and self.round > 1:
            yield "/round"
        if said.glass and not said.approves:
            yield "/breakGlass"
        if said.glass and not said.comment.strip():
            yield "/comment"
        if not said.approves:
            if said.inputs:
                yield "/inputs"
            return
        filled = self._filled(said, self._asked.proposed)
        asked = {one["name"]: one for one in self._asked.inputs}
        yield from (f"/inputs/{name}" for name in said.inputs if name not in asked)
        for name, one in asked.items():
            if (one.get("required") and name not in filled) or (
                name in filled and not fits(one, filled[name])
            ):
                yield f"/inputs/{name}"

    @staticmethod
    def _filled(said: Said, base: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in {**base, **said.inputs}.items() if v is not None and v != ""}

    def hash_of(self, said: Said, inputs: Mapping[str, Any]) -> str:
        more: dict[str, Any] = {"inputs": dict(inputs)} if inputs else {}
        more |= {"breakGlass": True} if said.glass else {}
        more |= {"onBehalfOf": said.behalf} if said.behalf else {}
        tenant, approval = RUN
        parts: list[Any] = [tenant, self.run, approval, self.round, said.plan, said.decision, said.actor]
        return hashlib.sha256(rfc8785.dumps([*parts, more] if more else parts)).hexdigest()

    @property
    def expiry_hash(self) -> str:
        tenant, approval = RUN
        parts: list[Any] = [tenant, self.run, approval, self.round, self._asked.plan, "expired", ""]
        return hashlib.sha256(rfc8785.dumps(parts)).hexdigest()

    # -- taking back --------------------------------------------------------------------------------------

    def take_back(self, actor: str, now: int) -> None:
        """Raises `Refused` where the actor has nothing that can be taken back."""
        own = [index for index, vote in enumerate(self.votes) if vote.said.actor == actor]
        if not own:
            raise Refused("conflict")
        later = self.votes[own[-1] :]
        last = later[0]
        if not all(vote.waits for vote in later) or now >= last.until or last.said.message:
            raise Refused("conflict")
        self._audit("taken_back")
        self.votes, self.status, self.by = self.votes[: own[-1]], "pending", ""
        for vote in later[1:]:
            self.votes.append(vote)
            self._count(vote)

    # -- what is told -------------------------------------------------------------------------------------

    @property
    def undoable(self) -> bool:
        return any(vote.waits for vote in self.votes)

    @property
    def required(self) -> int:
        return max(self._asked.quorum, self._in_groups) if self.asked else 1

    @property
    def _in_groups(self) -> int:
        return sum(required for _, _, required in self._asked.groups)

    @property
    def approvers(self) -> dict[str, set[str]]:
        """The people who approve, with the groups that each may count in."""
        found: dict[str, set[str]] = {}
        for vote in self.votes:
            if vote.said.approves:
                found.setdefault(vote.said.actor, set()).update(vote.groups)
        return found

    @property
    def received(self) -> int:
        approvers = self.approvers
        if self.asked is None or not self.asked.groups:
            return len(approvers)
        placed = most_placed(self.asked.groups, list(approvers.values()))
        return placed + min(len(approvers) - placed, self.required - self._in_groups)

    @property
    def reached(self) -> bool:
        approvers = self.approvers
        filled = most_placed(self._asked.groups, list(approvers.values())) == self._in_groups
        return filled and len(approvers) >= self.required

    @property
    def filled_in(self) -> dict[str, Any]:
        """What was proposed, and what the first who approved has made of it."""
        first = next((vote.inputs for vote in self.votes if vote.said.approves), None)
        return {"proposed": self._asked.proposed, "effective": first}

    @property
    def callback_due(self) -> bool:
        """Is the one who asked told how it ended?"""
        return self.asked is not None and self.by in ("vote", "clock") and not self.undoable


def most_placed(groups: Sequence[tuple[str, str, int]], people: Iterable[set[str]]) -> int:
    """As many people as can count, each in one group: all ways are tried."""
    room = {name: required for name, _, required in groups}
    choices = [[*sorted(one & room.keys()), ""] for one in people]
    ways = (list(filter(None, way)) for way in product(*choices))
    return max((len(way) for way in ways if all(way.count(name) <= room[name] for name in way)), default=0)


def fits(one: Mapping[str, Any], value: Any) -> bool:
    match one["type"]:
        case "text":
            return isinstance(value, str) and (
                "pattern" not in one or (value[:1] == "v" and value[1:].isdigit())
            )
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "choice":
            return value in one["choices"]
        case _:
            return isinstance(value, bool)


def in_office(now: int) -> bool:
    """Is it Monday to Friday, from 09:00 to 16:00 in UTC?"""
    at = datetime.fromtimestamp(now, UTC)
    return at.weekday() < 5 and 9 <= at.hour < 16
