"""The reference of `docs/plugins.md` is that of the code, and its tutorial quotes the example plugin."""

from __future__ import annotations

import enum
import inspect
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

import notifyd.plugin
import notifyd.testing
from notifyd.cli import cli
from tests.plugin_docs import EXAMPLE, PAGE, blocks, reference

REFERENCE = reference()
SECTIONS = {re.split(r"\W", head)[0]: (head, text) for head, text in REFERENCE.items()}
PUBLIC = {name: getattr(notifyd.plugin, name) for name in notifyd.plugin.__all__}


def signature(thing: Any) -> str:
    """`name(arguments) -> type` as the source has it."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))
    text = re.sub(r"<class '(\w+)'>", r"\1", text)
    return str(thing.__name__) + re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", text)


def is_called(thing: Any) -> bool:
    """Is its signature a thing to know: a function's, a hook's, that of an error or of `Secret`?"""
    made_plainly = inspect.isclass(thing) and not attrs.has(thing) and not issubclass(thing, enum.Enum)
    return inspect.isfunction(thing) or (made_plainly and not getattr(thing, "_is_protocol", False))


def test_every_public_name_has_a_heading_and_no_other_has() -> None:
    assert sorted(SECTIONS) == sorted(notifyd.plugin.__all__)


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if is_called(thing)])
def test_the_heading_is_the_signature(name: str) -> None:
    assert SECTIONS[name][0] == signature(PUBLIC[name])


def test_every_hook_is_among_those_that_are_checked() -> None:
    hooks = {name for name in PUBLIC if name.startswith("notifyd_")}
    assert hooks == {name for name, thing in vars(notifyd.plugin).items() if hasattr(thing, "notifyd_spec")}
    assert all(is_called(PUBLIC[name]) for name in hooks)


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if attrs.has(thing)])
def test_every_field_of_a_record_is_told(name: str) -> None:
    told = re.findall(r"`(\w+)", SECTIONS[name][1])
    assert {attribute.name for attribute in attrs.fields(PUBLIC[name])} - set(told) == set()


@pytest.mark.parametrize("name", ["Level", "Reason"])
def test_every_value_of_an_enumeration_is_told_and_no_other(name: str) -> None:
    assert set(re.findall(r"`(\w+)`", SECTIONS[name][1])) == {member.value for member in PUBLIC[name]}


def test_the_kits_names_are_all_told() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Reference: the conformance kit")[2]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) != []
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == set(notifyd.testing.__all__)


# --- the example -------------------------------------------------------------------------------------------

QUOTED = {block.title: block.text for block in blocks() if block.kind in ("python", "jinja")}


def test_the_tutorial_quotes_every_file_of_the_example_that_it_does_not_generate(tmp_path: Path) -> None:
    kept = {".py", ".txt"}
    files = {str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*") if path.suffix in kept}
    assert set(QUOTED) == files - {"conftest.py"}


@pytest.mark.parametrize("path", QUOTED)
def test_a_quoted_file_is_the_examples_to_the_letter(path: str) -> None:
    assert QUOTED[path] == (EXAMPLE / path).read_text(encoding="utf-8")


def test_the_examples_project_file_is_the_generated_one(tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["new-plugin", "--into", str(tmp_path), "pager"]).exit_code == 0
    generated = (tmp_path / "notifyd-pager" / "pyproject.toml").read_text()
    assert (EXAMPLE / "pyproject.toml").read_text() == generated
