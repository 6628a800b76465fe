"""Which message a later one about the same approval belongs below, in channels that have threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from notifyd.approval.timers import Timed
from notifyd.errors import UndecodableRowError
from notifyd.model import APPROVAL_KIND, POLICY_KIND, Delivery
from notifyd.store import Store

_REQUESTED: Final = "requested"
_HOLD: Final = "hold"
_ASKING: Final = (_REQUESTED, *Timed)
"""What is to be seen by itself: of a reply in a thread nobody need be told."""


async def followed(delivery: Delivery, store: Store) -> str:
    """The `sent_ref` of the newest request before it over the same channel to the same reader, "" where there is
    none, or where the message asks itself.

    A policy's hold and release go below the approval's request too; without one, a release goes below its hold.
    Raises `StoreError`.
    """
    key = delivery.approval_key
    if key is None or delivery.kind not in (APPROVAL_KIND, POLICY_KIND) or delivery.action in _ASKING:
        return ""
    copies = [one for one in await store.copies(key) if _is_elder(one, delivery)]
    request = next((one.sent_ref for one in copies if one.action == _REQUESTED), "")
    if request or delivery.kind != POLICY_KIND or delivery.action == _HOLD:
        return request
    return await _hold_of(delivery, copies, store)


def _is_elder(one: Delivery, of: Delivery) -> bool:
    """Was it sent to the same reader before? Of an approval versions tell; a hold counts its own."""
    if (one.channel, one.recipient) != (of.channel, of.recipient) or not one.sent_ref:
        return False
    return one.seq < of.seq if one.kind == of.kind else one.created_at <= of.created_at


async def _hold_of(release: Delivery, copies: Sequence[Delivery], store: Store) -> str:
    """The `sent_ref` of the newest hold by the same policy."""
    policy = await _policy(release, store)
    for one in copies:
        if policy is not None and one.action == _HOLD and await _policy(one, store) == policy:
            return one.sent_ref
    return ""


async def _policy(delivery: Delivery, store: Store) -> Any:
    """The id of the policy that it tells of, None where its event is gone or cannot be read."""
    try:
        event = await store.event(delivery.tenant, delivery.event_key)
    except UndecodableRowError:
        return None
    return orjson.loads(event.body)["policy"]["id"] if event else None
