"""Members of `event` in a `when` or a `group_by` that are rather a slip of the pen, such as `event.planhash`.

What an event may hold is open, since a CloudEvent brings attributes of its own. So only a name that is near to one
there is, and not that, is told of.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from notifyd.rules.cost import read
from notifyd.rules.expression import EVENT
from notifyd.wire.events import PACK_EVENTS, CloudEvent, MessageWish, Policy, Tenant
from notifyd.wire.records import wire_name

_NEAR: Final = 0.8
"""How alike two names are, from 0 to 1, of which one is rather the other misspelt."""

_OF_OUR_OWN: Final = frozenset(
    {
        *("kind", "action", "round", "correlationId", "changes"),
        *("approvals", "decision", "comment", "onBehalfOf", "timer"),
    }
)
"""The members that notifyd puts beside what was sent."""


def _names(*records: type[Any]) -> frozenset[str]:
    return frozenset(wire_name(attribute) for record in records for attribute in attrs.fields(record))


_KNOWN: Final = _names(*PACK_EVENTS.values(), CloudEvent) - {"-"} | _OF_OUR_OWN
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "tenant": _names(Tenant),
    "message": _names(MessageWish),
    "policy": _names(Policy),
}
_PLAIN: Final = frozenset(
    {"kind", "action", "type", "id", "eventId", "runId", "approvalId", "packId", "planHash"}
)
"""Members that hold text, whatever the event."""


def misspelt(when: str) -> Iterator[str]:
    """A sentence for each member that is rather another misspelt. `when` must compile."""
    paths = (path.members for path in read(when)[0].all_paths() if path.root == EVENT and path.members)
    for members in dict.fromkeys(paths):
        yield from _slips(members, f"{EVENT}.")


def misspelt_path(path: str) -> Iterator[str]:
    """The same of a path into the event, such as `labels.environment`."""
    members = path.split(".")
    if members[0] == EVENT:
        yield f"a path begins within the event: write `{'.'.join(members[1:]) or 'kind'}`"
        return
    yield from _slips(members, "")
    if len(members) > 1 and members[0] in _PLAIN:
        yield f"`{members[0]}` is a single value: it has no `{members[1]}`"


def _slips(members: Sequence[str], before: str) -> Iterator[str]:
    name, *inner = members
    yield from _told(before, name, _KNOWN)
    if inner and name in _MEMBERS:
        yield from _told(f"{before}{name}.", inner[0], _MEMBERS[name])


def _told(before: str, name: str, known: Collection[str]) -> Iterator[str]:
    near = difflib.get_close_matches(name.lower(), [one.lower() for one in known], n=1, cutoff=_NEAR)
    if name not in known and near:
        meant = next(one for one in sorted(known) if one.lower() == near[0])
        yield f"`{before}{name}` is nothing that notifyd knows of an event; did you mean `{before}{meant}`?"
