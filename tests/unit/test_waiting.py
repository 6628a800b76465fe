"""Counts by tenant: never below zero, and whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from notifyd.flow.waiting import Waiting

changes = st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abc"), st.integers(-3, 3)), max_size=40)


@given(changes)
def test_parts_make_the_whole_and_nothing_is_below_zero(made: list[tuple[int, str, int]]) -> None:
    whole = Waiting()
    parts = [Waiting(whole), Waiting(whole)]
    for part, tenant, count in made:
        parts[part].add(tenant, count)
    for tenant in "abc":
        assert whole.of(tenant) == sum(part.of(tenant) for part in parts) >= 0
    assert whole.total == sum(part.total for part in parts) == sum(map(whole.of, "abc"))
    assert whole.tenants() == {tenant for tenant in "abc" if whole.of(tenant)}
    parts[0].reset({"a": 5})
    assert whole.of("a") == 5 + parts[1].of("a")
    assert (parts[0].total, parts[0].tenants()) == (5, frozenset("a"))


def test_what_is_not_there_is_not_taken_away() -> None:
    waiting = Waiting()
    waiting.add("acme")
    waiting.add("acme", -3)
    waiting.add("globex", -1)
    assert (waiting.total, waiting.of("acme"), waiting.tenants()) == (0, 0, frozenset())
