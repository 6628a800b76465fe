"""Small things of the console: ages, sizes, and what it remembers of sessions that were ended."""

from __future__ import annotations

import pytest

from notifyd.security.sign_in import Session
from notifyd.web.console import session
from notifyd.web.console.html import write_age, write_size, write_time
from notifyd.web.console.session import Ended


def test_an_age_is_told_in_the_largest_unit_of_which_there_are_two() -> None:
    ages = {0.9: "0 s", 119: "119 s", 120: "2 min", 7_199: "119 min", 7_200: "2 h", 172_800: "2 days"}
    assert {seconds: write_age(seconds) for seconds in ages} == ages


def test_a_size_is_told_in_a_unit_that_leaves_few_digits() -> None:
    sizes = {0: "0 B", 2048: "2 KiB", 68 * 1024**3: "68 GiB", 3 * 1024**4: "3.0 TiB"}
    assert {count: write_size(count) for count in sizes} == sizes


def test_a_time_is_told_in_utc_wherever_it_was_written() -> None:
    assert write_time("2026-11-29T14:07:52.123+01:00") == "2026-11-29 13:07:52"
    assert write_time(None) == ""


def test_sessions_that_were_ended_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_REMEMBERED", 2)
    ended, sessions = Ended(), [Session(str(n), "token", "n", "", "t", 0) for n in range(3)]
    for one in sessions:
        ended.add(one)
    assert [one in ended for one in sessions] == [False, True, True]
