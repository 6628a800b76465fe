"""The progress of an approval: who counts, and towards which of its groups. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from notifyd.model import Approval, Choice, Group


def assigned(groups: Sequence[Group], approvers: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Who counts in which group, by the groups' names: as many people as can, each in one group.

    `approvers` has the people who approve, each with the names of the groups they may count in. A maximum
    bipartite matching by augmenting paths: to make room for a person, those already placed move to another group.
    """
    places: dict[str, list[str]] = {group.name: [] for group in groups}
    room = {group.name: group.required for group in groups}

    def place(person: str, tried: set[str]) -> bool:
        for name in approvers[person]:
            if name in tried or name not in places:
                continue
            tried.add(name)
            if len(places[name]) < room[name]:
                places[name].append(person)
                return True
            for index, other in enumerate(places[name]):
                if place(other, tried):
                    places[name][index] = person
                    return True
        return False

    for person in approvers:
        place(person, set())
    return places


def progress(approval: Approval) -> dict[str, Any]:
    """`required` and `received`, and of each group who counts in it, where the approval has groups.

    Of more approvals than its groups have room for, `received` counts as many as are required beyond the groups.
    """
    approvers: dict[str, list[str]] = {}
    for one in approval.decisions:  # of somebody who has approved and then broken the glass there are two
        if one.choice is Choice.APPROVED:
            approvers.setdefault(one.actor, []).extend(one.groups)
    if not approval.groups:
        return {"required": approval.required_approvals, "received": len(approvers)}
    places = assigned(approval.groups, approvers)
    placed = sum(map(len, places.values()))
    beyond = approval.required_approvals - sum(group.required for group in approval.groups)
    return {
        "required": approval.required_approvals,
        "received": placed + min(len(approvers) - placed, beyond),
        "groups": [
            {
                "name": group.name,
                "required": group.required,
                "received": len(places[group.name]),
                "actors": sorted(places[group.name]),
            }
            for group in approval.groups
        ],
    }


def reached(approval: Approval) -> bool:
    """Have enough people approved, in each group and in all?"""
    counted = progress(approval)
    return bool(counted["received"] >= counted["required"])
