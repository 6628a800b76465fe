"""The addresses that a request names: what is let in, and where readers find it."""

from __future__ import annotations

from typing import Any

import pytest

from notifyd.errors import InvalidError
from notifyd.wire.events import MAX_LINKS, parse_pack_event
from notifyd.wire.meaning import faults_together
from tests import events
from tests.unit.test_templates import EVENTS, LINK, Page, templates

RUN = {"rel": "run", "href": "https://runner.acme.example/runs/42?tab=log#step-2", "title": "Run 42"}


def with_links(*links: Any) -> dict[str, Any]:
    return events.load("requested-en") | {"links": list(links)}


def test_links_are_kept_as_they_came() -> None:
    bare = {"rel": "dashboard", "href": "https://[2001:db8::1]:8443/d"}
    first, second = parse_pack_event(with_links(RUN, bare)).links
    assert (first.rel, first.href, first.title) == ("run", RUN["href"], "Run 42")
    assert (second.href, second.title) == (bare["href"], None)


@pytest.mark.parametrize(
    "href",
    [
        "http://runner.acme.example",
        "javascript:alert(1)",
        "https://user:pw@runner.acme.example",
        "https://runner.acme.example/a b",
        'https://runner.acme.example/"onclick',
        "https://runner.acme.example\\@evil.example",
        "https://rünner.example",
        "https:///path",
        "HTTPS:runner",
        "https://runner.acme.example/" + "x" * 2048,
    ],
)
def test_only_a_plain_https_address_is_let_in(href: str) -> None:
    with pytest.raises(InvalidError) as raised:
        parse_pack_event(with_links(RUN | {"href": href}))
    assert [fault.pointer for fault in raised.value.faults] == ["/links/0/href"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"rel": "Run!"}, "/links/0/rel"),
        ({"title": "two\nlines"}, "/links/0/title"),
        ({"title": ""}, "/links/0/title"),
        ({"more": 1}, "/links/0/more"),
    ],
)
def test_each_fault_of_a_link_has_its_place(change: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidError) as raised:
        parse_pack_event(with_links(RUN | change))
    assert [fault.pointer for fault in raised.value.faults] == [pointer]


def test_there_are_only_so_many_links() -> None:
    (fault,) = faults_together(parse_pack_event(with_links(*[RUN] * (MAX_LINKS + 1))))
    assert fault.pointer == "/links"
    assert not list(faults_together(parse_pack_event(with_links(*[RUN] * MAX_LINKS))))


def test_messages_have_the_first_links_after_the_one_to_the_page() -> None:
    event = EVENTS["requested-en"] | {"links": [RUN, {"rel": "x", "href": "https://a.example/<b>"}, RUN, RUN]}
    rendered = templates().render("pack-approval", "en", event=event, link=LINK, can_decide=False, zone="UTC")
    assert [(one.label, one.url) for one in rendered.actions[1:]] == [
        ("Run 42", RUN["href"]),
        ("a.example", "https://a.example/<b>"),
        ("Run 42", RUN["href"]),
    ]
    assert rendered.actions[0].url == LINK
    assert rendered.html is not None
    assert RUN["href"] in Page(rendered.html).values("href")
    assert rendered.html.count('class="link"') == 3, "only these are light where the page is dark"


def test_what_other_events_call_links_is_their_own() -> None:
    event = {"kind": "task.done", "action": "received", "links": "none", "tenant": {"id": "acme"}}
    rendered = templates().render("event", "en", event=event, link=LINK, can_decide=False, zone="UTC")
    assert len(rendered.actions) == 1
