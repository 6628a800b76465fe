"""Rules between the members of one event, which no schema expresses. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from notifyd.errors import Fault
from notifyd.text import as_read, blank
from notifyd.wire.events import MAX_APPROVALS, MAX_GROUPS, MAX_LINKS, PackEvent
from notifyd.wire.records import pointer


def faults_together(event: PackEvent) -> Iterator[Fault]:
    """Every fault between members that are each well-formed."""
    yield from _group_faults(event)
    if len(event.links) > MAX_LINKS:
        yield Fault("/links", f"must not have more than {MAX_LINKS} items")


def _group_faults(event: PackEvent) -> Iterator[Fault]:
    groups = event.approval_groups
    if not groups:
        return
    if len(groups) > MAX_GROUPS:
        yield Fault("/approvalGroups", f"must not have more than {MAX_GROUPS} items")
    if sum(group.required for group in groups) > MAX_APPROVALS:
        yield Fault("/approvalGroups", f"must not require more than {MAX_APPROVALS} people together")
    seen: set[str] = set()
    for index, name in enumerate(as_read(group.name) for group in groups):
        if blank(name):
            yield Fault(pointer("approvalGroups", index, "name"), "must not be blank")
        elif name in seen:
            yield Fault(pointer("approvalGroups", index, "name"), "is the name of an earlier group too")
        seen.add(name)
