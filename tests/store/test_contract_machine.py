"""The approval machine over each store: whatever is decided, what is read back is what was written."""

from __future__ import annotations

from random import Random

import pytest
from attrs import evolve

from notifyd.approval.ballots import Ballot, cast, check_ballot, check_grants
from notifyd.approval.quorum import progress
from notifyd.errors import NotifydError
from notifyd.model import Approval, Choice, Group, Input, InputType, Via
from notifyd.store import Store
from tests.store.makers import NOW, approval, find_approval, open_approval

ACTORS = tuple(f"{name}@acme.example" for name in ("alice", "bob", "carol", "dan", "ci"))
GROUPS = (Group("Security", "sec", 1), Group("Operations", "ops", 2))
INPUTS = (
    Input("version", "Version", InputType.TEXT, True, "v[0-9]", (), None),
    Input("share", "Share", InputType.NUMBER, False, None, (), 0.5),
    Input("$where.x", "Where", InputType.CHOICE, False, None, ("eu", "us"), "eu"),
)


def asked(dice: Random) -> Approval:
    groups = dice.choice(((), GROUPS))
    required = max(dice.randint(1, 4), sum(group.required for group in groups))
    return approval(required_approvals=required, groups=groups, inputs=dice.choice(((), INPUTS)))


def ballot(dice: Random, stored: Approval) -> Ballot:
    actor, person = dice.sample(ACTORS, 2)
    inputs = {"version": dice.choice(("v1", "v1", "v2", "x")), "share": dice.choice((1, None))}
    return Ballot(
        tenant=stored.tenant,
        run_id=stored.run_id,
        approval_id=stored.approval_id,
        choice=Choice.REJECTED if dice.random() < 0.1 else Choice.APPROVED,
        plan_hash=stored.plan_hash,
        actor=actor,
        comment="why",
        via=Via.CLIENT,
        client="console",
        grants=frozenset(("Packs.Approve", *dice.sample(("sec", "ops", "Packs.BreakGlass"), 2))),
        correlation_id="corr",
        break_glass=dice.random() < 0.1,
        inputs=inputs if stored.inputs else {},
        on_behalf_of=person if dice.random() < 0.3 else "",
    )


def decided(stored: Approval, given: Ballot) -> Approval | None:
    """`stored` with the ballot, None where it is refused."""
    given = given if given.choice is Choice.APPROVED else evolve(given, inputs={})
    try:
        check_grants(stored, given)
        check_ballot(stored, given, NOW, allow_self=False, canonical=str)
    except NotifydError:
        return None
    return cast(stored, given, NOW)


@pytest.mark.parametrize("seed", range(4))
async def test_decisions_over_a_store_come_to_what_they_come_to_without_one(store: Store, seed: int) -> None:
    dice = Random(seed)  # noqa: S311 - a test's dice
    expected = await open_approval(store, asked(dice))
    for _ in range(12):
        given, stored = ballot(dice, expected), await find_approval(store)
        after = decided(stored, given)
        assert after == decided(expected, given)
        if after is not None:
            assert await store.replace_approval(after)
            expected = after
    read = await find_approval(store)
    assert (read, progress(read)) == (expected, progress(expected))
