"""Approving in the hours of a rule only: over the page, and by a program."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from attrs import define

from notifyd.model import SECOND, Instant
from tests.daemon import CONFIG, Clock, Daemon, daemon
from tests.integration.test_web_approvals import ACK, ack, problem

ZURICH = ZoneInfo("Europe/Zurich")
HOURS = 'window = "Mon-Thu 09:00-16:00 Europe/Zurich"'
WITH_HOURS = CONFIG.replace('name = "approvals"', f'name = "approvals"\n{HOURS}')
LOGGED = """
[channels.journal]
type = "log"

[[rules]]
name = "journal"
when = 'event.kind == "pack.approval"'
channels = ["journal"]
"""


@define
class Fixed(Clock):
    """A clock that stands at a time of its own."""

    at: Instant = 0

    def __call__(self) -> Instant:
        return self.at + self.turned

    def set(self, text: str) -> None:
        self.at = int(datetime.fromisoformat(text).replace(tzinfo=ZURICH).timestamp()) * SECOND


@pytest.fixture
def clock() -> Fixed:
    clock = Fixed()
    clock.set("2026-11-30T20:00")  # Monday, after hours
    return clock


def decide(page: str, decision: str) -> dict[str, str]:
    token = re.search(r'name="csrf" value="([^"]+)"', page)
    assert token
    return {"csrf": token[1], "decision": decision, "comment": "because", "confirmed": "1"}


async def post(notifyd: Daemon, link: str, form: dict[str, str]) -> Any:
    return await notifyd.call("POST", link, data=form, headers={"Origin": "https://notifyd.acme.example"})


async def test_outside_the_hours_an_ack_is_refused_with_the_time_and_inside_it_counts(
    tmp_path: Path, templates_once: None, clock: Fixed
) -> None:
    async with daemon(tmp_path, WITH_HOURS + LOGGED, clock=clock) as notifyd:
        asked = await notifyd.ask()
        await notifyd.link()
        refused = await notifyd.signed(ACK, ack(asked))
        assert problem(refused) == (409, "window_closed")
        assert "from 2026-12-01T08:00:00Z on" in refused.json["detail"]
        clock.set("2026-12-01T09:00")
        assert (await notifyd.signed(ACK, ack(asked))).json["status"] == "approved"
        clock.set("2026-12-01T20:00")  # a repeat is answered at any hour
        assert (await notifyd.signed(ACK, ack(asked))).status == 200


async def test_rejecting_is_possible_at_any_hour(tmp_path: Path, templates_once: None, clock: Fixed) -> None:
    async with daemon(tmp_path, WITH_HOURS, clock=clock) as notifyd:
        asked = await notifyd.ask()
        answer = await notifyd.signed(ACK, ack(asked, decision="rejected", comment="no"))
        assert answer.json["status"] == "rejected"


async def test_the_page_says_when_it_opens_and_offers_to_reject_meanwhile(
    tmp_path: Path, templates_once: None, clock: Fixed
) -> None:
    async with daemon(tmp_path, WITH_HOURS, clock=clock) as notifyd:
        await notifyd.ask()
        link = await notifyd.link("bob@acme.example")
        page = (await notifyd.call("GET", link)).text
        assert "Freigeben können Sie ab" in page
        assert "09:00" in page
        assert 'value="approved"' not in page
        refused = await post(notifyd, link, decide(page, "approved"))
        assert refused.status == 409
        assert "Um diese Zeit kann nicht freigegeben werden" in refused.text
        clock.set("2026-12-01T10:00")
        page = (await notifyd.call("GET", link)).text
        assert "Freigeben können Sie ab" not in page
        assert (await post(notifyd, link, decide(page, "approved"))).status == 303


async def test_a_link_goes_by_the_hours_of_its_own_rule_and_a_program_by_those_of_all_that_asked(
    tmp_path: Path, templates_once: None, clock: Fixed
) -> None:
    other = CONFIG[CONFIG.index("[[rules]]") : CONFIG.index("[recipients")]
    others = other.replace('"approvals"', '"others"').replace(
        '["alice@acme.example", "bob@acme.example"]', '["carol@acme.example"]'
    )
    async with daemon(tmp_path, WITH_HOURS + others, clock=clock) as notifyd:
        asked = await notifyd.ask(requiredApprovals=2)
        link = await notifyd.link("carol@acme.example")
        assert problem(await notifyd.signed(ACK, ack(asked))) == (409, "window_closed")
        page = (await notifyd.call("GET", link)).text
        assert (await post(notifyd, link, decide(page, "approved"))).status == 303


async def test_a_rule_that_did_not_ask_for_this_round_binds_nobody_and_hours_are_those_of_today(
    tmp_path: Path, templates_once: None, clock: Fixed
) -> None:
    async with daemon(tmp_path, clock=clock) as notifyd:
        first, second = await notifyd.ask(), await notifyd.ask(runId="run-2")
        await notifyd.link(number=1)
        late = WITH_HOURS.replace('name = "approvals"', 'name = "later"')
        await notifyd.reload(
            notifyd.text.replace(CONFIG, CONFIG + late[late.index("[[rules]]") : late.index("[recip")])
        )
        assert (await notifyd.signed(ACK, ack(first))).json["status"] == "approved"
        await notifyd.reload(notifyd.text.replace(CONFIG, WITH_HOURS))
        assert problem(await notifyd.signed(ACK.replace("run-0042", "run-2"), ack(second))) == (
            409,
            "window_closed",
        )
