"""The part of a person's list where they name who stands in for them while they are away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any, Final

from attrs import frozen

from notifyd import correlation
from notifyd.flow.deputies import LONGEST, Deputies, Refusal, Wish, days_by_link
from notifyd.model import Instant
from notifyd.registry.registry import Registry
from notifyd.security.links import MineLink
from notifyd.security.names import name_fault
from notifyd.web.pages.forms import Alert
from notifyd.web.pages.reader import Reader

NAME: Final = "deputy"
END: Final = "end-deputy"
"""What a form's button sends."""

_STATUS: Final = {Refusal.SIGN_IN: 403, Refusal.AWAY: 409, Refusal.TAKEN: 409, Refusal.MANY: 409}


@frozen
class DeputyForm:
    """What was typed, or of the deputy to end the id."""

    who: str
    first: str
    last: str
    id: str

    @classmethod
    def of(cls, fields: Mapping[str, list[str]]) -> DeputyForm:
        names = ("deputy", "first", "last", "deputy_id")
        return cls(*(fields.get(name, [""])[0].strip() for name in names))


@frozen
class Place:
    """Whose list is looked at, and who is signed in there: a canonical name, None where nobody is."""

    mine: MineLink
    registry: Registry
    signed_in: str | None
    now: Instant

    @property
    def person(self) -> str:
        return self.registry.actors.canonical(self.mine.recipient)

    @property
    def may_name(self) -> bool:
        """Does any rule ask the person, so that there is something to stand in for?"""
        return self.person in self.registry.approvers(self.mine.tenant)

    @property
    def lacks_sign_in(self) -> bool:
        """Would the person have to sign in to name somebody?"""
        return self.registry.provider is not None and self.signed_in != self.person and self.may_name

    async def change(self, deputies: Deputies, form: DeputyForm, decision: str, token: str) -> Alert | None:
        """Name somebody, or end what was named. `token` is the form's own. Raises `StoreError`."""
        about = correlation.current.get()
        if decision == END:
            await deputies.end(self.mine.tenant, self.person, form.id, about)
            return None
        days = _day(form.first), _day(form.last)
        if days[0] is None or days[1] is None:
            return _alert(Refusal.DAYS)
        if name_fault(form.who) is not None:
            return _alert(Refusal.NOBODY)
        signed_in = self.signed_in == self.person
        wish = Wish(self.mine.tenant, self.person, form.who, days[0], days[1], signed_in, token)
        refusal = await deputies.add(wish, about)
        return None if refusal is None else _alert(refusal)

    def shown(self, reader: Reader, form: DeputyForm | None) -> Mapping[str, Any] | None:
        """What the page shows, with what was typed in `form`; None where it has nothing to show."""
        named = list(self._named(reader))
        if not self.may_name and not named:
            return None
        today = self.registry.day(self.person, self.now)
        return {
            "named": named,
            "may_name": self.may_name,
            "lacks_sign_in": self.lacks_sign_in,
            "typed": form,
            "today": today.isoformat(),
            "latest": (today + timedelta(days=LONGEST)).isoformat(),
            "zone": self.registry.zone(self.person),
            "days": 0 if self.signed_in == self.person else days_by_link(self.registry),
        }

    def _named(self, reader: Reader) -> Iterator[Mapping[str, Any]]:
        registry = self.registry
        today, day = registry.day(self.person, self.now), reader.formats.date
        configured = registry.recipient(self.person).deputy
        if configured is not None and today <= configured.until:
            first, last = (day(one.isoformat()) for one in (configured.from_, configured.until))
            yield {"id": "", "deputy": configured.to, "first": first, "last": last, "counts": True}
        for one in registry.deputies.of(self.mine.tenant, self.person):
            if today.isoformat() <= one.last:
                of = {"id": one.id, "deputy": one.deputy, "counts": registry.counts(one)}
                yield of | {"first": day(one.first), "last": day(one.last)}


def _alert(refusal: Refusal) -> Alert:
    return Alert(_STATUS.get(refusal, 422), f"deputy_{refusal}")


def _day(text: str) -> date | None:
    """`YYYY-MM-DD`, as a browser's field for a date sends it."""
    try:
        return date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None
