"""The kit for packages of templates: sound ones pass, each broken one is told of by the test that it breaks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from notifyd import samples
from notifyd.plugin import TemplateSource, hookimpl
from notifyd.testing import TemplatePackageConformance as Kit

EVENT: Mapping[str, Any] = {
    "kind": "release.published",
    "tenant": {"id": "acme"},
    "occurredAt": "2026-11-20T09:30:00Z",
    "data": {
        "name": "Payments",
        "version": "v9",
        "files": 3,
        "notes": "Faster.",
        "changes": [{"title": "Romansh"}],
    },
}
EN = """\
{% set words = {"version": "Version", "of": "%d of %s"} %}
{% block title %}{{ event.data.name|line }} is out{% endblock %}
{% block body %}
{{ event.data.notes|text }}

{{ event.data.files|number }} {{ event.data.files|plural(one="file", other="files") }}
{% endblock %}
{% block fields %}
{{ field(words.version, event.data.version) }}
{% endblock %}
{% block action %}Open{% endblock %}
{% block slack %}{{ super() }}{% endblock %}
"""
DE = (
    EN.replace("is out", "ist da")
    .replace('"of": "%d of', '"of": "%d von')
    .replace('one="file", other="files"', 'one="Datei", other="Dateien"')
)
PAGE = """\
{% extends "mail.en.html" %}
{% block content %}<h1>{{ message.title }}</h1>
{% for block in message.blocks %}{% for line in block.lines %}<p>{{ line }}</p>{% endfor %}{% endfor %}
{% for fact in message.facts %}{{ fact.name }} {{ fact.value }}{% endfor %}
<a href="{{ message.action.url }}">{{ message.action.label }}</a>{% endblock %}
"""
GOOD = {"release.en.txt": EN, "release.de.txt": DE, "release.en.html": PAGE, "_part.txt": "{{ event.kind }}"}
NUMBERS = itertools.count()

Make = Callable[..., Kit]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """The kit for a package of such files, each of a name of its own, since Python keeps what it imports."""

    def package(files: Mapping[str, str | None], path: str = "templates", **members: Any) -> Kit:
        name = f"templates_of_the_zoo_{next(NUMBERS)}"
        folder = tmp_path / name / "templates"
        folder.mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
        for file, text in files.items():
            if text is not None:
                (folder / file).write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        members = {"events": {"release": [EVENT]}} | members
        kit: Kit = type("KitOfOne", (Kit,), {"source": TemplateSource(name, path), **members})()
        return kit

    return package


def checks() -> list[str]:
    return [name for name in vars(Kit) if name.startswith("test_")]


async def test_a_sound_package_passes(make: Make) -> None:
    kit = make(GOOD)
    for check in checks():
        await getattr(kit, check)()


def built_in(name: str) -> list[Mapping[str, Any]]:
    kinds = {"pack-approval": "pack.approval", "pack-policy": "pack.policy", "event": "task.done"}
    if name == "channel-test":
        return [{"channel": "team-chat", "occurredAt": "2026-11-04T09:30:00Z"}]
    return [event for event in samples.events() if event["kind"] == kinds.get(name, "pack.approval")]


NAMES = ("pack-approval", "pack-policy", "event", "digest", "channel-test")


class BuiltIn(Kit):
    source = TemplateSource("notifyd")
    events = MappingProxyType({name: built_in(name)[::5] for name in NAMES})


class BuiltInOverOddEvents(BuiltIn):
    events = MappingProxyType({name: built_in(name)[:1] for name in NAMES})  # each has sixty odd ones


ELSEWHERE = (
    "test_each_file_is_in_the_wheel",
    "test_no_event_makes_it_fail",
)  # the wheel is that of test_wheel.py


@pytest.mark.parametrize("check", [one for one in checks() if one not in ELSEWHERE])
async def test_notifyds_own_templates_pass(check: str) -> None:
    await getattr(BuiltIn(), check)()


async def test_no_odd_event_makes_notifyds_own_templates_fail() -> None:
    await BuiltInOverOddEvents().test_no_event_makes_it_fail()


# --- broken ones, each in one respect -----------------------------------------------------------------------

DAEMON = "test_the_daemon_takes_its_folder"
FILES = "test_each_file_is_one_that_the_daemon_uses"
WHEEL = "test_each_file_is_in_the_wheel"
EVENTS = "test_there_is_an_event_for_each_template_and_a_template_for_each"
WHOLE = "test_each_message_has_a_title_a_text_and_a_label_for_its_link"
MAIL = "test_the_mail_says_what_the_text_says"
ESCAPED = "test_what_an_event_holds_is_escaped"
FAILS = "test_no_event_makes_it_fail"
COSTS = "test_no_event_makes_it_cost_too_much"
WRITTEN = "test_each_template_is_written_in_each_language"
SAME = "test_each_language_says_the_same"
PLURALS = "test_plurals_have_the_forms_of_their_language"


def with_text(old: str, new: str, file: str = "release.en.txt") -> dict[str, str]:
    """The sound package with another text in a file."""
    assert old in GOOD[file]
    return GOOD | {file: GOOD[file].replace(old, new)}


UPDATE = "{% block title %}{{ event.data.name|line }} changed{% endblock %}{% block body %}x{% endblock %}"

NOTES = "{{ event.data.notes|text }}"
EACH, END = "{% for one in event.data.changes %}", "{% endfor %}"

BROKEN: dict[str, tuple[Mapping[str, str], str, str]] = {
    "a misspelt block": (with_text("block body", "block boddy"), FILES, "has no block 'body'"),
    "a misspelt block more": (
        with_text("block fields", "block feilds"),
        FILES,
        "'feilds'; did you mean .fields",
    ),
    "a block for a type that nobody has": (
        with_text("block slack", "block slak"),
        FILES,
        "did you mean .slack",
    ),
    "a misspelt block of a page": (
        with_text("block content", "block contents", "release.en.html"),
        FILES,
        'you mean "content"',
    ),
    "no title": (with_text("block title", "block note"), FILES, "has no block 'title'"),
    "a name that nothing sets": (
        with_text("event.data.name|line", "evnt.name"),
        FILES,
        "unknown name 'evnt'",
    ),
    "a filter that nobody has": (with_text("|line", "|lines"), FILES, "unknown filter 'lines'"),
    "a tag that is not closed": (with_text("{% endblock %}", ""), FILES, "release.en.txt"),
    "a part that is not there": (
        GOOD | {"release.en.txt": '{% extends "_gone.txt" %}'},
        FILES,
        "no template file",
    ),
    "a page without a text": (GOOD | {"news.en.html": PAGE}, FILES, "no text for it"),
    "a name without a language": (GOOD | {"news.txt": EN}, FILES, "must be named"),
    "a language that is none": (GOOD | {"news.zz-1.txt": EN}, FILES, "news.zz-1.txt"),
    "a file of another kind": (GOOD | {"news.en.jinja": EN}, FILES, "nothing reads news.en.jinja"),
    "no template for an event": (
        GOOD | {"release.en.txt": "{% block", "release.de.txt": "{% x"},
        EVENTS,
        "no template in",
    ),
    "no event for a template": (
        GOOD | {"news.en.txt": EN, "news.de.txt": DE},
        EVENTS,
        "name an event .*news",
    ),
    "an empty title": (
        with_text("{{ event.data.name|line }} is out", "{{ event.nam }}"),
        WHOLE,
        "an empty title",
    ),
    "no label": (with_text("{% block action %}Open{% endblock %}", ""), WHOLE, "write a block `action`"),
    "no link in its mail": (
        with_text("{{ message.action.url }}", "#", "release.en.html"),
        MAIL,
        "loses.*https:",
    ),
    "no title in its mail": (
        with_text("<h1>{{ message.title }}</h1>", "", "release.en.html"),
        MAIL,
        "is out",
    ),
    "no facts in its mail": (with_text("{{ fact.value }}", "", "release.en.html"), MAIL, "loses"),
    "no second paragraph": (
        with_text("in message.blocks", "in message.blocks[:1]", "release.en.html"),
        MAIL,
        "3 files",
    ),
    "HTML of an event's": (
        with_text("{{ line }}", "{{ line|safe }}", "release.en.html"),
        ESCAPED,
        r"leave out `\|safe`",
    ),
    "an address of an event's": (
        with_text("{{ message.action.url }}", "{{ event.data.notes }}", "release.en.html"),
        ESCAPED,
        "whatever address",
    ),
    "a member that is no text": (
        with_text("event.data.notes|text", "event.data.notes + 'x'"),
        FAILS,
        "TypeError",
    ),
    "a member that is no list": (with_text(NOTES, EACH + "{{ one.title }}" + END), FAILS, "not iterable"),
    "a loop over a loop": (with_text(NOTES, f"{EACH}{EACH}x{END}{END}"), COSTS, "steps"),
    "one in one language only": (GOOD | {"update.en.txt": UPDATE}, WRITTEN, "update is not written in de"),
    "a word that is missing": (
        with_text('"version": "Version", ', "", "release.de.txt"),
        SAME,
        r"no words\.version",
    ),
    "other places in a word": (
        with_text("%d von %s", "%s von %d", "release.de.txt"),
        SAME,
        "has other places",
    ),
    "a fact that is missing": (
        with_text("{{ field(words.version, event.data.version) }}", "", "release.de.txt"),
        SAME,
        "0 facts in place of 1",
    ),
    "a block that is missing": (
        with_text("{% block slack %}{{ super() }}{% endblock %}", "", "release.de.txt"),
        SAME,
        "no block slack",
    ),
    "a plural without one": (with_text('one="file", ', ""), PLURALS, "without the form one"),
    "a plural of another language": (
        with_text('one="file"', 'one="f", few="g"'),
        PLURALS,
        "no plural form few",
    ),
    "a plural as in English": (GOOD | {"release.pl.txt": EN}, PLURALS, "without the form few, many"),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_the_kit_tells(broken: str, make: Make) -> None:
    files, check, complaint = BROKEN[broken]
    with pytest.raises((pytest.fail.Exception, Exception), match=complaint):
        await getattr(make(files), check)()


async def test_the_kit_tells_of_a_folder_that_is_not_there(make: Make) -> None:
    with pytest.raises(pytest.fail.Exception, match="there is no such folder"):
        await make(GOOD, "texts").test_the_daemon_takes_its_folder()


async def test_the_kit_tells_of_a_folder_that_no_hook_gives(make: Make) -> None:
    hooks = SimpleNamespace(notifyd_template_sources=hookimpl(lambda: [TemplateSource("notifyd")]))
    with pytest.raises(pytest.fail.Exception, match="do not give"):
        await make(GOOD, hooks=hooks).test_the_daemon_takes_its_folder()


async def test_the_kit_tells_of_an_event_whose_template_there_is_none_of(make: Make) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"no template, .* for: update"):
        await getattr(make(GOOD, events={"release": [EVENT], "update": [EVENT]}), EVENTS)()


PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """\
import pathlib, zipfile

def build_wheel(folder):
    with zipfile.ZipFile(pathlib.Path(folder, "p-1-py3-none-any.whl"), "w") as wheel:
        for file in pathlib.Path().glob("templates_of_the_zoo_*/**/*PATTERN"):
            wheel.write(file)
"""


@pytest.mark.parametrize(("pattern", "lost"), [("", False), (".py", True), (".txt", True)])
async def test_the_kit_tells_of_files_that_are_not_in_the_wheel(
    pattern: str, lost: bool, make: Make, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "backend.py").write_text(BACKEND.replace("PATTERN", pattern))
    kit = make(GOOD)
    if not lost:
        await kit.test_each_file_is_in_the_wheel()
        return
    with pytest.raises(pytest.fail.Exception, match=r"not in the wheel.*release\.en\.html"):
        await kit.test_each_file_is_in_the_wheel()


def test_the_zoo_has_every_test_of_the_kit_at_work() -> None:
    assert set(checks()) - {check for _, check, _ in BROKEN.values()} == {DAEMON, WHEEL}
