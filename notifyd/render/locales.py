"""Locales and what depends on them: fallback chains, and dates and numbers as a reader writes them.

A locale is named by a BCP 47 tag (`de-CH`); `de_CH` is read too. Data are those of CLDR, through Babel.
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import define, field
from babel import Locale, UnknownLocaleError
from babel.dates import DateTimePattern, get_timezone_name, parse_pattern
from babel.numbers import format_decimal, get_group_symbol
from babel.units import format_unit

from notifyd.model import SECOND, Instant

_TAG: Final = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")
_DIGITS: Final = re.compile(r"[0-9]+")
# From here on JavaScript writes an exponent too; Babel fails where more than 28 digits are to be kept.
_LARGEST: Final = 10**21
_UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_UTC: Final = ZoneInfo("UTC")
# What sets off thousands in Switzerland and Liechtenstein, in every language. CLDR's data changed with release 48
# (CLDR-13542) from U+2019, or a narrow space in French, to the ASCII apostrophe. Babel takes two of those for the
# quotes of a pattern and drops them: 1'234'567 becomes 1234567. So groups are made here.
_APOSTROPHE: Final = "\N{RIGHT SINGLE QUOTATION MARK}"
_APOSTROPHE_TERRITORIES: Final = ("CH", "LI")
# Where a locale's data lack a form, CLDR's root says which one to take instead, in this order. Babel does not
# always do so: two units were a KeyError in Spanish, three in Arabic; a Japanese day was a "duration-day".
_LENGTHS: Final = ("long", "short", "narrow")
_LIST_STYLES: Final = ("unit", "unit-short", "standard")


@lru_cache(maxsize=256)
def parse_locale(tag: str) -> Locale | None:
    """The locale of `tag`, or of its longest valid beginning (`de-XX` is `de`); None where none is."""
    if not _TAG.fullmatch(tag):
        return None
    parts = re.split("[-_]", tag)
    for end in range(len(parts), 0, -1):
        try:
            return Locale.parse("_".join(parts[:end]))
        except (ValueError, UnknownLocaleError):
            continue
    return None


def tag_of(locale: Locale) -> str:
    """`de-CH`: language, script and territory, as far as the locale names them."""
    return "-".join(part for part in (locale.language, locale.script, locale.territory) if part)


def fallbacks(tag: str) -> tuple[str, ...]:
    """`de-CH` gives `("de-CH", "de")`: from the most to the least specific."""
    parts = tag.split("-")
    return tuple("-".join(parts[:end]) for end in range(len(parts), 0, -1))


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    """The zone called `name`, or UTC where there is none. A written time names its zone, so it stays true."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        return _UTC


def _group_symbol(locale: Locale) -> str:
    symbol = get_group_symbol(locale)
    if symbol == "'" or locale.territory in _APOSTROPHE_TERRITORIES:
        return _APOSTROPHE
    return symbol


def _pair_pattern(locale: Locale) -> str:
    """How two quantities are joined: `{0}, {1}`."""
    patterns = (locale.list_patterns.get(style, {}) for style in _LIST_STYLES)
    return str(next((pattern["2"] for pattern in patterns if "2" in pattern), "{0}, {1}"))


def _format_unit(count: int, unit: str, locale: Locale) -> str:
    """`3 Tage`, its number without groups; the unit's own name where the locale has no word for it."""
    written = (format_unit(count, unit, length, format="0", locale=locale) for length in _LENGTHS)
    return next((text for text in written if unit not in text), f"{count} {unit.partition('-')[2]}")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    return value == value and -_LARGEST < value < _LARGEST  # a NaN differs from itself


class WrittenTime(str):
    """A time as one reader writes it, and `at`, when that is, in microseconds since the epoch."""

    __slots__ = ("at",)
    at: Instant

    def __new__(cls, text: str, at: Instant) -> WrittenTime:
        made = super().__new__(cls, text)
        made.at = at
        return made


def plural_category(count: Any, tag: str) -> str:
    """CLDR's plural category of a number in a language; `other` for what is no number."""
    locale = parse_locale(tag)
    return str(locale.plural_form(count)) if locale is not None and _is_number(count) else "other"


@lru_cache(maxsize=256)
def formats_for(tag: str, zone: str) -> Formats:
    """The formats for a locale and a zone. A tag that is no locale counts as `en`."""
    return Formats(parse_locale(tag) or Locale("en"), _zone(zone))


@define(eq=False)
class Formats:
    """How one reader writes dates and numbers.

    A value that is not of the kind asked for is given back as text, never refused: values come from events.
    """

    locale: Locale
    zone: ZoneInfo
    direction: str = field(init=False)
    """`ltr` or `rtl`."""
    _date: DateTimePattern = field(init=False)
    _time: DateTimePattern = field(init=False)
    _glue: str = field(init=False)
    _group_sizes: tuple[int, int] = field(init=False)
    _group_symbol: str = field(init=False)
    _pair: str = field(init=False)
    _zone_names: dict[tuple[str | None, dt.timedelta | None], str] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.direction = str(self.locale.text_direction)
        self._date = parse_pattern(self.locale.date_formats["long"])
        self._time = parse_pattern(self.locale.time_formats["short"])
        self._glue = str(self.locale.datetime_formats["long"]).replace("'", "")
        self._group_sizes = self.locale.decimal_formats[None].grouping
        self._group_symbol = _group_symbol(self.locale)
        self._pair = _pair_pattern(self.locale)

    def datetime(self, value: Any) -> str:
        """Date, time to the minute, and zone: `2. November 2026, 09:15 MEZ`. The text keeps the instant."""
        moment = self._moment(value)
        if moment is None:
            return str(value)
        # All that is shown of a time, and what tells the two hours apart that a zone repeats in autumn.
        written = _minute(self, moment.replace(second=0, microsecond=0, tzinfo=None), moment.fold)
        return WrittenTime(written, round(moment.timestamp()) * SECOND)

    def date(self, value: Any) -> str:
        """The day in the reader's zone. A plain date (`2026-11-02`) has no zone and stays the same day."""
        if isinstance(value, str) and len(value) == 10:
            try:
                return self._day(dt.date.fromisoformat(value))
            except ValueError:
                return value
        moment = self._moment(value)
        return str(value) if moment is None else self._day(moment)

    def time(self, value: Any) -> str:
        moment = self._moment(value)
        return str(value) if moment is None else self._clock(moment)

    def number(self, value: Any) -> str:
        if not _is_number(value):
            return str(value)
        return self._grouped(format_decimal(value, locale=self.locale, group_separator=False))

    def duration(self, value: Any) -> str:
        """Seconds (or a timedelta) in its two largest units: `1 Stunde, 30 Minuten`."""
        if isinstance(value, dt.timedelta):
            value = value.total_seconds()
        if not _is_number(value):
            return str(value)
        parts, rest = [], int(abs(value))
        for unit, seconds in _UNITS:
            count, rest = divmod(rest, seconds)
            if count:
                parts.append(self._quantity(count, unit))
        if len(parts) > 1:
            return self._pair.format(*parts[:2])
        return parts[0] if parts else self._quantity(0, "second")

    def to_the_minute(self, moment: dt.datetime) -> str:
        """The text that `datetime` writes for a time in this zone."""
        return self._glue.format(self._clock(moment), self._day(moment))

    def _quantity(self, count: int, unit: str) -> str:
        return self._grouped(_format_unit(count, f"duration-{unit}", self.locale))

    def _grouped(self, text: str) -> str:
        """`text` with its first run of digits grouped: the whole part of a number."""
        return _DIGITS.sub(lambda run: self._in_groups(run.group()), text, count=1)

    def _in_groups(self, digits: str) -> str:
        """`digits` in groups. The last group has its own size: `12,34,567` in India."""
        size, further = self._group_sizes
        groups: list[str] = []
        while len(digits) > size:
            digits, group = digits[:-size], digits[-size:]
            groups.insert(0, group)
            size = further
        return self._group_symbol.join([digits, *groups])

    def _day(self, moment: dt.date) -> str:
        return self._date.apply(moment, self.locale)

    def _clock(self, moment: dt.datetime) -> str:
        return f"{self._time.apply(moment, self.locale)} {self._zone_name(moment)}"

    def _zone_name(self, moment: dt.datetime) -> str:
        key = (moment.tzname(), moment.utcoffset())
        name = self._zone_names.get(key)
        if name is None:
            name = get_timezone_name(moment, width="short", locale=self.locale)
            if re.fullmatch(r"[+-]\d{4}", name):
                name = f"UTC{name[:3]}:{name[3:]}"
            self._zone_names[key] = name
        return name

    def _moment(self, value: Any) -> dt.datetime | None:
        """The instant of RFC 3339 text, microseconds since the epoch, or a datetime; a naive one is UTC."""
        try:
            if isinstance(value, str):
                value = dt.datetime.fromisoformat(value)
            elif isinstance(value, int) and not isinstance(value, bool):
                value = dt.datetime.fromtimestamp(value // SECOND, dt.UTC)
            if not isinstance(value, dt.datetime):
                return None
            return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).astimezone(self.zone)
        except (ValueError, OverflowError, OSError):
            return None


@lru_cache(maxsize=4096)
def _minute(formats: Formats, local: dt.datetime, fold: int) -> str:
    """A local time as text, cached: messages' times lie close together, and formatting is slow."""
    return formats.to_the_minute(local.replace(tzinfo=formats.zone, fold=fold))
