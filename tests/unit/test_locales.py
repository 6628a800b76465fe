"""Locales: which tags are read, what they fall back to, and how dates and numbers are written in them."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from babel import Locale
from babel.dates import format_date, format_time

from notifyd.render import locales
from notifyd.render.locales import Formats, fallbacks, formats_for, parse_locale, plural_category, tag_of

MORNING = "2026-11-04T08:15:30.5Z"
INSTANT = 1_793_780_130_500_000  # the same in microseconds


@pytest.mark.parametrize(
    ("tag", "read_as"),
    [
        ("de", "de"),
        ("de-CH", "de-CH"),
        ("de_ch", "de-CH"),
        ("DE-ch", "de-CH"),
        ("de-XX", "de"),
        ("de-CH-1996", "de-CH"),
        ("sr-Latn-RS", "sr-Latn-RS"),
        ("zh-TW", "zh-Hant-TW"),
        ("en-001", "en-001"),
    ],
)
def test_tag_is_read_as_its_longest_valid_beginning(tag: str, read_as: str) -> None:
    locale = parse_locale(tag)
    assert locale is not None
    assert tag_of(locale) == read_as


@pytest.mark.parametrize(
    "tag", ["", "x", "xx", "tlh-XX", "../../etc", "de.CH", "d" * 10_000, "de--CH", "C", "1", "de\n"]
)
def test_what_is_no_locale_is_none(tag: str) -> None:
    assert parse_locale(tag) is None


def test_fallbacks_go_from_the_most_to_the_least_specific() -> None:
    assert fallbacks("zh-Hant-TW") == ("zh-Hant-TW", "zh-Hant", "zh")
    assert fallbacks("de") == ("de",)


# How a date, a time and a zone are written is Babel's to say, and changes with CLDR's releases. What is put
# together of them, in which language and zone, is notifyd's.


@pytest.mark.parametrize(
    "value", [MORNING, INSTANT, dt.datetime.fromisoformat(MORNING[:19]), "2026-11-04T10:15:30+02:00"]
)
def test_a_time_is_text_microseconds_or_a_datetime(value: Any) -> None:
    formats = formats_for("en-GB", "Europe/London")
    assert formats.datetime(value) == formats.datetime(MORNING)
    assert "08:15" in formats.datetime(value)


@pytest.mark.parametrize(
    ("tag", "zone", "clock"),
    [
        ("en", "UTC", "8:15"),
        ("en-GB", "Europe/Zurich", "09:15"),
        ("de-CH", "Europe/Zurich", "09:15"),
        ("de", "Asia/Tokyo", "17:15"),
        ("fr", "America/Sao_Paulo", "05:15"),
        ("ja", "Pacific/Kiritimati", "22:15"),
    ],
)
def test_times_are_in_the_readers_words_and_zone(tag: str, zone: str, clock: str) -> None:
    formats, locale = formats_for(tag, zone), Locale.parse(tag, sep="-")
    there = dt.datetime.fromisoformat(MORNING).astimezone(ZoneInfo(zone))
    assert formats.date(MORNING) == format_date(there, "long", locale=locale)
    time = formats.time(MORNING)
    assert time.startswith(format_time(there, "short", locale=locale) + " ")
    assert clock in time
    assert re.fullmatch(
        rf"{re.escape(formats.date(MORNING))}[\w ,]+{re.escape(time)}", formats.datetime(MORNING)
    )


@pytest.mark.parametrize(
    ("tag", "zone", "name"),
    [
        ("de", "Asia/Tokyo", "UTC+09:00"),
        ("fr", "America/Sao_Paulo", "UTC-03:00"),
        ("ja", "Pacific/Kiritimati", "UTC+14:00"),
        ("en", "UTC", "UTC"),
    ],
)
def test_a_zone_without_a_short_name_is_told_by_its_offset(tag: str, zone: str, name: str) -> None:
    assert formats_for(tag, zone).time(MORNING).endswith(f" {name}")


def test_the_hour_that_comes_twice_in_autumn_is_told_apart_however_often_it_is_written() -> None:
    formats = formats_for("de-CH", "Europe/Zurich")
    for _ in range(2):
        summer, winter = formats.datetime("2026-10-25T00:30:59Z"), formats.datetime("2026-10-25T01:30:00Z")
        assert summer != winter
        assert summer.rpartition(" ")[0] == winter.rpartition(" ")[0] != ""
        assert "02:30" in summer


def test_a_plain_date_is_not_moved_to_another_day() -> None:
    assert formats_for("en-GB", "America/New_York").date("2026-11-04").startswith("4 ")


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "UTC\n", "Europe"])
def test_an_unknown_zone_is_utc_and_says_so(zone: str) -> None:
    assert formats_for("en-GB", zone).time(MORNING) == "08:15 UTC"


@pytest.mark.parametrize(
    "value", ["tomorrow", "", True, [], {}, 10**30, -(10**30), 1.5, "2026-13-01T00:00:00Z"]
)
def test_what_is_no_time_is_given_back_as_text(value: Any) -> None:
    formats = formats_for("de", "UTC")
    assert formats.datetime(value) == formats.date(value) == formats.time(value) == str(value)


@pytest.mark.parametrize(
    ("tag", "value", "text"),
    [
        ("en", 1234567.891, "1,234,567.891"),
        ("de", 1234567.891, "1.234.567,891"),
        ("de-CH", 1234567.891, "1’234’567.891"),
        ("en-IN", 1234567.891, "12,34,567.891"),
        ("en", 999, "999"),
        ("en", -1000, "-1,000"),
        ("en", Decimal("1234.50"), "1,234.5"),
        ("en", 10**20, "100,000,000,000,000,000,000"),
        ("en", 1e26, "1e+26"),
        ("en", 10**400, str(10**400)),
        ("de", 3, "3"),
        ("de", True, "True"),
        ("de", "3.5", "3.5"),
        ("en", float("inf"), "inf"),
    ],
)
def test_numbers(tag: str, value: Any, text: str) -> None:
    assert formats_for(tag, "UTC").number(value) == text


@pytest.mark.parametrize("symbol", ["'", "’", "\u202f"])  # what CLDR 45 to 48 have for Swiss locales
@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("de-CH", "1’234’567.5"),
        ("it-CH", "1’234’567.5"),
        ("en-CH", "1’234’567.5"),
        ("de-LI", "1’234’567.5"),
        ("fr-CH", "1’234’567,5"),
    ],
)
def test_swiss_numbers_are_grouped_alike_whatever_the_data_say(
    tag: str, text: str, symbol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locales, "get_group_symbol", lambda _: symbol)
    locale = parse_locale(tag)
    assert locale is not None
    assert Formats(locale, ZoneInfo("UTC")).number(1234567.5) == text


# Languages of which some release of Babel has lost a word, a list or a group.
LANGUAGES = (
    "ar bg cs da de de-CH en es es-MX fa fi fr fr-CH he hi it it-CH ja ko nl pl pt pt-CH rm ru sv tr zh zh-TW"
)


@pytest.mark.parametrize("tag", LANGUAGES.split())
def test_every_language_groups_numbers_and_has_words_for_durations(tag: str) -> None:
    formats = formats_for(tag, "UTC")
    groups = re.findall("[0-9]+", formats.number(1_234_567))
    assert "".join(groups) == "1234567"
    assert len(groups) > 2
    days, hours = formats.duration(3 * 86_400), formats.duration(5 * 3600)
    assert formats.duration(3 * 86_400 + 5 * 3600 + 7).count("5") == 1
    assert days in formats.duration(3 * 86_400 + 5 * 3600)
    assert hours in formats.duration(3 * 86_400 + 5 * 3600)
    assert not re.search("duration|day|hour", days + hours) or tag == "en"


def test_long_durations_are_grouped_as_numbers_are() -> None:
    assert formats_for("de-CH", "UTC").duration(1_234_567 * 86_400) == "1’234’567 Tage"


@pytest.mark.parametrize(
    ("tag", "value", "parts"),
    [
        ("en", 0, ["0 seconds"]),
        ("en", 5400, ["1 hour", "30 minutes"]),
        ("de", 5400, ["1 Stunde", "30 Minuten"]),
        ("de", 90_061, ["1 Tag", "1 Stunde"]),
        ("es-ES", 5400, ["1 hora", "30 minutos"]),
        ("it", 90_061, ["1 giorno", "1 ora"]),
        ("ar", 90_060, ["يوم", "ساعة"]),
        ("en", dt.timedelta(seconds=61), ["1 minute", "1 second"]),
        ("en", -30.9, ["30 seconds"]),
    ],
)
def test_durations_name_their_two_largest_units(tag: str, value: Any, parts: list[str]) -> None:
    between = r"\W{1,3}(\w{1,3}\W?)?"  # a comma or an "and", which Arabic writes with the word that follows
    assert re.fullmatch(between.join(parts), formats_for(tag, "UTC").duration(value))


@pytest.mark.parametrize(("value", "text"), [(1e26, "1e+26"), ("soon", "soon"), (float("nan"), "nan")])
def test_what_is_no_duration_is_given_back_as_text(value: Any, text: str) -> None:
    assert formats_for("en", "UTC").duration(value) == text


@pytest.mark.parametrize(
    ("tag", "categories"),
    [
        ("en", ["other", "one", "other", "other"]),
        ("fr", ["one", "one", "other", "other"]),
        ("de_CH", ["other", "one", "other", "other"]),
        ("ja", ["other", "other", "other", "other"]),
        ("pl", ["many", "one", "few", "many"]),
        ("builtin", ["other", "other", "other", "other"]),
    ],
)
def test_a_number_has_the_plural_of_its_language(tag: str, categories: list[str]) -> None:
    assert [plural_category(count, tag) for count in (0, 1, 2, 5)] == categories
    assert plural_category("1", tag) == plural_category(None, tag) == "other"


def test_direction_of_writing() -> None:
    assert formats_for("ar", "UTC").direction == "rtl"
    assert formats_for("de-CH", "UTC").direction == "ltr"
    assert formats_for("nonsense!", "UTC").direction == "ltr"
