"""Who counts in which group: as many as any assignment of people to groups can have."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from notifyd.approval.quorum import assigned, progress, reached
from notifyd.model import Approval, Choice, Group
from tests.store.makers import approval, decision

NAMES = ("security", "operations", "data")
SECURITY, OPERATIONS = Group("security", "g1", 1), Group("operations", "g2", 2)

groups = st.lists(
    st.builds(Group, st.sampled_from(NAMES), st.just("grant"), st.integers(1, 3)),
    max_size=3,
    unique_by=lambda group: group.name,
)
approvers = st.dictionaries(
    st.sampled_from("abcde"), st.lists(st.sampled_from(NAMES), unique=True).map(tuple), max_size=5
)


def most(wanted: list[Group], people: dict[str, tuple[str, ...]]) -> int:
    """How many people any assignment places, found by trying all."""
    best = 0
    for chosen in product(*((None, *eligible) for eligible in people.values())):
        placed = [sum(name == group.name for name in chosen) for group in wanted]
        if all(count <= group.required for count, group in zip(placed, wanted, strict=True)):
            best = max(best, sum(placed))
    return best


@settings(max_examples=100)
@given(groups, approvers)
def test_as_many_people_count_as_in_the_best_of_all_assignments(
    wanted: list[Group], people: dict[str, tuple[str, ...]]
) -> None:
    places = assigned(wanted, people)
    placed = [person for group in wanted for person in places[group.name]]
    assert len(placed) == len(set(placed)) == most(wanted, people)
    for group in wanted:
        assert len(places[group.name]) <= group.required
        assert all(group.name in people[person] for person in places[group.name])


def asked(*voters: tuple[str, tuple[str, ...]], required: int = 3) -> Approval:
    decisions = tuple(decision(actor, groups=groups) for actor, groups in voters)
    return approval(groups=(SECURITY, OPERATIONS), required_approvals=required, decisions=decisions)


BOTH = ("security", "operations")


def test_a_person_of_two_groups_makes_room_for_one_who_is_in_one_of_them_alone() -> None:
    told = progress(asked(("alice", BOTH), ("bob", ("security",))))
    assert [(one["name"], one["actors"]) for one in told["groups"]] == [
        ("security", ["bob"]),
        ("operations", ["alice"]),
    ]
    assert (told["received"], told["required"]) == (2, 3)


def test_who_broke_the_glass_counts_in_the_groups_that_they_had_approved_in() -> None:
    told = progress(asked(("alice", ("security",)), ("alice", ())))
    assert (told["received"], told["groups"][0]["actors"]) == (1, ["alice"])


def test_a_person_counts_in_one_group_only() -> None:
    assert not reached(asked(("alice", BOTH), ("bob", BOTH)))
    assert reached(asked(("alice", BOTH), ("bob", BOTH), ("carol", ("operations",))))


def test_approvals_beyond_what_a_group_has_room_for_fill_no_other_group() -> None:
    crowd = [(name, ("operations",)) for name in ("alice", "bob", "carol", "dan")]
    told = progress(asked(*crowd))
    assert (told["received"], told["required"]) == (2, 3)
    assert not reached(asked(*crowd))


def test_where_more_are_required_than_the_groups_are_the_rest_may_be_of_any_of_them() -> None:
    four = [(name, ("operations",)) for name in ("alice", "bob", "carol")] + [("dan", ("security",))]
    assert reached(asked(*four, required=4))
    assert not reached(asked(*four[1:], required=4))


def test_who_rejected_counts_in_no_group() -> None:
    voted = decision("alice", choice=Choice.REJECTED, groups=("security",))
    told = progress(approval(groups=(SECURITY,), decisions=(voted,)))
    assert (told["received"], told["groups"][0]["actors"]) == (0, [])
