"""Hours for approving, by the wall clock of their zone: `notifyd.config.windows`."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.config.windows import Window, open_together_at
from notifyd.model import SECOND, Instant

ZURICH = ZoneInfo("Europe/Zurich")


def at(text: str, zone: ZoneInfo = ZURICH, fold: int = 0) -> Instant:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("hours", "now", "opens"),
    [
        # Monday is 2026-11-30.
        ("Mon-Thu 09:00-16:00", "2026-11-30T09:00", None),
        ("Mon-Thu 09:00-16:00", "2026-11-30T08:59:59", "2026-11-30T09:00"),
        ("Mon-Thu 09:00-16:00", "2026-11-30T15:59:59", None),
        ("Mon-Thu 09:00-16:00", "2026-11-30T16:00", "2026-12-01T09:00"),
        ("Mon-Thu 09:00-16:00", "2026-12-03T16:00", "2026-12-07T09:00"),
        ("Fri 09:00-12:00", "2026-11-30T10:00", "2026-12-04T09:00"),
        ("09:00-12:00", "2026-12-06T11:00", None),
        ("Mon-Thu 09:00-16:00, Fri 09:00-12:00", "2026-12-04T11:00", None),
        ("Mon-Thu 09:00-16:00, Fri 09:00-12:00", "2026-12-04T13:00", "2026-12-07T09:00"),
        # Over midnight: it belongs to the day on which it begins.
        ("Fri 22:00-02:00", "2026-12-05T01:59", None),
        ("Fri 22:00-02:00", "2026-12-04T01:00", "2026-12-04T22:00"),
        ("Fri 22:00-02:00", "2026-12-05T02:00", "2026-12-11T22:00"),
        ("Sat-Mon 10:00-11:00", "2026-12-08T10:30", "2026-12-12T10:00"),
        ("Sat-Mon 10:00-11:00", "2026-12-07T10:30", None),
        ("00:00-24:00", "2026-12-07T00:00", None),
        ("Sun 12:00-24:00", "2026-12-06T23:59:59", None),
        ("Sun 12:00-24:00", "2026-12-07T00:00", "2026-12-13T12:00"),
    ],
)
def test_a_window_is_open_in_its_hours_and_else_tells_when_it_opens(
    hours: str, now: str, opens: str | None
) -> None:
    window = Window.parse(f"{hours} Europe/Zurich")
    assert window.opens_at(at(now)) == at(opens or now)


def test_hours_stay_those_of_the_wall_clock_when_the_clocks_change() -> None:
    window = Window.parse("09:00-10:00 Europe/Zurich")
    winter, summer = at("2026-03-28T09:00"), at("2026-03-29T09:00")
    assert summer - winter == 23 * 3600 * SECOND
    assert window.opens_at(at("2026-03-28T10:00")) == summer
    assert window.opens_at(at("2026-10-24T10:00")) == at("2026-10-25T09:00")


def test_an_hour_that_is_left_out_begins_with_the_change_and_one_that_comes_twice_is_the_first() -> None:
    gap = Window.parse("02:30-05:00 Europe/Zurich")
    assert gap.opens_at(at("2026-03-29T01:59")) == at("2026-03-29T03:00")
    swallowed = Window.parse("02:10-02:50 Europe/Zurich")
    assert swallowed.opens_at(at("2026-03-29T01:00")) == at("2026-03-30T02:10")
    twice = Window.parse("02:30-05:00 Europe/Zurich")
    assert twice.opens_at(at("2026-10-25T01:00")) == at("2026-10-25T02:30")
    assert twice.opens_at(now := at("2026-10-25T02:15", fold=1)) == now
    ending = Window.parse("01:00-02:30 Europe/Zurich")
    assert ending.opens_at(at("2026-10-25T02:15", fold=1)) == at("2026-10-26T01:00")


def test_a_range_takes_the_zone_of_the_next_where_it_has_none() -> None:
    window = Window.parse("Mon 09:00-10:00, Tue 09:00-10:00 Asia/Tokyo, Wed 09:00-10:00 Europe/Zurich")
    assert [one.zone for one in window.hours] == ["Asia/Tokyo", "Asia/Tokyo", "Europe/Zurich"]
    assert [sorted(one.days) for one in window.hours] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "must be days, hours and a time zone"),
        ("Mon-Thu", "must be days, hours and a time zone"),
        ("mon 09:00-16:00 Europe/Zurich", "must be days, hours and a time zone"),
        ("Mon 9:00-16:00 Europe/Zurich", "must be days, hours and a time zone"),
        ("Mon 09:00-25:00 Europe/Zurich", "must be days, hours and a time zone"),
        ("Mon 09:00-16:00 Europe/Zurich,", "must be days, hours and a time zone"),
        ("Mon 09:00-16:00", "must end with a time zone"),
        ("Mon 09:00-16:00 Europe/Atlantis", "has a time zone that is not known"),
        ("Mon 09:00-16:00 ../../etc/passwd", "has a time zone that is not known"),
        ("Mon 09:00-09:00 Europe/Zurich", "must end at another time"),
        ("Mon 24:00-02:00 Europe/Zurich", "must end at another time"),
    ],
)
def test_what_is_no_window_is_refused_with_a_sentence(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Window.parse(text)


def test_several_windows_are_open_together_or_never() -> None:
    morning = Window.parse("Mon-Fri 08:00-12:00 Europe/Zurich")
    tokyo = Window.parse("Mon-Fri 09:00-17:30 Asia/Tokyo")  # 01:00 to 09:30 in Zurich's winter
    assert open_together_at([morning, tokyo], at("2026-11-30T10:00")) == at("2026-12-01T08:00")
    assert open_together_at([morning, tokyo], now := at("2026-12-01T09:00")) == now
    assert open_together_at([], now) == now
    never = [Window.parse("Mon 08:00-09:00 Europe/Zurich"), Window.parse("Tue 08:00-09:00 Europe/Zurich")]
    assert open_together_at(never, now) is None


@given(
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.integers(at("2026-01-01T00:00") // SECOND, at("2027-12-31T00:00") // SECOND),
    st.sampled_from(["Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_whatever_the_window_what_opens_next_is_open_then_and_not_just_before(
    begins: int, ends: int, second: int, zone: str
) -> None:
    if begins == ends:
        return
    hours = "-".join(f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (begins, ends))
    window = Window.parse(f"{hours} {zone}")
    now = second * SECOND
    opens = window.opens_at(now)
    assert window.opens_at(opens) == opens
    assert now <= opens < now + timedelta(days=3) // timedelta(microseconds=1)
    if opens > now:
        assert window.opens_at(opens - SECOND) == opens
