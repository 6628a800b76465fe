"""docs/commands.md has every command with every option, as the command line tells them itself."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from notifyd.cli import cli
from tests.command_pages import EVERYWHERE, PAGE, Outline, outline, page

OUTLINES = list(outline())


def but_usage(text: str) -> list[str]:
    """Versions of click put brackets around other arguments in the line on usage."""
    return [line for line in text.splitlines() if not line.startswith("    ")]


def test_the_page_on_commands_is_as_make_contract_writes_it() -> None:
    assert but_usage(PAGE.read_text(encoding="utf-8")) == but_usage(page())


@pytest.mark.parametrize("one", OUTLINES, ids=lambda one: one.name)
def test_a_command_is_told_with_each_option_of_its_help(one: Outline) -> None:
    """The help is read as a person sees it, so that a second way leads to the same options."""
    shown = CliRunner().invoke(cli, [*one.name.split()[1:], "--help"], terminal_width=200).output
    _, _, told = page().partition(f"\n## {one.name}\n")
    section = told.partition("\n## ")[0]
    for written in re.findall(r"^  (-\S+)", shown, re.MULTILINE):
        assert written.rstrip(",").startswith(EVERYWHERE) or f"| `{written}" in section, written


def test_every_command_of_the_help_has_a_section() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output.partition("Commands:")[2]
    names = set(re.findall(r"^  (\S+)", shown, re.MULTILINE))
    assert names == {one.name.split()[1] for one in OUTLINES}


def test_what_stands_in_angle_brackets_is_no_html() -> None:
    assert re.findall(r"(?<!\\)<[a-z]", re.sub(r"`[^`]*`", "", page())) == []
