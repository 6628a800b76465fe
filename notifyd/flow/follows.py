"""Which message a later one about the same approval belongs below, in channels that have threads."""

from __future__ import annotations

from typing import Final

from notifyd.approval.timers import Timed
from notifyd.model import APPROVAL_KIND, Delivery
from notifyd.store import Store

_REQUESTED: Final = "requested"
_ASKING: Final = (_REQUESTED, *Timed)
"""What is to be seen by itself: of a reply in a thread nobody need be told."""


async def followed(delivery: Delivery, store: Store) -> str:
    """The `sent_ref` of the newest request before it over the same channel to the same reader, "" where there is
    none, or where the message asks itself. Raises `StoreError`."""
    key = delivery.approval_key
    if key is None or delivery.kind != APPROVAL_KIND or delivery.action in _ASKING:
        return ""
    copies = await store.copies(key)
    return next((one.sent_ref for one in copies if _is_its_request(one, delivery) and one.sent_ref), "")


def _is_its_request(one: Delivery, of: Delivery) -> bool:
    same = (one.channel, one.recipient) == (of.channel, of.recipient)
    return same and one.action == _REQUESTED and one.seq < of.seq
