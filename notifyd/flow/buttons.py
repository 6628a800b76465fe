"""What a message's reader can press to decide without the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from notifyd.config.settings import LinkMode, Proof, Rule, Scope
from notifyd.errors import UndecodableRowError
from notifyd.flow.audience import is_asked, is_own_request
from notifyd.model import APPROVAL_KIND, Button, Choice, Delivery, Event, Instant, Message, PlanEntry
from notifyd.registry.registry import Registry
from notifyd.render.replies import reply
from notifyd.store import Store
from notifyd.wire.codec import derived_id

_LABELS: Final = {Choice.APPROVED: "approve", Choice.REJECTED: "reject"}
_REF_LENGTH: Final = 32
"""Hex digits, 128 bits: what a vendor hands back with a button may be 64 bytes long, as Telegram's is."""


def answer_ref(event: Event, entry: PlanEntry) -> str:
    """What an answer to this message calls it."""
    return derived_id("answer", event.tenant, entry.delivery_id)[:_REF_LENGTH]


def buttons_of(
    event: Event, entry: PlanEntry, seen: Mapping[str, Any], registry: Registry
) -> tuple[Button, ...]:
    """One for each choice where the channel takes answers and the rule lets a message be decided by; else none.

    What is to be filled in, or decided on sign-in, is decided on the page.
    """
    if not registry.takes_answers(entry.channel, entry.channel_type):
        return ()
    rule = registry.rule(entry.rule)
    if rule is None or seen.get("inputs"):
        return ()
    if not (_lets_decide(rule, registry) and _asks(event, entry, seen, registry)):
        return ()
    ref = answer_ref(event, entry)
    return tuple(Button(reply(_LABELS[choice], [entry.locale]), choice.value, ref) for choice in Choice)


async def still_asks(delivery: Delivery, message: Message, store: Store, now: Instant) -> bool:
    """Can what `message` asks still be decided? By the time that it goes out it may be over, or asked for anew.

    Raises `StoreError`.
    """
    key = delivery.approval_key
    try:
        approval = await store.approval(key) if key else None
    except UndecodableRowError:
        return False
    if approval is None or approval.status.ended or approval.overdue(now):
        return False
    return bool(message.event.get("round") == approval.round)


def _lets_decide(rule: Rule, registry: Registry) -> bool:
    if registry.settings.approvals.links is not LinkMode.DECIDE or registry.proof(rule) is not Proof.LINK:
        return False
    return bool(rule.people) and Scope.APPROVE.value in rule.grants


def _asks(event: Event, entry: PlanEntry, seen: Mapping[str, Any], registry: Registry) -> bool:
    """Is somebody asked by it who may decide?"""
    if event.kind != APPROVAL_KIND or "planHash" not in seen:
        return False
    names = (entry.recipient, entry.on_behalf_of) if entry.personal else ()
    people = [name for name in names if name is not None]
    own = any(is_own_request(event, seen, name, registry) for name in people)
    listed = entry.recipient is not None and not entry.personal  # a list, whose readers nobody knows
    return not own and not listed and is_asked(event, seen, people, registry)
