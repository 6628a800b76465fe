"""The page's languages are in step, and its template and style sheet with them."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

import notifyd.web.pages
from notifyd.flow.standing import Standing
from notifyd.web.pages.texts import TEXTS

FOLDER = Path(notifyd.web.pages.__file__).parent


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", TEXTS)
def test_each_language_has_every_text_with_the_same_placeholders(language: str) -> None:
    assert TEXTS[language].keys() == TEXTS["en"].keys()
    for name, text in TEXTS[language].items():
        assert text.strip() == text != ""
        assert placeholders(text) == placeholders(TEXTS["en"][name])


def test_each_standing_but_the_open_one_has_its_words() -> None:
    told = {name.removeprefix("state.") for name in TEXTS["en"] if name.startswith("state.")}
    assert told == {standing.value for standing in Standing} - {"open"}


def test_the_style_sheet_defines_each_colour_it_uses_for_light_and_dark() -> None:
    css = (FOLDER / "page.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark")
    used = set(re.findall(r"var\((--[a-z-]+)\)", css))
    for scheme in (light, dark):
        assert set(re.findall(r"(--[a-z-]+):", scheme)) == used


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


PAIRS = [
    ("text", "card"),
    ("quiet", "card"),
    ("quiet", "soft"),
    ("text", "soft"),
    ("stop", "card"),
    ("stop", "stop-soft"),
    ("info", "info-soft"),
    ("good", "good-soft"),
    ("warn", "warn-soft"),
]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_stands_out_from_its_ground_by_wcag_aa(scheme: int) -> None:
    css = (FOLDER / "page.css").read_text().split("prefers-color-scheme: dark")[scheme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", css))
    for front, ground in PAIRS:
        assert contrast(colours[front], colours[ground]) >= 4.5, (front, ground)
    assert contrast("#ffffff", colours["go"]) >= 4.5
    assert contrast("#ffffff", colours["go-over"]) >= 4.5
