"""What a person is asked to decide: of each approval that waits in a tenant, the links by which they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final

from attrs import frozen

from notifyd.approval.timers import escalated_to
from notifyd.config.settings import Proof, Rule
from notifyd.flow.asking import Asking, asked_by
from notifyd.model import Approval, Instant, Status
from notifyd.registry.registry import Registry
from notifyd.security.links import Link, MineLink
from notifyd.store import ApprovalFilter, Page, Store

MAX_LOOKED_AT: Final = 1000
"""How many of a tenant's waiting approvals are looked through: the newest."""

_PAGE: Final = 200


@frozen
class Asked:
    """`approval` asks a person by one of `links`, or several: first those to them, then those to a deputy."""

    approval: Approval
    links: tuple[Link, ...]


async def asked_of(
    mine: MineLink, registry: Registry, store: Store, now: Instant
) -> tuple[list[Asked], bool]:
    """What waits for `mine`'s person, and whether all that waits in the tenant was looked through.

    Asked is who a rule names that asked in the present round and still does, and their deputy of today. Whether
    they may decide is not judged here. Raises `StoreError`.
    """
    person = _Person(mine, registry, now)
    if not any(person.is_named(rule) for rule in registry.settings.rules):
        return [], True
    found: list[Asked] = []
    looked_at = 0
    async for approval in _waiting(mine.tenant, store):
        looked_at += 1
        if looked_at > MAX_LOOKED_AT:
            return found, False
        asking = await asked_by(approval, registry, store)
        if links := person.links(approval, asking):
            found.append(Asked(approval, links))
    return found, True


async def present_link(
    link: Link, approval: Approval, registry: Registry, store: Store, now: Instant
) -> Link | None:
    """The link by which the person of `link` is asked in the present round, by the same rule where that asks.

    None where `link` names nobody, or nobody who is asked: what a rule confers counts for what it asks about.
    Raises `StoreError`.
    """
    if link.recipient is None:
        return None
    person = _Person(MineLink(link.tenant, link.recipient, link.expires_at), registry, now)
    links = person.links(approval, await asked_by(approval, registry, store))
    same = (one for one in links if (one.rule, one.on_behalf_of) == (link.rule, link.on_behalf_of))
    return next(same, next(iter(links), None))


def asks_for_sign_in(mine: MineLink, registry: Registry, now: Instant) -> bool:
    """Is there nothing on the list of `mine`'s person that is shown, and decided, by the link alone?"""
    person = _Person(mine, registry, now)
    rules = (rule for rule in registry.settings.rules if person.is_named(rule))
    return all(registry.proof(rule) is Proof.SIGN_IN for rule in rules)


async def _waiting(tenant: str, store: Store) -> AsyncIterator[Approval]:
    where, after = ApprovalFilter(Status.PENDING), None
    while True:
        rows, after = await store.approvals(tenant, where, Page(_PAGE, after))
        for row in rows:
            yield row
        if after is None:
            return


@frozen
class _Person:
    mine: MineLink
    registry: Registry
    now: Instant

    def is_named(self, rule: Rule) -> bool:
        """Can `rule` ask the person, by itself or by an escalation?"""
        return any(True for _ in self._asked_as(rule.people))

    def links(self, approval: Approval, asking: Iterable[Asking]) -> tuple[Link, ...]:
        found = [
            self._link(approval, one.rule, person)
            for one in asking
            for person in self._asked_as(_named(one, approval))
        ]
        return tuple(sorted(dict.fromkeys(found), key=lambda link: link.on_behalf_of is not None))

    def _asked_as(self, names: Iterable[str]) -> Iterator[str | None]:
        """For whom the person is asked where `names` are: None for themself."""
        canonical = self.registry.actors.canonical
        for name in names:
            if canonical(name) == canonical(self.mine.recipient):
                yield None
            elif self.registry.is_deputy(self.mine.tenant, self.mine.recipient, name, self.now):
                yield name

    def _link(self, approval: Approval, rule: Rule, on_behalf_of: str | None) -> Link:
        """It lives no longer than the one by which it is found."""
        return Link(
            tenant=approval.tenant,
            run_id=approval.run_id,
            approval_id=approval.approval_id,
            round=approval.round,
            plan_hash=approval.plan_hash,
            recipient=self.mine.recipient,
            rule=rule.name,
            expires_at=self.mine.expires_at,
            on_behalf_of=on_behalf_of,
        )


def _named(asking: Asking, approval: Approval) -> Iterator[str]:
    """Whom a rule asks: at first, by an escalation, or in a new round since it had escalated in one before."""
    yield from asking.rule.to
    yield from escalated_to(asking.rule, approval)
    yield from (person for person in asking.rule.people if person in asking.people)
