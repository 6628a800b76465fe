"""Hours by a wall clock: a window for approving, such as `Mon-Thu 09:00-16:00 Europe/Zurich`, and quiet hours.

A time that clocks set forward leave out is when they are set; one that comes twice, as they are set back, is its
first. So each range has one beginning and one end on each day, whoever asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from typing import Final, Self
from zoneinfo import ZoneInfo

from attrs import field, frozen

from notifyd.model import SECOND, Instant

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY: Final = f"({'|'.join(_DAYS)})"
_TIME: Final = r"((?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00)"
_RANGE: Final = re.compile(rf"(?:{_DAY}(?:-{_DAY})? )?{_TIME}-{_TIME}(?: (\S+))?")
_MIDNIGHT: Final = 24 * 60
_AHEAD: Final = 15
"""Days to look ahead: a week, and another where the clocks leave out all of a range."""
_TURNS: Final = 200
"""How often several windows may open one after the other before they count as never open together."""


@frozen
class Hours:
    """A range of hours on some days of the week, 0 for Monday, in minutes since midnight.

    One that ends past midnight, such as `22:00-02:00`, belongs to the day on which it begins.
    """

    days: frozenset[int]
    begins: int
    ends: int
    zone: str

    @classmethod
    def daily(cls, begins: str, ends: str, zone: str) -> Self:
        """Every day from one time to another, both as `HH:MM`."""
        return cls(frozenset(range(7)), *_minutes(begins, ends), zone)

    def closes_at(self, now: Instant) -> Instant | None:
        """When the range that `now` lies in is over; None outside."""
        return next((ends for begins, ends in self.around(now) if begins <= now < ends), None)

    def around(self, now: Instant) -> Iterable[tuple[Instant, Instant]]:
        """Beginning and end of each time from the day before `now` on, in order."""
        zone = ZoneInfo(self.zone)
        today = datetime.fromtimestamp(now / SECOND, zone).date()
        for day in (today + timedelta(days=ahead) for ahead in range(-1, _AHEAD)):
            if day.weekday() in self.days:
                yield _instant(day, self.begins, zone), _instant(day, self.ends, zone)


@frozen
class Window:
    """`text` is how the configuration writes it."""

    text: str
    hours: tuple[Hours, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with a sentence that does not repeat `text`."""
        zone, hours = "", list[Hours]()
        for part in reversed(text.split(",")):
            found = _RANGE.fullmatch(part.strip())
            if found is None:
                raise ValueError(
                    'must be days, hours and a time zone, such as "Mon-Thu 09:00-16:00 Europe/Zurich";'
                    " commas part several"
                )
            zone = found[5] or zone
            hours.append(Hours(_days(found[1], found[2]), *_minutes(found[3], found[4]), _known_zone(zone)))
        return cls(text, tuple(reversed(hours)))

    def opens_at(self, now: Instant) -> Instant:
        """`now` where it is open; else when it opens next."""
        times = [one for hours in self.hours for one in hours.around(now) if one[0] < one[1]]
        if any(begins <= now < ends for begins, ends in times):
            return now
        return min(begins for begins, _ in times if begins > now)


def open_together_at(windows: Iterable[Window], now: Instant) -> Instant | None:
    """`now` where all are open; else when all are open next, None where they never are together."""
    at, every = now, list(windows)
    for _ in range(_TURNS):
        later = max((window.opens_at(at) for window in every), default=at)
        if later == at:
            return at
        at = later
    return None


def _days(first: str | None, last: str | None) -> frozenset[int]:
    """Every day where none is named; `Sat-Mon` goes over the end of the week."""
    if first is None:
        return frozenset(range(7))
    begins, ends = _DAYS.index(first), _DAYS.index(last or first)
    return frozenset((begins + step) % 7 for step in range((ends - begins) % 7 + 1))


def _minutes(begins: str, ends: str) -> tuple[int, int]:
    first, last = _since_midnight(begins), _since_midnight(ends)
    if first in (last, _MIDNIGHT):
        raise ValueError('must end at another time than it begins at; a whole day is "00:00-24:00"')
    return first, last if first < last else last + _MIDNIGHT


def _since_midnight(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _known_zone(name: str) -> str:
    if not name:
        raise ValueError('must end with a time zone, such as "Europe/Zurich"')
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        raise ValueError('has a time zone that is not known; it is written as in "Europe/Zurich"') from None


def _instant(day: date, minutes: int, zone: ZoneInfo) -> Instant:
    """When the wall clock first shows so many minutes after the midnight that `day` begins with."""
    days, rest = divmod(minutes, _MIDNIGHT)
    local = datetime.combine(day + timedelta(days=days), time(*divmod(rest, 60)), zone)
    at = int(local.timestamp())
    if datetime.fromtimestamp(at, zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        at = _change_of_clocks(int(local.replace(fold=1).timestamp()), at, zone)
    return at * SECOND


def _change_of_clocks(before: int, after: int, zone: ZoneInfo) -> int:
    """The second at which the clocks change, between two that lie on both sides of it."""
    old = datetime.fromtimestamp(before, zone).utcoffset()
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after
