"""`notifyd route` and `notifyd render`: what an event would set off, told offline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from notifyd.cli import cli
from tests import events

CONFIG = """
[server]
public_url = "https://notifyd.acme.example"

[keys]
seal = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]

[channels.team]
type = "log"

[channels.mail]
type = "email"
host = "smtp.acme.example"
from = "notifyd@acme.example"

[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval" && event.labels.environment == "production"'
channels = ["team", "mail"]
to = ["alice@acme.example", "bob@acme.example", "carol@acme.example"]

[[rules]]
name = "staging"
when = 'event.kind == "pack.approval" && event.labels.environment == "staging"'
channels = ["team"]

[[rules]]
name = "regional"
when = 'event.kind == "pack.approval" && event.labels.region == "eu"'
channels = ["team"]

[[rules]]
name = "tasks"
when = 'event.kind == "task.done"'
channels = ["team"]
stop = true

[[rules]]
name = "late"
when = 'event.tenant.id == "acme"'
channels = ["team"]
lists = []

[recipients."bob@acme.example"]
locale = "de-CH"
zone = "Europe/Zurich"
"""


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "notifyd.toml"
    path.write_text(CONFIG)
    return path


def run(config_path: Path, *args: str, event: Any = None) -> Result:
    command, *rest = args
    given = json.dumps(event) if not isinstance(event, str) else event
    return CliRunner().invoke(cli, [command, "--config", str(config_path), *rest], input=given)


def route_json(config_path: Path, event: Any, *options: str) -> Any:
    result = run(config_path, "route", "--json", *options, "-", event=event)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# --- route -------------------------------------------------------------------------------------------------


def test_route_tells_of_each_rule_whether_it_matches_and_why_not(config_path: Path) -> None:
    rules = route_json(config_path, events.load("requested-en"))["rules"]
    assert [(rule["name"], rule["verdict"]) for rule in rules] == [
        ("approvals", "matched"),
        ("staging", "not_matched"),
        ("regional", "error"),
        ("tasks", "not_matched"),
        ("late", "matched"),
    ]
    assert rules[1]["detail"] == '`event.labels.environment == "staging"` is false'
    assert rules[2]["detail"] == "the event has no 'region'"


def test_route_tells_whom_a_message_goes_to_once_for_those_who_read_the_same(config_path: Path) -> None:
    messages = route_json(config_path, events.load("requested-en"))["messages"]
    assert [(m["rule"], m["channel"], m["recipients"], m["locale"], m["canDecide"]) for m in messages] == [
        ("approvals", "team", [], messages[0]["locale"], False),
        ("approvals", "mail", ["alice@acme.example", "carol@acme.example"], messages[1]["locale"], True),
        ("approvals", "mail", ["bob@acme.example"], "de-CH", True),
        ("late", "team", [], messages[3]["locale"], False),
    ]
    assert messages[0]["message"]["title"] != messages[2]["message"]["title"]
    assert messages[0]["message"]["html"] is None
    assert messages[1]["message"]["html"].startswith("<!DOCTYPE html>")


def test_route_shows_no_link_that_works_and_no_token(config_path: Path) -> None:
    event = events.load("requested-en")
    result = run(config_path, "route", "--json", "-", event=event)
    links = set(re.findall(r"https://notifyd\.acme\.example/[^\s\"\\<>]*", result.stdout))
    assert links == {f"https://notifyd.acme.example/approvals/{path}…" for path in ("", "mine/")}
    assert event["resume"]["token"] not in result.output


def test_route_shows_messages_as_their_readers_see_them(config_path: Path) -> None:
    result = run(config_path, "route", "-", event=events.load("requested-en"))
    assert result.exit_code == 0
    text = result.stdout
    assert "✓ approvals" in text
    assert '✗ staging  did not match: `event.labels.environment == "staging"` is false' in text
    assert "team (log) to all who read it" in text
    assert "mail (email) to bob@acme.example" in text
    assert "https://notifyd.acme.example/approvals/…" in text


def test_a_hostile_event_steers_no_terminal(config_path: Path) -> None:
    result = run(config_path, "route", "-", event=events.load("requested-hostile"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", result.stdout)


def test_a_cloud_event_is_of_the_tenant_it_names_or_that_is_given(config_path: Path) -> None:
    event = events.load("cloudevent-task-done")
    del event["tenant"]
    found = route_json(config_path, event, "--tenant", "acme")
    assert [(rule["name"], rule["verdict"]) for rule in found["rules"]][3:] == [
        ("tasks", "matched"),
        ("late", "not_reached"),
    ]
    refused = run(config_path, "route", "-", event=event)
    assert refused.exit_code == 1
    assert "/tenant: is required, or say which tenant is meant" in refused.stderr


def test_an_event_that_nobody_hears_of_says_so(config_path: Path) -> None:
    event = events.load("hold-en") | {"tenant": {"id": "globex"}}
    result = run(config_path, "route", "-", event=event)
    assert (result.exit_code, "Nobody is told." in result.stdout) == (0, True)


def test_an_event_that_is_not_valid_is_refused_with_every_fault(config_path: Path) -> None:
    result = run(config_path, "route", "-", event={"type": "PackApprovalRequested", "surprise": 1})
    assert result.exit_code == 1
    assert "/surprise: is not a known member" in result.stderr
    assert "/planHash: is required" in result.stderr
    assert run(config_path, "route", "-", event="{").exit_code == 1


def test_an_event_whose_members_do_not_go_together_is_refused_as_posting_it_would_be(
    config_path: Path,
) -> None:
    group = {"name": "Security", "grant": "Sec", "required": 1}
    unsafe = {"name": "version", "type": "text", "pattern": "(?=v)v"}
    wrong = events.load("requested-en") | {"approvalGroups": [group, group], "inputs": [unsafe]}
    result = run(config_path, "route", "-", event=wrong)
    assert result.exit_code == 1
    assert "/approvalGroups/1/name: is the name of an earlier group too" in result.stderr
    assert "/inputs/0/pattern: must be a regular expression" in result.stderr


def test_a_configuration_that_is_not_valid_is_refused_with_its_faults(config_path: Path) -> None:
    config_path.write_text(CONFIG.replace('"smtp.acme.example"', "7"))
    result = run(config_path, "route", "-", event=events.load("requested-en"))
    assert (result.exit_code, "channels.mail.host" in result.stderr) == (1, True)


def test_a_message_that_cannot_be_rendered_is_named_and_fails_the_command(config_path: Path) -> None:
    folder = config_path.parent / "templates"
    folder.mkdir()
    text = "{% block title %}{{ event.runId // 0 }}{% endblock %}{% block body %}{% endblock %}"
    (folder / "pack-approval.en.txt").write_text(text)
    config_path.write_text(CONFIG + f'\n[templates]\ndirs = ["{folder}"]\n')
    result = run(config_path, "route", "-", event=events.load("requested-en"))
    assert result.exit_code == 1
    assert "cannot be rendered" in result.stdout
    assert "TypeError" in result.stdout


# --- route --expect ----------------------------------------------------------------------------------------

AS_EXPECTED = """
[[events]]
file = "production.json"
reaches = {team = [], mail = ["carol@acme.example", "Bob@acme.example", "alice@acme.example"]}

[[events]]
file = "task.json"
tenant = "acme"
reaches = {team = []}

[[events]]
file = "elsewhere.json"
reaches = {}
"""


def expect(config_path: Path, text: str, *options: str) -> Result:
    folder = config_path.parent / "events"
    folder.mkdir(exist_ok=True)
    task = events.load("cloudevent-task-done")
    del task["tenant"]
    for name, event in {
        "production": events.load("requested-en"),
        "task": task,
        "elsewhere": events.load("hold-en") | {"tenant": {"id": "globex"}},
        "incomplete": {"type": "PackApprovalRequested", "surprise": 1},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(event))
    (folder / "broken.json").write_text("{")
    (folder / "expected.toml").write_text(text, errors="surrogateescape")
    return run(config_path, "route", "--expect", str(folder / "expected.toml"), *options)


def test_events_that_reach_whom_they_must_are_ok(config_path: Path) -> None:
    result = expect(config_path, AS_EXPECTED)
    assert result.exit_code == 0, result.output
    assert [line[0] for line in result.stdout.splitlines()] == ["✓"] * 3


@pytest.mark.parametrize(
    ("file", "reaches", "differences"),
    [
        (
            "production",
            "{team = []}",
            [
                "mail: is reached, and must not be: it tells "
                "alice@acme.example, carol@acme.example, bob@acme.example"
            ],
        ),
        (
            "task",
            '{team = [], mail = ["dora@acme.example"]}',
            ["mail: is not reached, and must tell dora@acme.example"],
        ),
        (
            "production",
            '{team = [], mail = ["dora@acme.example", "bob@acme.example", "carol@acme.example"]}',
            [
                "mail: does not tell dora@acme.example",
                "mail: tells alice@acme.example too, by the rule approvals",
            ],
        ),
        ("task", "{team = [], teem = []}", ['teem: there is no such channel; did you mean "team"?']),
        ("elsewhere", "{team = []}", ["team: is not reached, and must tell its own audience"]),
        (
            "broken",
            "{}",
            [
                "the event is not JSON: "
                "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
            ],
        ),
    ],
)
def test_a_difference_is_told_with_its_event_and_ends_with_1(
    config_path: Path, file: str, reaches: str, differences: list[str]
) -> None:
    others = [one for one in AS_EXPECTED.split("\n\n") if f'"{file}.json"' not in one]
    last_one = f'[[events]]\nfile = "{file}.json"\ntenant = "acme"\nreaches = {reaches}\n'
    result = expect(config_path, "\n\n".join([*others, last_one]), "--json")
    assert result.exit_code == 1
    *good, last = json.loads(result.stdout)
    assert [one["ok"] for one in good] == [True] * len(others)
    event = str(config_path.parent / "events" / f"{file}.json")
    assert last == {"event": event, "ok": False, "differences": differences}


def test_an_event_of_an_expectation_that_is_not_valid_tells_every_fault(config_path: Path) -> None:
    result = expect(config_path, '[[events]]\nfile = "incomplete.json"\nreaches = {}\n')
    assert result.exit_code == 1
    assert "    the event is not valid: /surprise: is not a known member" in result.stdout
    assert "    the event is not valid: /planHash: is required" in result.stdout


def test_a_message_of_an_expectation_that_cannot_be_rendered_is_a_difference(config_path: Path) -> None:
    folder = config_path.parent / "templates"
    folder.mkdir()
    text = "{% block title %}{{ event.runId // 0 }}{% endblock %}{% block body %}{% endblock %}"
    (folder / "pack-approval.en.txt").write_text(text)
    config_path.write_text(CONFIG + f'\n[templates]\ndirs = ["{folder}"]\n')
    result = expect(config_path, AS_EXPECTED)
    assert result.exit_code == 1
    assert "    team: cannot be rendered: " in result.stdout


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("events = []", "events: must name one event at least"),
        ("", "events: is required"),
        (
            '[[events]]\nfile = "a.json"\nreachs = {}\n',
            'events[0].reachs: is not a known key; did you mean "reaches"?',
        ),
        ("[[events]]\nfile = 7\nreaches = {team = 1}\n", "events[0].reaches.team: must be an array"),
        ("[[events]\n", "expected.toml:1:9: a table's name ends"),
        ("# \udcff", "expected.toml:1:3: the byte 0xFF is no UTF-8"),
        ('[[events]]\nfile = "missing.json"\nreaches = {}\n', "expected.toml:2: events[0].file: "),
        ('[[events]]\nfile = "."\nreaches = {}\n', "events[0].file: "),
        (
            AS_EXPECTED + '[[events]]\nfile = "production.json"\nreaches = {}\n',
            "events[3].file: is that of events[0] already",
        ),
        (
            '[[events]]\nfile = "task.json"\nreaches = {mail = ["dora", "dora"]}\n',
            "events[0].reaches.mail: names dora twice",
        ),
    ],
)
def test_expectations_that_are_not_valid_are_refused_with_every_fault_and_end_with_2(
    config_path: Path, text: str, fault: str
) -> None:
    result = expect(config_path, text)
    assert result.exit_code == 2
    assert fault in result.stderr


def test_route_takes_an_event_or_expectations_and_not_both(config_path: Path) -> None:
    assert run(config_path, "route").exit_code == 2
    assert run(config_path, "route", "--expect", "expected.toml", "-", event={}).exit_code == 2


# --- render ------------------------------------------------------------------------------------------------


def test_render_writes_an_event_in_the_language_asked_for(config_path: Path) -> None:
    event = events.load("requested-en")
    english = run(config_path, "render", "pack-approval", "-", event=event)
    german = run(config_path, "render", "--locale", "de-CH", "pack-approval", "-", event=event)
    assert (english.exit_code, german.exit_code) == (0, 0)
    assert english.stdout != german.stdout
    assert "https://notifyd.acme.example/approvals/…" in german.stdout


def test_render_writes_a_mail_as_html(config_path: Path) -> None:
    result = run(config_path, "render", "--html", "pack-approval", "-", event=events.load("requested-en"))
    assert result.stdout.startswith("<!DOCTYPE html>")


def test_render_gives_an_object_that_is_no_event_to_the_template_as_it_is(config_path: Path) -> None:
    event = {"channel": "team", "occurredAt": "2026-11-21T10:00:00Z"}
    result = run(config_path, "render", "--json", "channel-test", "-", event=event)
    fields = json.loads(result.stdout)["fields"]
    assert fields[0] == {"name": "Channel", "value": "team"}


def test_times_are_told_in_the_zone_asked_for(config_path: Path) -> None:
    event = {"channel": "team", "occurredAt": "2026-11-21T10:00:00Z"}
    there = run(config_path, "render", "--zone", "Asia/Tokyo", "channel-test", "-", event=event)
    assert "7:00" in there.stdout


def test_a_zone_that_there_is_not_is_wrong_usage(config_path: Path) -> None:
    result = run(config_path, "render", "pack-approval", "-", "--zone", "Mars/Base", event={})
    assert result.exit_code == 2
    assert 'must be a time zone, such as "Europe/Zurich"' in result.stderr


def test_json_that_is_nested_too_deeply_is_told(config_path: Path) -> None:
    result = run(config_path, "route", "-", event="[" * 100_000)
    assert (result.exit_code, result.stderr) == (
        1,
        "notifyd: standard input is not JSON: it is nested too deeply\n",
    )


@pytest.mark.parametrize("number", ["1e400", "NaN", "-Infinity", "9007199254740993"])
@pytest.mark.parametrize("command", [("route",), ("render", "pack-approval")], ids=" ".join)
def test_a_number_that_posting_refuses_is_refused(
    config_path: Path, command: tuple[str, ...], number: str
) -> None:
    given = f'{{"specversion": "1.0", "id": "1", "source": "/ci", "type": "t", "data": {{"n": {number}}}}}'
    result = run(config_path, *command, "-", "--tenant", "acme", event=given)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("notifyd: standard input")
    assert isinstance(result.exception, SystemExit)


def test_an_unknown_template_is_refused_with_the_names_there_are(config_path: Path) -> None:
    result = run(config_path, "render", "pack-aproval", "-", event=events.load("requested-en"))
    assert result.exit_code == 1
    assert "there is no such template" in result.stderr
    assert "pack-approval" in result.stderr


def test_a_block_for_a_type_is_shown_to_its_channels_and_on_request(config_path: Path) -> None:
    folder = config_path.parent / "own"
    folder.mkdir()
    own = '{% extends "builtin/pack-approval.en.txt" %}{% block log %}For the log.{% endblock %}'
    (folder / "pack-approval.en.txt").write_text(own)
    config_path.write_text(f'{CONFIG}\n[templates]\ndirs = ["own"]\n')
    asked = ("render", "pack-approval", "-", "--type")
    event = events.load("requested-en")
    assert "For the log." in run(config_path, *asked, "log", event=event).stdout
    assert "For the log." not in run(config_path, *asked, "email", event=event).stdout
    assert "For the log." in run(config_path, "route", "-", event=event).stdout
    refused = run(config_path, *asked, "lgo", event=event)
    assert (refused.exit_code, refused.stderr.startswith('notifyd: no plugin brings the type "lgo"')) == (
        1,
        True,
    )


# --- the files ---------------------------------------------------------------------------------------------


def shown(config_path: Path, *args: str) -> Result:
    return CliRunner().invoke(cli, ["templates", *args, "--config", str(config_path)])


def test_a_template_is_printed_as_it_is_used_and_its_file_is_named(config_path: Path) -> None:
    text = "{% block title %}t{% endblock %}\n{% block body %}b{% endblock %}\n\n"
    (config_path.parent / "own").mkdir()
    (config_path.parent / "own" / "event.de.txt").write_text(text)
    config_path.write_text(f'{CONFIG}\n[templates]\ndirs = ["own"]\n')
    mine = shown(config_path, "show", "event", "--locale", "de-CH")
    assert (mine.stdout, mine.stderr) == (text, f"{config_path.parent}/own/event.de.txt\n")
    built_in = shown(config_path, "show", "event")
    assert built_in.stderr == "notifyd/templates/event.en.txt extends notifyd/templates/_event.txt\n"
    assert built_in.stdout.startswith('{% extends "_event.txt" %}')
    assert shown(config_path, "show", "_event.txt").stdout.startswith("{# Any event")
    assert "_mail.html" in shown(config_path, "show", "event", "--html").stdout
    listed = json.loads(shown(config_path, "list", "--json").stdout)
    assert {"template": "event", "locale": "de", "file": f"{config_path.parent}/own/event.de.txt"} in listed
    assert {"template": "event", "locale": "fr", "file": "notifyd/templates/event.fr.txt"} in listed


def test_a_template_that_there_is_not_is_told_with_the_nearest(config_path: Path) -> None:
    result = shown(config_path, "show", "pack-aproval")
    assert result.exit_code == 1
    assert result.stderr == "notifyd: there is no template 'pack-aproval'; did you mean \"pack-approval\"?\n"


# --- everything at once ------------------------------------------------------------------------------------


def everything(tmp_path: Path, *more: str, **templates: str) -> Result:
    folder = tmp_path / "templates"
    folder.mkdir()
    for name, text in templates.items():
        (folder / name.replace("_", ".")).write_text(text)
    config = tmp_path / "notifyd.toml"
    config.write_text(f'{CONFIG}\n[templates]\ndirs = ["{folder}"]\n')
    return CliRunner().invoke(cli, ["render", "--all", "--config", str(config), *more])


def test_every_template_is_shown_in_every_locale_as_text_and_as_a_page(tmp_path: Path) -> None:
    page = tmp_path / "all.html"
    result = everything(tmp_path, "--page", str(page))
    assert result.exit_code == 0, result.output
    for heading in ("pack-approval · fr · not resumed", "digest · ja · digest", "event · de-CH · event"):
        assert heading in result.output
        assert heading in page.read_text()
    assert "missing" not in result.output
    assert page.read_text().count("<iframe sandbox srcdoc=") == result.output.count(" · ") // 2


def test_what_is_missing_is_named_and_a_template_that_fails_ends_with_1(tmp_path: Path) -> None:
    block = "{% block title %}t{% endblock %}{% block body %}"
    result = everything(tmp_path, release_en_txt=block + "{{ 1 // 0 }}{% endblock %}")
    assert result.exit_code == 1
    assert "missing: release is not written in ja" in result.output
    assert "cannot be rendered: template release.en.txt:1, locale en: ZeroDivisionError" in result.output


def test_all_is_told_to_programs_too(tmp_path: Path) -> None:
    told = json.loads(everything(tmp_path, "--json").stdout)
    assert told["missing"] == []
    assert {"template": "event", "locale": "es", "example": "event"}.items() <= told["messages"][
        [one["template"] + one["locale"] for one in told["messages"]].index("eventes")
    ].items()


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    result = everything(tmp_path, "--page", str(tmp_path / "nowhere" / "page.html"))
    assert result.exit_code == 1
    assert result.stderr == f"notifyd: {tmp_path}/nowhere/page.html: No such file or directory\n"


def test_a_template_and_an_event_are_needed_unless_all_is_asked_for() -> None:
    result = CliRunner().invoke(cli, ["render"])
    assert result.exit_code == 2
    assert "--all" in result.output
