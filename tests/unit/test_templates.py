"""The templates that come with notifyd: every action, in every language, in all the ways an event can be."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

from notifyd.model import SECOND, Level
from notifyd.render.locales import formats_for
from notifyd.render.render import Digest, DigestItem, Rendered, TemplateSet
from tests import events

LINK = "https://notify.acme.example/approvals/eyJhbGciOiJkaXIifQ.c2VhbGVk"
LOCALES = ("en", "de", "fr", "es", "ja")
START = 1_793_779_200 * SECOND  # 2026-11-04T08:00:00Z

KINDS = {
    "PackApprovalRequested": ("pack.approval", "requested"),
    "PackApprovalUpdated": ("pack.approval", "updated"),
    "PackPolicyHold": ("pack.policy", "hold"),
    "PackPolicyReleased": ("pack.policy", "released"),
}


@cache
def templates() -> TemplateSet:
    return TemplateSet.load([], [], "en")


def seen(name: str) -> dict[str, Any]:
    """An event of `tests/data/` as rules and templates see it."""
    document = events.load(name)
    if name in events.CLOUD_EVENTS:
        tenant = {"id": document.get("tenant", "acme")}
        return document | {"kind": document["type"], "action": "", "tenant": tenant}
    kind, action = KINDS[document["type"]]
    document.get("resume", {}).pop("token", None)
    return document | {"kind": kind, "action": action, "round": 1}


def noticed(action: str, name: str = "requested-en", **facts: Any) -> dict[str, Any]:
    """What notifyd itself tells of an approval."""
    return seen(name) | {"action": action, "occurredAt": "2026-11-05T10:00:00Z", **facts}


def decided(
    choice: str, status: str, received: int, required: int, *, groups: Any = None, **decision: Any
) -> dict[str, Any]:
    told = {"decision": choice, "actor": "bob@acme.example", "decidedAt": "2026-11-05T09:59:00Z", **decision}
    approvals = {"received": received, "required": required} | ({"groups": groups} if groups else {})
    return noticed("acknowledged", decision=told, status=status, approvals=approvals)


EVENTS: dict[str, dict[str, Any]] = {
    **{name: seen(name) for name in events.NAMES},
    "new-round": seen("requested-replanned") | {"round": 2},
    "new-round-hostile": seen("requested-hostile") | {"round": 2},
    "approved": decided("approved", "approved", 1, 1, comment="Looks good."),
    "approved-by-all": decided("approved", "approved", 2, 2),
    "approved-by-some": decided("approved", "pending", 1, 2, comment=None),
    "overridden": decided("approved", "approved", 1, 3, comment="The shop is down.", breakGlass=True),
    "filled-in": decided("approved", "approved", 1, 1, inputs={"version": "v7", "drain": False})
    | {
        "inputs": [
            {"name": "version", "label": "Version to deploy", "type": "text"},
            {"name": "drain", "type": "boolean"},
            {"name": "note", "type": "text"},
        ]
    },
    "grouped": decided(
        "approved",
        "pending",
        1,
        2,
        groups=[
            {"name": "Security", "required": 1, "received": 1, "actors": ["bob@acme.example"]},
            {"name": "Operations", "required": 1, "received": 0, "actors": []},
        ],
    ),
    "rejected": decided("rejected", "rejected", 0, 2, comment="Not today.\nAsk again tomorrow."),
    "expired": noticed("expired", status="expired", approvals={"received": 0, "required": 1}),
    "resumed": noticed("resumed", status="approved", resume={"status": "delivered", "reason": None}),
    "resumed-rejected": noticed("resumed", status="rejected", resume={"status": "delivered"}),
    "resume-failed": noticed(
        "resume_failed", status="approved", resume={"status": "failed", "reason": "rejected"}
    ),
    "resume-failed-hostile": noticed(
        "resume_failed", "requested-hostile", status="approved", resume={"reason": "<b>\n{{ 7 * 7 }}"}
    ),
}

TEMPLATE_OF = {"pack.approval": "pack-approval", "pack.policy": "pack-policy"}


def render(name: str, locale: str = "en", **given: Any) -> Rendered:
    event = EVENTS[name]
    template = given.pop("template", TEMPLATE_OF.get(event["kind"], "event"))
    options: dict[str, Any] = {"zone": "Europe/Zurich", "link": LINK, "can_decide": False} | given
    return templates().render(template, locale, event=event, **options)


class Page(HTMLParser):
    """The tags, attributes and text of an HTML document; raises where tags do not nest."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


KNOWN_TAGS = frozenset("html head meta title style body table tr td p h1 ul li br a".split())  # noqa: SIM905
KNOWN_ATTRIBUTES = frozenset(
    "lang dir charset name content style class role width cellpadding cellspacing border align "  # noqa: SIM905
    "valign bgcolor href".split()
)
CASES = [(name, locale) for name in EVENTS for locale in LOCALES]


# --- every template, every action, every language ----------------------------------------------------------


def leftovers(text: str) -> Iterator[str]:
    yield from re.findall(r"\bNone\b|Undefined|Missing|\{\{|\}\}|\{%|<built-in|\bobject at 0x", text)


@pytest.mark.parametrize(("name", "locale"), [c for c in CASES if "hostile" not in c[0]])
def test_message_is_whole(name: str, locale: str) -> None:
    """A title, facts, a labelled link, and nothing left of the machinery."""
    rendered = render(name, locale, can_decide=True)
    assert rendered.title
    assert rendered.title.strip() == rendered.title
    assert rendered.fields
    assert [action.url for action in rendered.actions] == [LINK]
    assert rendered.locale == locale
    texts = [rendered.title, rendered.body, rendered.actions[0].label]
    texts += [text for field in rendered.fields for text in (field.name, field.value)]
    assert rendered.html is not None
    assert not [found for text in (*texts, Page(rendered.html).text) for found in leftovers(text)]
    assert not re.search(r"[ \t]\n|\n\n\n|: \n|\A\s|\s\Z", rendered.body)


@pytest.mark.parametrize(("name", "locale"), CASES)
def test_html_twin_says_what_the_text_says_and_nothing_else(name: str, locale: str) -> None:
    rendered = render(name, locale, can_decide=True)
    assert rendered.html is not None
    page = Page(rendered.html)
    words = page.text
    for text in (rendered.title, *(line.removeprefix("- ") for line in rendered.body.split("\n"))):
        assert " ".join(text.split()) in words
    for field in rendered.fields:
        assert f"{field.name} {field.value}" in words
    assert rendered.actions[0].label in words
    assert page.values("href") == [LINK]


def written(moment: str, locale: str, zone: str) -> str:
    """A time as a reader writes it, on one line."""
    return " ".join(formats_for(locale, zone).datetime(moment).split())


@pytest.mark.parametrize(
    ("locale", "zone", "label"),
    [
        ("de-CH", "Europe/Zurich", "Frist"),
        ("en", "America/New_York", "Decide by"),
    ],
)
def test_a_mail_shows_the_deadline_in_the_readers_zone_beside_the_subject_and_above_the_text(
    locale: str, zone: str, label: str
) -> None:
    html = render("requested-en", locale, zone=zone).html or ""
    words = f"{label} {written('2026-11-05T09:30:00Z', locale, zone)}"
    preview = html[html.index("display:none") : html.index("<table")]
    assert f"{words} · ci@acme.example" in preview
    text = Page(html).text
    assert text.count(words) == 2
    assert text.rindex(words) < text.index("instant transfers")


@pytest.mark.parametrize(("name", "locale"), CASES)
def test_html_is_safe_whatever_the_event_says(name: str, locale: str) -> None:
    """Only the layout's own tags and attributes, no address but the link, nothing that is loaded."""
    html = render(name, locale).html
    assert html is not None
    page = Page(html)
    assert page.tags <= KNOWN_TAGS
    assert {name for _, name, _ in page.attributes} <= KNOWN_ATTRIBUTES
    assert set(page.values("href")) <= {LINK}
    assert "url(" not in " ".join(page.values("style"))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    assert len(html) < 100_000  # beyond 102 kB Gmail cuts a mail


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", ["requested-hostile", "new-round-hostile", "resume-failed-hostile"])
def test_hostile_text_stays_text(name: str, locale: str) -> None:
    rendered = render(name, locale)
    texts = [rendered.title, rendered.body]
    texts += [text for field in rendered.fields for text in (field.name, field.value)]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "".join(texts))
    assert all("\n" not in text for text in texts if text != rendered.body)
    assert len(rendered.title) <= 250
    assert len(rendered.body) <= 20_000
    assert all(len(field.value) <= 1000 for field in rendered.fields)
    assert "49" not in rendered.body


SAME_WORD = {"Plan", "Source"}
"""What another language may call as English does."""


@pytest.mark.parametrize("locale", LOCALES[1:])
def test_every_language_gives_the_same_facts_as_english(locale: str) -> None:
    for name in EVENTS:
        english, other = render(name, "en", zone="UTC"), render(name, locale, zone="UTC")
        assert len(english.fields) == len(other.fields)
        assert english.level is other.level
        assert english.body.count("\n\n") == other.body.count("\n\n")
        names = [(e.name, o.name) for e, o in zip(english.fields, other.fields, strict=True)]
        if "hostile" not in name:  # whose labels are cut
            assert {e for e, o in names if e == o} - set(EVENTS[name].get("labels", ())) <= SAME_WORD


def test_german_suits_swiss_readers_too() -> None:
    """`de` is what `de-CH` falls back to, where there is no ß."""
    for name in EVENTS:
        if "hostile" not in name:
            rendered = render(name, "de")
            assert "ß" not in rendered.title + rendered.body + (rendered.html or "")


# --- approvals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "english", "german", "level"),
    [
        ("requested-en", "Approval needed: ", "Freigabe nötig: ", Level.WARNING),
        (
            "new-round",
            "Plan changed, approval needed again: ",
            "Plan geändert, Freigabe erneut nötig: ",
            Level.WARNING,
        ),
        ("updated-approved", "Approved: ", "Freigegeben: ", Level.SUCCESS),
        ("updated-rejected", "Rejected: ", "Abgelehnt: ", Level.ERROR),
        ("updated-expired", "Approval expired: ", "Anfrage abgelaufen: ", Level.WARNING),
        ("updated-cancelled", "Cancelled: ", "Zurückgezogen: ", Level.INFO),
        ("approved", "Approved: ", "Freigegeben: ", Level.SUCCESS),
        ("approved-by-all", "Approved: ", "Freigegeben: ", Level.SUCCESS),
        ("approved-by-some", "1 of 2 approvals: ", "1 von 2 Freigaben: ", Level.INFO),
        ("rejected", "Rejected: ", "Abgelehnt: ", Level.ERROR),
        ("expired", "Approval expired: ", "Anfrage abgelaufen: ", Level.WARNING),
        ("resumed", "Run resumed: ", "Lauf fortgesetzt: ", Level.SUCCESS),
        (
            "resumed-rejected",
            "Runner told of the rejection: ",
            "Ablehnung an Runner übermittelt: ",
            Level.SUCCESS,
        ),
        (
            "resume-failed",
            "Runner not told of the decision: ",
            "Entscheidung nicht an Runner übermittelt: ",
            Level.ERROR,
        ),
        ("hold-en", "Run on hold: ", "Lauf angehalten: ", Level.WARNING),
        ("released-en", "Hold released: ", "Sperre aufgehoben: ", Level.SUCCESS),
    ],
)
def test_title_and_level_tell_what_happened(name: str, english: str, german: str, level: Level) -> None:
    assert render(name, "en").title.startswith(english)
    assert render(name, "de").title.startswith(german)
    assert render(name, "en").level is level


@pytest.mark.parametrize(
    ("locale", "decides", "views"),
    [("en", "Review and decide", "View the plan"), ("de", "Prüfen und entscheiden", "Plan ansehen")],
)
def test_link_is_called_what_it_can_do(locale: str, decides: str, views: str) -> None:
    assert [a.label for a in render("requested-en", locale, can_decide=True).actions] == [decides]
    assert [a.label for a in render("requested-en", locale, can_decide=False).actions] == [views]
    assert render("requested-en", locale, link=None).actions == ()


def test_personal_link_comes_with_a_warning_and_any_other_without() -> None:
    assert "do not forward" in render("requested-en", can_decide=True).body
    assert "nicht weiterleiten" in render("requested-en", "de", can_decide=True).body
    assert "forward" not in render("requested-en", can_decide=False).body
    assert "forward" not in render("requested-en", can_decide=True, link=None).body


@pytest.mark.parametrize("locale", LOCALES)
def test_a_message_never_says_that_its_link_is_enough_where_deciding_takes_a_sign_in(locale: str) -> None:
    by_link = render("requested-en", locale, can_decide=True)
    signed_in = render("requested-en", locale, can_decide=True, signs_in=True)
    told, instead = (one.body.rstrip().rpartition("\n")[2] for one in (by_link, signed_in))
    assert told != instead
    assert told not in f"{signed_in.body}{signed_in.html}"
    assert html.escape(instead) in (signed_in.html or "")
    assert instead not in render("requested-en", locale, can_decide=False, signs_in=True).body


def test_request_shows_what_an_approver_decides_on() -> None:
    event = EVENTS["requested-en"]
    rendered = render("requested-en")
    facts = {field.name: field.value for field in rendered.fields}
    assert facts["Run"] == event["runId"]
    assert facts["Plan"] == event["planHash"][:19]
    assert facts["Requested by"] == event["requestedBy"]
    assert facts["Environment"] == event["labels"]["environment"]
    assert all(f"- {step['name']}" in rendered.body for step in event["steps"])
    assert all(f"- {name}: " in rendered.body for name in event["parameters"])
    assert event["message"]["summary"] in rendered.body


def test_request_without_anything_optional_still_reads_well() -> None:
    rendered = render("requested-minimal")
    run = EVENTS["requested-minimal"]["runId"]
    assert rendered.title == f"Approval needed: {run}"
    assert rendered.body == f"Approval is needed for run {run}."
    assert [field.name for field in rendered.fields] == ["Run", "Plan"]


def test_decision_names_who_decided_when_and_why() -> None:
    rendered = render("rejected", "en-GB")
    facts = {field.name: field.value for field in rendered.fields}
    assert "bob@acme.example rejected the plan." in rendered.body
    assert "Comment:\nNot today.\nAsk again tomorrow." in rendered.body
    assert facts["Decided by"] == "bob@acme.example"
    assert facts["Decided"] == written("2026-11-05T09:59:00Z", "en-GB", "Europe/Zurich")
    assert facts["Approvals"] == "0 of 2"


def test_new_round_says_that_earlier_decisions_are_void() -> None:
    assert "Earlier decisions no longer count" in render("new-round").body
    assert "Frühere Entscheidungen gelten nicht mehr" in render("new-round", "de").body
    assert "Earlier decisions" not in render("requested-replanned").body


def test_failed_resume_says_why() -> None:
    body = render("resume-failed").body
    assert "the runner has not taken it.\n\nThe runner refused the call: it may still be waiting." in body
    answered = noticed("resume_failed", status="approved", resume={"reason": "rejected", "answered": 400})
    body = templates().render("pack-approval", "en", event=answered).body
    assert "The runner answered 400: it may still be waiting." in body


@pytest.mark.parametrize("locale", LOCALES)
def test_lists_that_are_too_long_say_how_much_more_there_is(locale: str) -> None:
    event = EVENTS["requested-en"] | {
        "steps": [{"id": f"step-{n:02}"} for n in range(25)],
        "parameters": {f"key-{n:02}": n for n in range(23)},
    }
    body = templates().render("pack-approval", locale, event=event).body
    assert "- step-19\n- … (+5)" in body
    assert "- key-19: 19\n- … (+3)" in body


# --- policies, other events --------------------------------------------------------------------------------


@pytest.mark.parametrize("locale", LOCALES)
def test_hold_lists_what_the_policy_says(locale: str) -> None:
    event = EVENTS["hold-en"]
    rendered = render("hold-en", locale)
    assert all(f"- {message}" in rendered.body for message in event["policy"]["messages"])
    assert rendered.fields[0].value == event["policy"]["id"]


def test_unknown_event_is_shown_as_keys_and_values() -> None:
    event = {
        "kind": "disk.full",
        "source": "/hosts/db1",
        "subject": "sda1",
        "time": "2026-11-04T09:00:00Z",
        "data": {"free": 0, "paths": ["/var", "/srv"], "host": {"name": "db1"}, "ok": False, "note": None},
    }
    rendered = templates().render("event", "en", event=event)
    assert rendered.title == "disk.full: sda1"
    assert rendered.body == '- free: 0\n- host: {"name": "db1"}\n- ok: false\n- paths: /var, /srv'
    assert [(f.name, f.value) for f in rendered.fields] == [
        ("Event", "disk.full"),
        ("Source", "/hosts/db1"),
        ("Subject", "sda1"),
        ("Time", written("2026-11-04T09:00:00Z", "en", "UTC")),
    ]


def test_event_may_bring_its_own_title_text_and_level() -> None:
    data = {"title": "Task done", "body": "All\ngreen", "summary": "short", "level": "success"}
    rendered = templates().render("event", "en", event={"kind": "task.done", "data": data})
    assert (rendered.title, rendered.level) == ("Task done", Level.SUCCESS)
    assert rendered.body == "All\ngreen\n\n- summary: short"


@pytest.mark.parametrize(
    "data", [None, [], {}, "text", 5, True, [1, {"a": None}], {"title": {"a": 1}, "body": [1]}]
)
def test_any_json_is_a_possible_event(data: Any) -> None:
    rendered = templates().render("event", "de", event={"kind": "a.b", "data": data})
    assert rendered.title
    assert not list(leftovers(rendered.title + rendered.body))


@pytest.mark.parametrize("name", ["items", "keys", "get", "title", "__class__", "level", "count"])
def test_members_named_like_methods_are_members(name: str) -> None:
    rendered = templates().render("event", "en", event={"kind": "a.b", name: "x", "data": {name: "value"}})
    assert "value" in rendered.title + rendered.body or name == "level"
    labels = EVENTS["requested-en"] | {"labels": {name: "value"}, "parameters": {name: 1}}
    assert (name, "value") in [
        (f.name, f.value) for f in templates().render("pack-approval", "en", event=labels).fields
    ]


# --- digest and test message -------------------------------------------------------------------------------


def digest(count: int, listed: int) -> Digest:
    items = [DigestItem(f"Message {n} <b>", f"{LINK}/{n}", Level.ERROR) for n in range(listed)]
    return Digest(count, tuple(items), START, START + 90 * SECOND, rule="stages")


@pytest.mark.parametrize(("locale", "more"), [("en", "and 988 more"), ("de", "und 988 weitere")])
def test_digest_counts_lists_the_first_with_their_links_and_says_how_many_more(
    locale: str, more: str
) -> None:
    rendered = templates().render("digest", locale, event={}, digest=digest(1000, 30))
    assert re.match(r"1[,.]000 (messages|Meldungen): stages", rendered.title)
    assert rendered.body.endswith(more)
    assert [(one.label, one.url) for one in rendered.actions] == [
        (f"Message {n} <b>", f"{LINK}/{n}") for n in range(12)
    ]
    assert rendered.level is Level.ERROR
    assert rendered.html is not None
    page = Page(rendered.html)
    assert page.values("href") == [f"{LINK}/{n}" for n in range(12)]
    assert more in page.text
    assert page.tags <= KNOWN_TAGS


@pytest.mark.parametrize("locale", LOCALES)
def test_a_digest_for_a_person_leads_to_all_that_waits_for_them(locale: str) -> None:
    mine = LINK.replace("/approvals/", "/approvals/mine/")
    rendered = templates().render("digest", locale, event={}, digest=digest(1000, 30), mine=mine)
    # The first of the links: a channel that has no room for all leaves out the last ones.
    assert [one.url for one in rendered.actions] == [mine, *(f"{LINK}/{n}" for n in range(12))]
    assert rendered.actions[0].label
    page = Page(rendered.html or "")
    assert page.values("href") == [*(f"{LINK}/{n}" for n in range(12)), mine]
    assert rendered.actions[0].label in page.text
    asked = templates().render(
        "pack-approval", locale, event=EVENTS["requested-en"], link=LINK, mine=mine, can_decide=True
    )
    assert asked.actions[-1] == rendered.actions[0]
    warning = asked.body.rpartition("\n\n")[2]
    assert warning in rendered.body


def test_digest_tells_its_window_in_the_readers_zone() -> None:
    rendered = templates().render("digest", "de-CH", event={}, zone="Europe/Zurich", digest=digest(2, 2))
    assert [(f.name, f.value) for f in rendered.fields] == [
        ("Regel", "stages"),
        ("Von", written("2026-11-04T08:00:00Z", "de-CH", "Europe/Zurich")),
        ("Bis", written("2026-11-04T08:01:30Z", "de-CH", "Europe/Zurich")),
    ]
    assert "weitere" not in rendered.body


def test_digest_of_one_message_without_a_link_reads_well() -> None:
    one = Digest(1, (DigestItem("Only\nthis"),), START, START)
    rendered = templates().render("digest", "en", event={}, digest=one)
    assert rendered.title == "1 message"
    assert rendered.body == "1 message was gathered into this one.\n\n- Only this"
    assert rendered.level is Level.INFO


@pytest.mark.parametrize("locale", LOCALES)
def test_test_message_names_its_channel(locale: str) -> None:
    event = {"channel": "team-slack", "occurredAt": "2026-11-04T09:00:00Z"}
    rendered = templates().render("channel-test", locale, event=event)
    assert "notifyd" in rendered.title
    assert "team-slack" in rendered.body
    assert rendered.fields[0].value == "team-slack"
    assert not list(leftovers(rendered.body + Page(rendered.html or "").text))


@pytest.mark.parametrize(
    ("locale", "says"),
    [
        ("en", "Fire drill"),
        ("de", "Probealarm"),
        ("fr", "Exercice d’alerte"),
        ("es", "Simulacro"),
        ("ja", "訓練"),
    ],
)
def test_a_drill_says_so_in_the_readers_language(locale: str, says: str) -> None:
    event = {"channel": "team-slack", "occurredAt": "2026-11-04T09:00:00Z"}
    drill = templates().render("channel-test", locale, event={**event, "drill": True})
    plain = templates().render("channel-test", locale, event=event)
    assert says in drill.title
    assert says not in plain.title
    assert drill.body.endswith(plain.body)
    assert drill.body != plain.body


# --- the mail as a page ------------------------------------------------------------------------------------


def test_mail_is_fit_for_dark_mode_and_names_its_language() -> None:
    html = render("requested-de", "de-CH").html or ""
    assert html.startswith('<!DOCTYPE html>\n<html lang="de-CH" dir="ltr">')
    assert '<meta name="color-scheme" content="light dark">' in html
    assert "@media (prefers-color-scheme:dark)" in html


def test_a_long_word_makes_no_part_of_a_mail_wider_than_a_phone() -> None:
    html = render("requested-en").html or ""
    card = re.search(r'<table[^>]*class="card"[^>]*>', html)
    assert card is not None
    assert "word-break:break-word" in card[0], "all that the card holds inherits it"


def test_mail_has_one_button_and_the_plan_in_monospace() -> None:
    html = render("requested-en", can_decide=True).html or ""
    assert html.count("<a ") == 1
    assert re.search(r"<td[^>]*monospace[^>]*>sha256:[0-9a-f]{12}</td>", html)


def test_all_languages_have_all_templates() -> None:
    assert templates().names == ("channel-test", "digest", "event", "pack-approval", "pack-policy")
    assert {templates().locales(name) for name in templates().names} == {("de", "en", "es", "fr", "ja")}


@pytest.mark.parametrize("locale", LOCALES)
def test_that_the_glass_was_broken_reads_as_no_ordinary_approval(locale: str) -> None:
    told, ordinary = render("overridden", locale), render("approved", locale)
    assert told.title.partition(":")[0] != ordinary.title.partition(":")[0]
    assert ("The shop is down." in told.body, told.level) == (True, Level.WARNING)


@pytest.mark.parametrize("locale", LOCALES)
def test_a_vote_tells_which_group_is_missing_first(locale: str) -> None:
    (lead,) = (field.value for field in render("grouped", locale).fields if field.lead)
    assert lead.startswith("Security 1 ")
    assert ", Operations 0 " in lead


@pytest.mark.parametrize("locale", LOCALES)
def test_what_is_to_be_filled_in_is_told_with_what_is_proposed_and_then_with_what_was(locale: str) -> None:
    inputs = [
        {"name": "version", "label": "Version to deploy", "type": "text"},
        {"name": "replicas", "type": "number", "default": 0},
    ]
    asking = templates().render("pack-approval", locale, event=seen("requested-en") | {"inputs": inputs})
    assert "- Version to deploy\n- replicas: 0\n" in asking.body
    told = render("filled-in", locale).body
    assert "- Version to deploy: v7\n- drain: false" in told
    assert "note" not in told
