"""Rendering: templates found, checked and chosen; what a template can do, and cannot."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import ConfigError, NotifydError, RenderError
from notifyd.model import Action, Field, Level
from notifyd.plugin import TemplateSource
from notifyd.render.locales import formats_for
from notifyd.render.render import BODY_LIMIT, TITLE_LIMIT, Rendered, TemplateSet, level_of
from notifyd.render.sandbox import FIELDS_LIMIT

EVENT: Mapping[str, Any] = {
    "kind": "pack.approval",
    "action": "requested",
    "tenant": {"id": "acme"},
    "runId": "run-0042",
    "planHash": "sha256:" + "ab" * 32,
    "requiredApprovals": 1,
    "occurredAt": "2026-11-04T08:15:30Z",
    "labels": {"environment": "production"},
    "steps": [{"id": "a"}, {"id": "b"}],
}

ZURICH = formats_for("de-CH", "Europe/Zurich")

SIMPLE = "{% block title %}T{% endblock %}{% block body %}B{% endblock %}"


def text(body: str = "B", title: str = "T", more: str = "") -> str:
    return f"{{% block title %}}{title}{{% endblock %}}{{% block body %}}{body}{{% endblock %}}{more}"


def load(folder: Path, default_locale: str = "en", **files: str) -> TemplateSet:
    """Templates of an operator's folder. A file `thing.en.txt` is named `thing_en_txt`."""
    write(folder, **files)
    return TemplateSet.load([], [folder], default_locale)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        stem, locale, kind = name.rsplit("_", 2)
        path = folder / f"{stem.replace('__', '-')}.{locale.replace('0', '-')}.{kind}"
        path.write_text(content, encoding="utf-8")


def render_text(folder: Path, body: str, event: Mapping[str, Any] = EVENT, **options: Any) -> Rendered:
    return load(folder, thing_en_txt=text(body)).render("thing", "en", event=event, **options)


def told(error: ConfigError) -> list[tuple[str, str]]:
    return [(fault.pointer, fault.message) for fault in error.faults]


def faults(folder: Path, **files: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load(folder, **files)
    return [(fault.pointer.removeprefix(f"{folder}/"), fault.message) for fault in caught.value.faults]


@pytest.fixture(scope="module")
def built_in() -> TemplateSet:
    return TemplateSet.load([], [], "en")


# --- choosing a template and a locale ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "chosen", "missed"),
    [
        (["pack-policy", "pack-approval"], "pack-policy", False),
        ([None, "pack-policy"], "pack-policy", False),
        (["nobody-ships-this", None, "pack-approval"], "pack-approval", True),
        ([None, "nobody-ships-this", "digest"], "digest", True),
        (["mail", "_mail", "../pack-approval", "pack-approval.en.txt"], "event", True),
        ([None], "event", False),
        ([], "event", False),
    ],
)
def test_first_wish_that_exists_is_chosen(
    built_in: TemplateSet, wishes: list[str | None], chosen: str, missed: bool
) -> None:
    assert built_in.choose(wishes) == (chosen, missed)


@pytest.mark.parametrize(
    ("wishes", "locale"),
    [
        (["de-CH", "en"], "de-CH"),
        ([None, "de_AT"], "de-AT"),
        (["de-XX"], "de"),
        (["nonsense!", "../..", "", "de"], "de"),
        (["it-CH", "de"], "en"),
        ([None, None], "en"),
        ([], "en"),
    ],
)
def test_locale_in_force_is_the_first_wish_that_is_one(
    built_in: TemplateSet, wishes: list[str | None], locale: str
) -> None:
    """A language that nobody wrote falls to the default, not to the next wish."""
    assert built_in.locale(wishes, "pack-approval") == locale


def test_default_locale_is_the_operators(tmp_path: Path) -> None:
    templates = TemplateSet.load([], [], "de_ch")
    assert templates.default_locale == "de-CH"
    assert templates.locale(["it"], "pack-approval") == "de-CH"
    assert templates.locale(["de"], "there-is-no-such-template") == "de-CH"


def test_text_falls_back_to_its_language_then_to_the_default(tmp_path: Path) -> None:
    templates = load(
        tmp_path,
        default_locale="de-CH",
        thing_de_txt=text("de {{ 1234.5|number }}"),
        thing_de0AT_txt=text("de-AT"),
        only_fr_txt=text("fr"),
        other_en_txt=text("en"),
    )
    bodies = {
        locale: templates.render("thing", locale, event={}).body for locale in ("de-CH", "de-AT", "de", "en")
    }
    assert bodies == {"de-CH": "de 1’234.5", "de-AT": "de-AT", "de": "de 1.234,5", "en": "de 1,234.5"}
    assert templates.render("only", "de-CH", event={}).body == "fr"
    assert templates.render("other", "de-CH", event={}).body == "en"


def test_dates_follow_the_readers_territory_where_the_text_is_only_in_the_language(
    built_in: TemplateSet,
) -> None:
    event = {**EVENT, "expiresAt": "2026-11-05T12:00:00Z"}

    def deadline(locale: str, zone: str) -> str:
        return built_in.render("pack-approval", locale, event=event, zone=zone).fields[-1].value

    for locale, zone in (("de-CH", "Europe/Zurich"), ("en", "America/New_York"), ("en-GB", "Europe/London")):
        written = formats_for(locale, zone).datetime(event["expiresAt"])
        assert deadline(locale, zone) == " ".join(written.split())


def test_plurals_follow_the_language_of_the_text_and_not_the_readers(tmp_path: Path) -> None:
    words = '{{ event.n }} {{ event.n|plural(one="file", other="files") }}'
    templates = load(tmp_path, thing_en_txt=text(words), thing_fr_txt=text(words))
    written = {
        locale: templates.render("thing", locale, event={"n": 0}).body for locale in ("en", "fr-CH", "ja")
    }
    assert written == {"en": "0 files", "fr-CH": "0 file", "ja": "0 files"}
    assert templates.render("thing", "ja", event={"n": 1}).body == "1 file"
    assert templates.render("thing", "en", event={}).body.endswith("files")


def test_html_twin_is_in_the_language_of_the_text(tmp_path: Path) -> None:
    """Also where an operator wrote the text in a language and left the mail's layout as it is."""
    templates = load(tmp_path, thing_de_txt=text("Hallo"), thing_it_txt=text("Ciao"))
    assert "Gesendet von notifyd" in (templates.render("thing", "de-CH", event={}).html or "")
    assert "Sent by notifyd" in (templates.render("thing", "it", event={}).html or "")


# --- what a template gives ---------------------------------------------------------------------------------


def test_rendered_has_title_body_fields_link_and_level(tmp_path: Path) -> None:
    source = text(
        body="  \n\nOne  \n\n\n\nTwo\n",
        title="  A\ttitle\nin two lines ",
        more='{% block fields %}{{ field("Run", event.runId) }}{{ field("None", event.nope) }}{{ field("", 0) }}'
        '{{ field("Many", ["a", 1]) }}{% endblock %}{% block action %} Look {% endblock %}ignored',
    )
    rendered = load(tmp_path, thing_en_txt=source).render(
        "thing", "en", event=EVENT, link="https://n.example/x", html=False
    )
    assert rendered == Rendered(
        title="A title in two lines",
        body="One\n\nTwo",
        html=None,
        level=Level.WARNING,
        fields=(Field("Run", "run-0042"), Field("", "0"), Field("Many", "a, 1")),
        actions=(Action("Look", "https://n.example/x"),),
        locale="en",
    )


def test_link_without_a_label_is_called_by_its_host(tmp_path: Path) -> None:
    rendered = render_text(tmp_path, "B", link="https://notify.acme.example/approvals/secret")
    assert rendered.actions == (
        Action("notify.acme.example", "https://notify.acme.example/approvals/secret"),
    )


def test_empty_title_is_the_templates_name(tmp_path: Path) -> None:
    assert (
        load(tmp_path, thing_en_txt=text(title="{{ event.x }}")).render("thing", "en", event={}).title
        == "thing"
    )


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """Also from templates loaded anew, and whatever the order in which an event's members came."""
    turned = dict(reversed([*EVENT.items()])) | {
        "labels": {"b": "2", "a": "1"},
        "parameters": {"y": {"d": 1}, "x": 2},
    }
    straight = dict(EVENT) | {"labels": {"a": "1", "b": "2"}, "parameters": {"x": 2, "y": {"d": 1}}}
    outcomes = {
        TemplateSet.load([], [], "en").render(
            "pack-approval", "de-CH", event=event, link="https://x.example/"
        )
        for event in (turned, straight, straight)
    }
    assert len(outcomes) == 1


def test_the_event_is_never_changed(tmp_path: Path) -> None:
    event = {"kind": "a", "list": [1], "map": {"a": 1}}
    for attempt in (
        "event.list.append(2)",
        "event.map.update({'b': 2})",
        "event.pop('kind')",
        "event.clear()",
    ):
        try:
            render_text(tmp_path, f"{{{{ {attempt} }}}}", event)
        except RenderError:
            continue
    assert event == {"kind": "a", "list": [1], "map": {"a": 1}}


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("event.nope", ""),
        ("event.nope.deeper['still'][0]", ""),
        ("event.null", ""),
        ("event['null'].x", ""),
        ("event.nope > 1 or event.nope <= 1", "false"),
        ("event.nope + 1", ""),
        ("2 * event.nope ~ 'x'", "x"),
        ("event.nope|upper|line", ""),
        ("event.nope|datetime", ""),
        ("event.null|number", ""),
        ("event.nope|short_hash", ""),
        ("event.nope|value", ""),
        ("event.nope|length", "0"),
        ("event.nope.items()|list|length", "0"),
        ("event.nope|dictsort|length", "0"),
        ("event.nope|int + event.nope|float", "0.0"),
        ("event.nope|round|abs", ""),
        ("event.nope|join(',')", ""),
        ("event.yes|dictsort|length", "0"),
        ("event.nope or 'else'", "else"),
        ("event.yes", "true"),
        ("[event.no, event.null is defined]|join(' ')", "False False"),
        ("event.nope is defined", "false"),
    ],
)
def test_missing_members_never_fail_a_message(tmp_path: Path, expression: str, printed: str) -> None:
    event = {"null": None, "yes": True, "no": False}
    assert render_text(tmp_path, f"[{{{{ {expression} }}}}]", event).body == f"[{printed}]"


@pytest.mark.parametrize(
    ("expression", "printed"),
    [("event['keys']()|join", "items"), ("event['items']", "4"), ("event['update']", ""), ("event['x']", "")],
)
def test_a_subscript_gives_a_member_else_a_harmless_method_else_nothing(
    tmp_path: Path, expression: str, printed: str
) -> None:
    assert render_text(tmp_path, f"[{{{{ {expression} }}}}]", {"items": 4}).body == f"[{printed}]"


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("event.at|datetime", ZURICH.datetime("2026-11-04T08:15:30Z")),
        ("event.at|date", ZURICH.date("2026-11-04T08:15:30Z")),
        ("event.at|time", ZURICH.time("2026-11-04T08:15:30Z")),
        ("12345.5|number", "12’345.5"),
        ("5400|duration", ZURICH.duration(5400)),
        ("event.hash|short_hash", "sha256:abababababab"),
        ("'abab'|short_hash", "abab"),
        ("event.lines|line", "a b"),
        ("event.long|line(9)", "word…"),
        ("event.long|cut(9)", "word…"),
        ("event.map|value", '{"ä": [1, null]}'),
        ("event.lines|text", "a\n b"),
        ("event.map|text", '{"ä": [1, null]}'),
    ],
)
def test_filters(tmp_path: Path, expression: str, printed: str) -> None:
    event = {
        "at": "2026-11-04T08:15:30Z",
        "hash": "sha256:" + "ab" * 32,
        "lines": "a\r\n b",
        "long": "word word word",
        "map": {"ä": [1, None]},
    }
    templates = load(tmp_path, thing_de_txt=text(f"{{{{ {expression} }}}}"))
    assert templates.render("thing", "de-CH", event=event, zone="Europe/Zurich").body == printed


def test_without_fields_their_block_is_not_run_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    block = "{% block fields %}{{ field('a', 'x') }}{{ 1 // event.none }}{% endblock %}"
    templates = load(tmp_path, thing_en_txt=text("B{{ field('b', 'y') }}", more=block))
    rendered = templates.render("thing", "en", event={"none": 0}, fields=False)
    assert (rendered.title, rendered.body, rendered.fields) == ("T", "B", ())
    with_fields = templates.render("thing", "en", event={"none": 1})
    assert [one.name for one in with_fields.fields] == ["b", "a"]


def test_only_html_is_escaped(tmp_path: Path) -> None:
    templates = load(
        tmp_path, thing_en_txt=text("{{ event.x }}"), thing_en_html="<p>{{ event.x }} {{ message.title }}</p>"
    )
    rendered = templates.render("thing", "en", event={"x": "<b> & \u202e\x07"})
    assert rendered.body == "<b> &"
    assert rendered.html == "<p>&lt;b&gt; &amp;  T</p>"
    assert templates.render("thing", "en", event={}, html=False).html is None


@pytest.mark.parametrize(
    ("event", "level"),
    [
        ({"kind": "pack.approval", "action": "acknowledged", "status": "pending"}, Level.INFO),
        ({"kind": "pack.approval", "action": "nobody-knows"}, Level.INFO),
        ({"kind": "pack.approval", "action": "requested", "data": {"level": "error"}}, Level.WARNING),
        ({"kind": "a", "data": {"level": "error"}}, Level.ERROR),
        ({"kind": "a", "data": {"level": "fatal"}}, Level.INFO),
        ({"kind": "a", "data": {"level": ["error"]}}, Level.INFO),
        ({"kind": "a", "data": "error", "action": "requested"}, Level.INFO),
        ({}, Level.INFO),
    ],
)
def test_level_comes_from_what_happened(event: Mapping[str, Any], level: Level) -> None:
    assert level_of(event) is level


# --- limits ------------------------------------------------------------------------------------------------


def test_texts_are_cut_at_a_word(tmp_path: Path) -> None:
    templates = load(tmp_path, thing_en_txt=text("{{ event.x }}", title="{{ event.x }}"))
    rendered = templates.render("thing", "en", event={"x": "lorem 🚀 " * 50_000})
    assert len(rendered.body) <= BODY_LIMIT
    assert len(rendered.title) <= TITLE_LIMIT
    assert rendered.body.endswith(("lorem…", "🚀…"))
    assert rendered.title.endswith(("lorem…", "🚀…"))


def test_fields_are_bounded(tmp_path: Path) -> None:
    fields = (
        "{% block fields %}{% for n in range(99) %}{{ field(event.x, event.x) }}{% endfor %}{% endblock %}"
    )
    templates = load(tmp_path, thing_en_txt=text(more=fields))
    rendered = templates.render("thing", "en", event={"x": "y" * 16_000})
    assert len(rendered.fields) == FIELDS_LIMIT
    assert {(len(f.name), len(f.value)) for f in rendered.fields} == {(100, 1000)}


def test_mail_that_no_program_would_show_is_left_out(tmp_path: Path) -> None:
    templates = load(tmp_path, thing_en_txt=SIMPLE, thing_en_html="{{ event.x }}")
    assert templates.render("thing", "en", event={"x": "y" * 500_000}).html is None


def test_ranges_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="at most 1000"):
        render_text(tmp_path, "{% for a in range(1001) %}{% endfor %}")


# --- the sandbox -------------------------------------------------------------------------------------------

ESCAPES = [
    "''.__class__.__mro__[1].__subclasses__()",
    "event.__class__",
    "event['__class__'].__mro__",
    "event|attr('__class__')",
    "(event|attr('__init__')).__globals__",
    "field.__globals__",
    "field.__self__",
    "field.found.append(1)",
    "field.__call__.__globals__",
    "field.__init__.__globals__",
    "field.__class__",
    "formats.__class__.__init__.__globals__",
    "range.__globals__",
    "cycler.__init__.__globals__",
    "joiner.__init__.__globals__",
    "namespace.__init__.__globals__",
    "'{0.__class__}'.format(event)",
    "'{a.__class__}'.format_map({'a': event})",
    "('%s' % event).__class__",
    "[event]|map(attribute='__class__')|list",
    "[event]|map('attr', '__class__')|list",
    "event|tojson|attr('__class__')",
    "(1).__class__.__base__",
    "[].append.__self__",
    "self.__init__.__globals__",
    "self._TemplateReference__context",
    "event.steps.append(1)",
    "''.join.__class__",
    "(namespace()).__class__",
    "loop.__class__",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_sandbox_has_no_way_out(tmp_path: Path, escape: str) -> None:
    """An escape is refused, or gives nothing: never a class, a module or a function's globals."""
    source = text(f"[{{% for loop in [1] %}}{{% endfor %}}{{{{ {escape} }}}}]".replace("loop.__", "field.__"))
    write(tmp_path, thing_en_txt=source)
    try:
        body = TemplateSet.load([], [tmp_path], "en").render("thing", "en", event=EVENT).body
    except (RenderError, ConfigError):
        return
    assert not re.search(r"class|function|module|method|object|globals|0x", body), body


@pytest.mark.parametrize(
    "name", ["lipsum", "config", "request", "environment", "context", "_", "dict", "open"]
)
def test_template_cannot_name_what_it_is_not_given(tmp_path: Path, name: str) -> None:
    assert faults(tmp_path, thing_en_txt=text(f"{{{{ {name} }}}}")) == [
        ("thing.en.txt:1", f"unknown name {name!r}")
    ]


def test_template_has_nothing_random(tmp_path: Path) -> None:
    assert faults(tmp_path, thing_en_txt=text("{{ [1, 2]|random }}")) == [
        ("thing.en.txt:1", "unknown filter 'random'")
    ]


def test_event_text_is_never_taken_for_a_template(tmp_path: Path) -> None:
    assert (
        render_text(tmp_path, "{{ event.x }}", {"x": "{{ 7 * 7 }}{% raw %}"}).body == "{{ 7 * 7 }}{% raw %}"
    )


# --- faults ------------------------------------------------------------------------------------------------


def test_every_fault_of_every_file_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("x")
    (tmp_path / "note.xx.txt").write_text("x")
    (tmp_path / "note.en.html").write_bytes(b"ab\xff")
    (tmp_path / "README.md").write_text("not a template")
    (tmp_path / ".hidden.txt").write_text("nor this")
    found = faults(
        tmp_path,
        syntax_en_txt="a\n{% if %}",
        filter_en_txt=text("\n{% if event.x %}{{ 1|nope }}{% endif %}\n{{ 1 is nope }}"),
        name_en_txt=text("{{ evnt.kind }} {{ evnt.kind }}"),
        extends_en_txt="{% extends 'gone.txt' %}",
        dynamic_en_txt="{% extends event.x %}" + SIMPLE,
        itself_en_txt="{% extends 'itself.en.txt' %}" + SIMPLE,
        blocks_en_txt="{% block title %}{% endblock %}",
        page_en_html="a page without a text",
    )
    assert sorted(found) == [
        ("blocks.en.txt", "has no block 'body'"),
        ("dynamic.en.txt:1", "names a template by an expression: name it in quotes"),
        ("extends.en.txt:1", "there is no template file 'gone.txt'"),
        ("filter.en.txt:2", "unknown filter 'nope'"),
        ("filter.en.txt:3", "unknown test 'nope'"),
        ("itself.en.txt:1", "refers to itself: a built-in of this name is 'builtin/itself.en.txt'"),
        ("name.en.txt:1", "unknown name 'evnt'"),
        ("note.en.html", "is not UTF-8, at byte 2"),
        ("note.txt", "must be named NAME.LOCALE.txt or NAME.LOCALE.html, or begin with _ where it is a part"),
        ("note.xx.txt", "'xx' is not a locale"),
        ("page.en.html", "there is no text for it: a file page.LOCALE.txt"),
        ("syntax.en.txt:2", "Expected an expression, got 'end of statement block'"),
    ]


def test_a_pipe_among_templates_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "note.en.txt")
    with pytest.raises(ConfigError, match=r"note\.en\.txt: is not a file"):
        TemplateSet.load([], [tmp_path], "en")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of templates of an installed package, `plugin_with_templates`."""
    folder = tmp_path / "site" / "plugin_with_templates"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder / "texts"
    sys.modules.pop("plugin_with_templates", None)


OF_PACKAGE = TemplateSource("plugin_with_templates", "texts")


def test_a_bad_template_of_an_installed_package_is_left_out_and_named_alone(
    package: Path, tmp_path: Path
) -> None:
    write(
        package,
        event_en_txt=text("{{ never"),
        good_en_txt=text("good"),
        user_en_txt='{% extends "base.en.txt" %}',
        base_en_txt="{% block title %}no body{% endblock %}",
        page_en_html="a page without a text",
        deep_en_txt=text("{{ " + "[" * 9_000 + "]" * 9_000 + " }}"),
    )
    (package / "bad name.txt").touch()
    (package / "bytes.en.txt").write_bytes(b"\xff")
    templates = TemplateSet.load([OF_PACKAGE], [], "en")
    assert templates.render("good", "en", event={}).body == "good"
    assert templates.render("event", "en", event={"kind": "a.b"}).title  # the built-in one in its place
    assert not {"user", "base", "bytes", "deep"} & set(templates.names)
    where = "plugin_with_templates/texts/"
    assert {fault.pointer.removeprefix(where).partition(":")[0] for fault in templates.left_out} == {
        *("event.en.txt", "user.en.txt", "base.en.txt", "page.en.html", "deep.en.txt"),
        *("bad name.txt", "bytes.en.txt"),
    }


def test_a_part_of_a_package_that_breaks_the_built_in_templates_is_left_out(package: Path) -> None:
    write(package, good_en_txt=text("good"))
    (package / "_event.txt").write_text("neither a title nor a body")
    templates = TemplateSet.load([OF_PACKAGE], [], "en")
    assert templates.render("event", "de", event={"kind": "a.b"}).title
    assert templates.render("good", "en", event={}).body == "good"
    (fault,) = templates.left_out
    assert str(fault) == (
        "plugin_with_templates/texts/_event.txt: does not go with the built-in templates that use it"
    )


def test_an_operators_template_that_needs_a_bad_one_of_a_package_is_told_with_it(
    package: Path, tmp_path: Path
) -> None:
    write(package, base_en_txt=text("{{ never"))
    write(tmp_path / "mine", mine_en_txt='{% extends "base.en.txt" %}')
    with pytest.raises(ConfigError) as caught:
        TemplateSet.load([OF_PACKAGE], [tmp_path / "mine"], "en")
    assert [(Path(pointer).name, "base.en.txt" in said) for pointer, said in told(caught.value)] == [
        ("mine.en.txt:1", True),
        ("base.en.txt:1", False),
    ]


def test_missing_folder_package_and_locale_are_faults(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        TemplateSet.load([TemplateSource("there_is_no_package")], [tmp_path, tmp_path / "gone"], "en")
    assert [fault.pointer for fault in caught.value.faults] == [
        "templates.dirs[1]",
        "there_is_no_package/templates",
    ]
    (fault,) = TemplateSet.load([TemplateSource("there_is_no_package")], [], "en").left_out
    assert fault.pointer == "there_is_no_package/templates"
    with pytest.raises(ConfigError, match=r"templates\.default_locale: 'klingon' is not a locale"):
        TemplateSet.load([], [], "klingon")


def test_failing_template_names_its_file_line_and_locale(tmp_path: Path) -> None:
    templates = load(tmp_path, thing_de_txt=text("\n\n{{ 1 / 0 }}"))
    with pytest.raises(RenderError) as caught:
        templates.render("thing", "de-CH", event={})
    error = caught.value
    assert isinstance(error, NotifydError)
    assert (error.code, error.template, error.line, error.locale) == (
        "render_failed",
        "thing.de.txt",
        3,
        "de-CH",
    )
    assert str(error) == "template thing.de.txt:3, locale de-CH: ZeroDivisionError: division by zero"


def test_fault_in_a_part_is_named_by_the_part(tmp_path: Path) -> None:
    (tmp_path / "_part.txt").write_text("\n{{ 1 / 0 }}")
    with pytest.raises(RenderError, match=r"template _part\.txt:2, locale en"):
        render_text(tmp_path, "{% include '_part.txt' %}")


def test_template_that_does_not_exist_is_named(built_in: TemplateSet) -> None:
    with pytest.raises(RenderError, match="template nope, locale en: there is no such template"):
        built_in.render("nope", "en", event={})


# --- whose template it is ----------------------------------------------------------------------------------


def test_operator_comes_before_plugins_and_they_before_the_built_ins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "plugin_with_templates"
    package.mkdir()
    (package / "__init__.py").touch()
    write(
        package / "texts",
        event_en_txt=text("plugin"),
        event_de_txt=text("plugin"),
        mine_en_txt=text("plugin"),
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folders = [tmp_path / "first", tmp_path / "second"]
    write(folders[0], event_en_txt=text("first"))
    write(folders[1], event_en_txt=text("second"), mine_en_txt=text("second"))
    templates = TemplateSet.load([TemplateSource("plugin_with_templates", "texts")], folders, "en")
    bodies = [
        templates.render(name, locale, event={}).body
        for name, locale in (("event", "en"), ("event", "de"), ("mine", "en"))
    ]
    assert bodies == ["first", "plugin", "second"]
    assert templates.locales("digest") == ("de", "en", "es", "fr", "ja")
    sys.modules.pop("plugin_with_templates")


def test_operators_file_can_extend_the_built_in_it_replaces(tmp_path: Path) -> None:
    source = (
        '{% extends "builtin/pack-approval.en.txt" %}{% block title %}ACME: {{ super() }}{% endblock %}'
        '{% block fields %}{{ super() }}{{ field("Extra", subject) }}{% endblock %}'
    )
    rendered = load(tmp_path, pack__approval_en_txt=source).render("pack-approval", "en", event=EVENT)
    assert rendered.title == "ACME: Approval needed: run-0042"
    assert rendered.body.startswith("Approval is needed for run run-0042.")
    assert rendered.fields[-1] == Field("Extra", "run-0042")


def test_operator_can_change_the_look_of_all_mails(tmp_path: Path) -> None:
    (tmp_path / "_mail.html").write_text("<h1>ACME</h1>{{ message.title }} {{ words.sent }}")
    templates = TemplateSet.load([], [tmp_path], "en")
    html = templates.render("pack-approval", "de", event=EVENT).html
    assert html == "<h1>ACME</h1>Freigabe nötig: run-0042 Gesendet von notifyd"


def test_parts_can_be_imported_and_included(tmp_path: Path) -> None:
    (tmp_path / "_words.txt").write_text("{% macro shout(x) %}{{ x|upper }}!{% endmacro %}")
    (tmp_path / "_end.txt").write_text("{{ event.kind }}")
    source = '{% from "_words.txt" import shout %}' + text("{{ shout('hey') }} {% include '_end.txt' %}")
    assert load(tmp_path, thing_en_txt=source).render("thing", "en", event={"kind": "a"}).body == "HEY! a"


# --- bodies that are data ----------------------------------------------------------------------------------


def body_of(tmp_path: Path, body: str, media_type: str = "application/json", **event: Any) -> str:
    templates = load(tmp_path, thing_en_txt=f"{{% block title %}}t{{% endblock %}}\n{body}")
    return templates.render("thing", "en", event=event, media_type=media_type).body


def test_data_stays_as_it_was_written_and_whole(tmp_path: Path) -> None:
    said = "  two  spaces \u2028 \x07 \n\n\n\n end " + "x" * 50_000
    body = "{% block body %}\n" + '{"said":  {{ event.said|tojson }}}' + "\n{% endblock %}"
    written = body_of(tmp_path, body, said=said)
    assert written.startswith('{"said":  "')
    assert json.loads(written) == {"said": said}


def test_data_of_a_form_of_its_own_is_not_cleaned(tmp_path: Path) -> None:
    body = "{% block body %}<a>\n\n\n\n{{ event.said }} \n</a>{% endblock %}"
    assert body_of(tmp_path, body, "text/xml", said="a\u2028b\u202ec") == "<a>\n\n\n\na\u2028b\u202ec \n</a>"


@pytest.mark.parametrize(
    ("body", "line", "reason"),
    [
        ('{% block body %}\n{\n  "a": 1,\n  "b": {{ event.word }},\n  "c": 2\n}{% endblock %}', 5, "line 3"),
        ("{% block body %}{% for n in [1, 2] %}\n{{ n }} {\n{% endfor %}{% endblock %}", 3, "Extra data"),
        ("{% block body %}{{ event.nan|tojson }}{% endblock %}", 2, "NaN is no JSON"),
        ("{% block body %}{% endblock %}", 0, "Expecting value"),
    ],
)
def test_what_is_no_json_is_an_error_at_the_line_that_wrote_it(
    tmp_path: Path, body: str, line: int, reason: str
) -> None:
    with pytest.raises(RenderError) as caught:
        body_of(tmp_path, body, word="deploy", nan=float("nan"))
    assert reason in caught.value.detail
    assert (caught.value.template, caught.value.line) == ("thing.en.txt", line)


def test_json_by_its_suffix_is_checked_too_and_other_data_is_not(tmp_path: Path) -> None:
    with pytest.raises(RenderError):
        body_of(tmp_path, "{% block body %}{{% endblock %}".replace("{{", "{ {"), "application/vnd.a+json")
    assert body_of(tmp_path, "{% block body %}<{% endblock %}", "text/xml") == "<"
