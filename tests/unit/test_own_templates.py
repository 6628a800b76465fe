"""The templates that ship write the same as anyone's copy of them, and leave no way around the bounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, nodes

import notifyd
from notifyd.errors import RenderError
from notifyd.render.render import TemplateSet
from notifyd.render.template_outline import outline
from notifyd.render.templating import BLOCKS
from notifyd.samples import all_samples

SHIPPED: Final = Path(notifyd.__file__).parent / "templates"


@pytest.fixture(scope="module")
def own() -> TemplateSet:
    return TemplateSet.load([], [], "en")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is shipped, as an operator's: each file is checked at load."""
    folder = tmp_path_factory.mktemp("templates")
    for file in SHIPPED.iterdir():
        (folder / file.name).write_text(file.read_text())
    return folder


@pytest.fixture(scope="module")
def copies(folder: Path) -> TemplateSet:
    """In the sandbox, its steps counted."""
    return TemplateSet.load([], [folder], "en")


def test_every_example_is_written_as_in_the_sandbox(own: TemplateSet, copies: TemplateSet) -> None:
    links = ("https://n.example/approvals/a", "https://n.example/mine/a")
    assert list(all_samples(own, *links)) == list(all_samples(copies, *links))


# No text: its methods are members in the sandbox, and none where the template is ours.
LEAVES = st.none() | st.booleans() | st.integers(-3, 30) | st.sampled_from(["", "a", "2026-11-04T09:30:00Z"])
NAMES = ["message", "title", "summary", "data", "steps", "name", "id", "labels", "environment", "parameters"]
NAMES += ["policy", "messages", "decision", "inputs", "approvals", "received", "required", "changes", "added"]
NAMES += ["removed", "changed", "after", "before", "status", "round"]
OBJECTS = st.dictionaries(
    st.sampled_from(NAMES), LEAVES | st.lists(st.just({"name": "a", "id": "b"})), max_size=4
)
EVENTS = st.dictionaries(st.sampled_from(NAMES), OBJECTS | st.lists(OBJECTS, max_size=3), max_size=8)


@settings(max_examples=40)
@given(EVENTS, st.sampled_from(["requested", "acknowledged", "updated", "expired", "hold"]))
def test_whatever_an_event_holds_it_is_written_as_in_the_sandbox(
    own: TemplateSet, copies: TemplateSet, event: Mapping[str, Any], action: str
) -> None:
    for template in ("event", "pack-approval", "pack-policy"):
        whole = {**event, "action": action}
        assert _outcome(own, template, whole) == _outcome(copies, template, whole)


def _outcome(templates: TemplateSet, template: str, event: Mapping[str, Any]) -> object:
    try:
        return templates.render(template, "en", event=event, link="https://n.example/", can_decide=True)
    except RenderError as error:
        return str(error).partition(":")[2]


@pytest.mark.parametrize("message", ["a text", 7, 1.5, True, ["a", "b"]])
def test_a_plain_value_has_no_members(own: TemplateSet, message: object) -> None:
    """A method of the value would stand in the message, with its address."""
    rendered = own.render("event", "en", event={"kind": "x", "message": message, "data": {"a": 1}})
    assert (rendered.title, rendered.body) == ("x", "- a: 1")


@pytest.mark.parametrize(
    "given_",
    [
        "{% set words = {'progress': '%1000000000d%d'} %}",
        "{% set words = {'environment': 1000000000} %}{% set field = event.x.center %}",
        "{% set words = {'environment': 1000000000} %}{% set field = cycler(event.x.ljust).next() %}",
    ],
)
def test_what_an_operator_gives_ours_to_call_or_compute_is_bounded(tmp_path: Path, given_: str) -> None:
    (tmp_path / "thing.en.txt").write_text(
        f"{{% extends 'builtin/_pack-approval.txt' %}}{given_}{{% block title %}}t{{% endblock %}}"
    )
    event = {
        "x": "x",
        "action": "requested",
        "labels": {"environment": "y"},
        "approvals": {"received": 1, "required": 2},
    }
    with pytest.raises(RenderError, match="TooMuchError"):
        TemplateSet.load([], [tmp_path], "en").render("thing", "en", event=event)


def test_a_part_that_an_operator_replaces_runs_in_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "_event.txt").write_text(
        "{% block title %}{{ 'x'.__class__ }}t{% endblock %}{% block body %}{% endblock %}"
    )
    assert TemplateSet.load([], [tmp_path], "en").render("event", "en", event={"kind": "x"}).title == "t"


@pytest.mark.parametrize("file", sorted(SHIPPED.iterdir()), ids=lambda file: file.name)
def test_ours_name_only_members_of_data(file: Path) -> None:
    """What the sandbox would refuse or measure they must not ask for: nothing looks."""
    tree = Environment(extensions=[]).parse(file.read_text())  # noqa: S701 - parsed, and never run
    for read in tree.find_all(nodes.Getattr):
        assert not read.attr.startswith("_")
        assert not hasattr(dict, read.attr)


@pytest.mark.parametrize("file", sorted(SHIPPED.iterdir()), ids=lambda file: file.name)
def test_ours_use_parts_alone_of_other_files(file: Path) -> None:
    """So that none of ours needs a check where an operator replaces a file that is no part."""
    refers = outline(file.name, file.name, file.read_text()).refers
    assert [key for _, key in refers if not str(key).startswith("_")] == []


def test_a_type_of_channel_named_like_a_block_of_ours_has_no_block_of_its_own(folder: Path) -> None:
    files = {file.name: file.read_text() for file in SHIPPED.iterdir()}
    blocks = {block for name, text in files.items() for block in outline(name, name, text).blocks}
    assert len(blocks) > len(BLOCKS)
    templates = TemplateSet.load([], [folder], "en", types=blocks)
    assert {vendor for name in templates.names for vendor in templates.vendors(name, "en")} == set()
