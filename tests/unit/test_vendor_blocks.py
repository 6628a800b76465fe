"""A block named for a type of channel writes the body there; one that nothing prints is a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import ConfigError, RenderError
from notifyd.render.bounds import MAX_STEPS
from notifyd.render.render import Digest, TemplateSet
from notifyd.samples import all_samples, costly, missing

EVENT: dict[str, Any] = {"kind": "release", "name": "Payments", "occurredAt": "2026-11-04T09:30:00Z"}
GENERAL = "{% block title %}T{% endblock %}{% block body %}General{% endblock %}"
TYPES = ("slack", "google-chat", "webhook", "email", "lead")


def load(folder: Path, **files: str) -> TemplateSet:
    """Templates of an operator. A file `thing.en.txt` is named `thing_en_txt`, and `_base.txt` `_base_txt`."""
    for name, text in files.items():
        stem, _, rest = name[1:].partition("_")
        (folder / f"{name[0]}{stem}.{rest.replace('_', '.')}").write_text(text, encoding="utf-8")
    return TemplateSet.load([], [folder], "en", TYPES)


def body(templates: TemplateSet, channel_type: str, **more: Any) -> str:
    return templates.render("thing", "en", event=EVENT, channel_type=channel_type, **more).body


def fault(folder: Path, **files: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, **files)
    (only,) = caught.value.faults
    return str(only).removeprefix(f"{folder}/")


def test_a_block_named_for_a_type_writes_the_body_there_and_nowhere_else(tmp_path: Path) -> None:
    found = load(tmp_path, thing_en_txt=GENERAL + "{% block slack %}For {{ event.name }}{% endblock %}")
    assert [body(found, kind) for kind in ("slack", "email", "")] == ["For Payments", "General", "General"]


def test_a_hyphen_of_the_type_is_an_underscore_of_the_block(tmp_path: Path) -> None:
    found = load(tmp_path, thing_en_txt=GENERAL + "{% block google_chat %}Chat{% endblock %}")
    assert body(found, "google-chat") == "Chat"


@pytest.mark.parametrize("general", ["super", "self.body"])
def test_it_can_begin_with_the_general_text(tmp_path: Path, general: str) -> None:
    found = load(
        tmp_path, thing_en_txt=GENERAL + f"{{% block slack %}}{{{{ {general}() }}}} and more{{% endblock %}}"
    )
    assert body(found, "slack") == "General and more"


def test_an_extending_file_adds_one_and_changes_one_that_it_inherits(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        _base_txt=GENERAL + "{% block slack %}Base{% endblock %}",
        thing_en_txt='{% extends "_base.txt" %}{% block slack %}{{ super() }}, mine{% endblock %}'
        "{% block email %}Mail: {{ super() }}{% endblock %}",
    )
    assert (body(found, "slack"), body(found, "email")) == ("Base, mine", "Mail: General")


def test_a_built_in_template_gets_one_by_a_file_that_extends_it(tmp_path: Path) -> None:
    own = '{% extends "builtin/event.en.txt" %}{% block slack %}Short.{% endblock %}'
    found = load(tmp_path, event_en_txt=own)
    assert found.render("event", "en", event=EVENT, channel_type="slack").body == "Short."


def test_a_mail_is_made_of_its_own_block_too(tmp_path: Path) -> None:
    found = load(tmp_path, thing_en_txt=GENERAL + "{% block email %}As a letter{% endblock %}")
    html = found.render("thing", "en", event=EVENT, channel_type="email").html or ""
    assert "As a letter" in html
    assert "General" not in html


def test_one_inside_the_body_prints_nothing_for_the_others(tmp_path: Path) -> None:
    inside = "{% block body %}All{% block slack %} and Slack{% endblock %}{% endblock %}"
    found = load(tmp_path, thing_en_txt="{% block title %}T{% endblock %}" + inside)
    assert (body(found, "email"), body(found, "slack")) == ("All", " and Slack")


def test_a_fault_of_one_concerns_its_channels_alone(tmp_path: Path) -> None:
    found = load(tmp_path, thing_en_txt=GENERAL + "\n{% block slack %}{{ 1 // 0 }}{% endblock %}")
    assert body(found, "email") == "General"
    with pytest.raises(RenderError, match=r"thing\.en\.txt:2"):
        body(found, "slack")


def test_data_for_a_program_may_stand_beside_prose_for_people(tmp_path: Path) -> None:
    found = load(
        tmp_path, thing_en_txt=GENERAL + '{% block webhook %}{"a": {{ event.name|tojson }}}{% endblock %}'
    )
    assert body(found, "webhook", media_type="application/json") == '{"a": "Payments"}'


def test_data_that_is_none_is_told_at_the_line_that_wrote_it(tmp_path: Path) -> None:
    text = GENERAL + '{% block webhook %}\n{"a": 1,\n"b": {{ event.none }} }\n{% endblock %}'
    with pytest.raises(RenderError, match=r"thing\.en\.txt:3"):
        body(load(tmp_path, thing_en_txt=text), "webhook", media_type="application/json")


def test_a_digest_has_them_too(tmp_path: Path) -> None:
    found = load(tmp_path, thing_en_txt=GENERAL + "{% block slack %}{{ digest.count }} in all{% endblock %}")
    assert body(found, "slack", digest=Digest(7, (), 0, 0)) == "7 in all"


def test_a_type_whose_name_a_built_in_block_has_takes_nothing_from_it(tmp_path: Path) -> None:
    told = load(tmp_path).render("pack-approval", "en", event=EVENT | {"action": "requested", "runId": "r"})
    as_lead = load(tmp_path).render(
        "pack-approval", "en", event=EVENT | {"action": "requested", "runId": "r"}, channel_type="lead"
    )
    assert told == as_lead


def test_it_costs_no_more_than_a_text_may(tmp_path: Path) -> None:
    endless = "{% for a in range(1000) %}{% for b in range(1000) %}x{% endfor %}{% endfor %}"
    found = load(tmp_path, thing_en_txt=GENERAL + f"{{% block slack %}}{endless}{{% endblock %}}")
    with pytest.raises(RenderError, match=f"{MAX_STEPS:,}"):
        body(found, "slack")
    assert [one.pointer.rpartition("/")[2] for one in costly(found)] == ["thing.en.txt:1"]


# --- misspelt ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            GENERAL + "\n{% block slak %}{% endblock %}",
            "thing.en.txt:2: nothing prints the block 'slak'; did you mean \"slack\"?",
        ),
        (
            GENERAL + "\n{% block field %}{% endblock %}",
            "thing.en.txt:2: nothing prints the block 'field'; did you mean \"fields\"?",
        ),
        (
            '{% extends "builtin/event.en.txt" %}\n\n{% block titel %}{% endblock %}',
            "thing.en.txt:3: nothing prints the block 'titel'; did you mean \"title\"?",
        ),
    ],
)
def test_a_misspelt_block_is_a_fault_at_its_line_with_the_nearest_name(
    tmp_path: Path, text: str, told: str
) -> None:
    assert fault(tmp_path, thing_en_txt=text) == told


def test_one_that_is_near_to_nothing_is_told_with_all_there_are(tmp_path: Path) -> None:
    told = fault(tmp_path, thing_en_txt=GENERAL + "{% block zzz %}{% endblock %}")
    assert "there are: action, body, email, fields, google_chat, mine, note, slack, title, webhook" in told


def test_one_of_a_part_is_told_once_whatever_extends_it(tmp_path: Path) -> None:
    extending = '{% extends "_base.txt" %}'
    base = GENERAL + "{% block slak %}{% endblock %}"
    told = fault(tmp_path, _base_txt=base, thing_en_txt=extending, thing_de_txt=extending)
    assert told.startswith("_base.txt:1: nothing prints")


def test_one_of_a_page_is_a_fault_as_well(tmp_path: Path) -> None:
    page = '{% extends "_mail.html" %}\n{% block contnet %}{% endblock %}'
    assert fault(tmp_path, mail_en_html=page).startswith("mail.en.html:2: nothing prints the block 'contnet'")


def test_blocks_that_others_print_are_none(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        _base_txt="{% block title %}T{% endblock %}{% block end %}E{% endblock %}"
        "{% block body %}{% block intro %}I{% endblock %}{{ self.end() }}{% endblock %}",
        thing_en_txt='{% extends "_base.txt" %}{% block intro %}Mine{% block deep %}!{% endblock %}{% endblock %}',
    )
    assert body(found, "slack") == "Mine!E"


# --- to look at --------------------------------------------------------------------------------------------


def test_samples_show_each_and_tell_in_which_language_it_is_missing(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        thing_en_txt=GENERAL + "{% block slack %}For Slack{% endblock %}",
        thing_de_txt=GENERAL,
    )
    shown = [
        (one.locale, one.vendor, one.message.body if one.message else "")
        for one in all_samples(found, "https://a.example/", "https://a.example/mine")
        if one.template == "thing" and one.example == "event" and one.locale in ("de", "en")
    ]
    assert shown == [("de", "", "General"), ("en", "", "General"), ("en", "slack", "For Slack")]
    assert "thing has no block slack in de: its readers get the general body" in missing(found)
