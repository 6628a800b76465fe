"""Text that is cut and cleaned for a receiver."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifyd.text import ELLIPSIS, as_read, blank, clean, fit, leading, listed, one_line, units


@pytest.mark.parametrize("text", ["", " \n", "\x00", "\u200b", "\u2060\u00ad", "\u3164", "\u2800", "\u0301"])
def test_what_is_drawn_as_nothing_is_blank(text: str) -> None:
    assert blank(text)
    assert not blank(text + "ok")


@pytest.mark.parametrize("text", [".", "好", "👍", "e\u0301"])
def test_what_a_reader_sees_is_not_blank(text: str) -> None:
    assert not blank(text)


def test_text_is_read_alike_whatever_is_drawn_as_nothing() -> None:
    assert as_read(" Se\u200bcurity\u3000 TEAM\u2800") == as_read("security team")
    assert as_read("e\u0301") != as_read("e")


def escape(text: str) -> str:
    return html.escape(text, quote=False)


def test_what_fits_stays_as_it_is() -> None:
    assert fit("a < b", 8, escape=escape) == "a &lt; b"


def test_what_is_too_long_is_cut_at_the_end_of_a_word() -> None:
    assert fit("one two three four", 12) == "one two" + ELLIPSIS


def test_a_word_that_just_fits_is_kept() -> None:
    assert fit("one two three four", 14) == "one two three" + ELLIPSIS


def test_one_long_word_is_cut_anywhere() -> None:
    assert fit("x" * 50, 10) == "x" * 9 + ELLIPSIS


def test_no_entity_is_halved() -> None:
    assert fit("&" * 50, 12, escape=escape) == "&amp;&amp;" + ELLIPSIS


def test_what_ends_with_an_ellipsis_already_gets_no_second() -> None:
    assert fit("one two…\nthree four", 10) == "one two" + ELLIPSIS


def test_a_link_to_the_whole_follows_the_ellipsis() -> None:
    assert fit("one two three four five", 20, more=" <u|more>") == "one two" + ELLIPSIS + " <u|more>"


def test_a_link_that_would_leave_no_room_is_left_out() -> None:
    assert fit("one two three four", 12, more=" " + "u" * 8) == "one two" + ELLIPSIS


def test_an_emoji_of_several_characters_is_not_taken_apart() -> None:
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
    assert fit("a" * 10 + family, 14) == "a" * 10 + ELLIPSIS


@given(st.text(st.characters(), max_size=300), st.integers(1, 120), st.text("<&", max_size=20))
def test_it_never_exceeds_the_limit(text: str, limit: int, more: str) -> None:
    assert units(fit(text, limit, escape=escape, more=more)) <= limit


@given(st.text(st.characters(), max_size=300), st.integers(1, 120))
def test_what_is_left_is_the_beginning(text: str, limit: int) -> None:
    shown = fit(text, limit)
    assert shown == text or text.startswith(shown.removesuffix(ELLIPSIS))


@pytest.mark.parametrize(("text", "length"), [("", 0), ("a", 1), ("ß", 1), ("\U0001f469", 2)])
def test_units_are_those_of_utf_16(text: str, length: int) -> None:
    assert units(text) == length


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("nul \x00 bell \x07 escape \x1b[0m", "nul  bell  escape [0m"),
        ("a\r\nb\rc\u2028d\u2029e", "a\nb\nc\nd\ne"),
        ("tab\tstays", "tab\tstays"),
        ("exe\u202egnp.\u202c \u2066x\u2069", "exegnp. x"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("مرحبا 漢字 👩‍👩‍👧", "مرحبا 漢字 👩‍👩‍👧"),
    ],
)
def test_cleaning_takes_out_what_no_reader_should_see(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_one_line_has_no_newline_and_no_run_of_spaces() -> None:
    assert one_line("  a\r\n\r\n b\t\u2028c \x00 d ") == "a b c d"


@given(st.text(st.characters(), max_size=200))
def test_one_line_and_clean_change_nothing_the_second_time(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    assert one_line(one_line(text)) == one_line(text)
    assert len(one_line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    "cluster",
    [
        "\U0001f1e8\U0001f1ed",  # a flag
        "각",  # Hangul, written in parts
        "กำ",  # Thai, with a vowel that follows
        "क्षि",  # a Devanagari conjunct
        "e\N{COMBINING ACUTE ACCENT}\N{COMBINING DOT BELOW}",
        "1\ufe0f\u20e3",  # a keycap
        "\U0001f44d\U0001f3fd",  # a thumb with its skin tone
    ],
)
def test_no_visible_character_is_cut_in_half(cluster: str) -> None:
    for limit in range(2, units(cluster) * 3 + 2):
        shown = fit(cluster * 4, limit).removesuffix(ELLIPSIS)
        assert shown == cluster * (len(shown) // len(cluster)), limit


@pytest.mark.parametrize(
    ("room", "shown"), [(0, []), (1, ["a"]), (3, ["a", "bb"]), (5, ["a", "bb"]), (6, ["a", "bb", "ccc", ""])]
)
def test_of_several_the_first_are_taken_as_far_as_there_is_room(room: int, shown: list[str]) -> None:
    assert leading(["a", "bb", "ccc", ""], room, units) == shown


@pytest.mark.parametrize(
    ("count", "room", "shown"),
    [
        (3, 6, ["a", "bb", "ccc"]),
        (3, 3, ["a", "bb", "… (+1)"]),
        (5, 6, ["a", "bb", "ccc", "… (+2)"]),
        (3, 0, ["… (+3)"]),
    ],
)
def test_a_list_counts_what_is_not_in_it(count: int, room: int, shown: list[str]) -> None:
    assert listed(["a", "bb", "ccc"], count, room, units) == shown
