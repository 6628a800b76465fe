"""Each state of the page, by axe-core: WCAG 2.2 A and AA, and its best practices (https://www.deque.com/axe)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from notifyd.security.links import Link
from tests import events
from tests.browser.conftest import PHONE, SMALL, Visit
from tests.daemon import CONFIG, Daemon, daemon

RULES: Final = {
    "runOnly": {
        "type": "tag",
        "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }
}
SCREENS: Final[dict[str, dict[str, Any]]] = {
    "phone": {"viewport": PHONE},
    "small": {"viewport": SMALL},
    "dark": {"viewport": PHONE, "color_scheme": "dark"},
    "forced colours": {"viewport": PHONE, "forced_colors": "active"},
}
ENDLESS: Final = "A summary that does not end soon. " * 100


@pytest.fixture
async def notifyd(tmp_path: Path) -> AsyncIterator[Daemon]:
    text = CONFIG.replace(
        'name = "approvals"', 'name = "approvals"\ngrants = ["Packs.Approve", "Packs.BreakGlass"]'
    )
    async with daemon(tmp_path, text) as running:
        yield running


async def pending(notifyd: Daemon) -> str:
    await notifyd.ask(
        message={"title": "Deploy", "summary": ENDLESS},
        inputs=[
            {"name": "replicas", "label": "Replicas", "type": "number", "required": True},
            {"name": "zone", "label": "Zone", "type": "choice", "choices": ["a", "b"]},
            {"name": "drain", "label": "Drain first", "type": "boolean"},
        ],
    )
    return await notifyd.link()


async def decided(notifyd: Daemon, decision: str = "approved", required: int = 1) -> str:
    asked = await notifyd.ask(requiredApprovals=required)
    link = await notifyd.link()
    ballot = {name: asked[name] for name in ("tenant", "runId", "approvalId", "planHash")}
    ballot |= {"decision": decision, "actor": "alice@acme.example", "comment": "Seen."}
    path = "/notifications/pack-approvals/{runId}/{approvalId}/ack".format_map(asked)
    answer = await notifyd.signed(path, ballot)
    assert answer.status == 200, answer.text
    return link


async def voted(notifyd: Daemon) -> str:
    return await decided(notifyd, required=2)


async def rejected(notifyd: Daemon) -> str:
    return await decided(notifyd, "rejected")


async def superseded(notifyd: Daemon) -> str:
    asked = await notifyd.ask()
    link = await notifyd.link()
    await notifyd.ask(
        planHash="sha256:" + "b" * 64,
        parameters={"region": "eu-2"},
        eventId="the-second",
        runId=asked["runId"],
        occurredAt=events.requested(at=notifyd.clock())["occurredAt"],
    )
    await notifyd.link(number=1)
    return link


async def changed(notifyd: Daemon) -> str:
    await superseded(notifyd)
    return await notifyd.link(number=1)


async def own_request(notifyd: Daemon) -> str:
    await notifyd.ask(requestedBy="alice@acme.example")
    return await notifyd.link()


async def view_only(notifyd: Daemon) -> str:
    asked = await notifyd.ask()
    await notifyd.link()
    link = Link(
        tenant="acme",
        run_id=asked["runId"],
        approval_id=asked["approvalId"],
        round=1,
        plan_hash=asked["planHash"],
        recipient="",
        rule="approvals",
        expires_at=notifyd.clock() + 3600 * 1_000_000,
    )
    return "/approvals/" + notifyd.app._current().links.seal(link)


async def right_to_left(notifyd: Daemon) -> str:
    words = {
        "title": "\u0646\u0634\u0631 \u0627\u0644\u062a\u0637\u0628\u064a\u0642",
        "summary": "\u062a\u062d\u062f\u064a\u062b \u0642\u0627\u0639\u062f\u0629",
    }
    await notifyd.ask(message=words)
    return await notifyd.link()


async def listed(notifyd: Daemon) -> str:
    """A list of what is selected, what is decided on its own page, and what has changed."""
    await pending(notifyd)
    await notifyd.ask(runId="run-changed")
    await notifyd.ask(runId="run-changed", planHash="sha256:" + "b" * 64)
    await notifyd.link(number=2)
    message = next(one for one in notifyd.inbox.messages if one.recipient == "alice@acme.example")
    return message.actions[-1].url.removeprefix("https://notifyd.acme.example")


async def forged(notifyd: Daemon) -> str:
    return (await pending(notifyd))[:-4] + "AAAA"


async def home(_: Daemon) -> str:
    return "/"


STATES: Final[list[Callable[[Daemon], Awaitable[str]]]] = [
    *(
        pending,
        decided,
        voted,
        rejected,
        superseded,
        changed,
        own_request,
        view_only,
        right_to_left,
        listed,
        forged,
        home,
    )
]


async def complaints(page: Page) -> list[tuple[str, list[str]]]:
    found = await Axe().run(page, options=RULES)
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found.response["violations"]]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_axe_finds_nothing_on_any_screen_and_nothing_is_wider_than_it(
    state: Callable[[Daemon], Awaitable[str]], notifyd: Daemon, visit: Visit
) -> None:
    url = notifyd.url + await state(notifyd)
    for name, options in SCREENS.items():
        page = await visit(url, **options)
        await page.route("**", lambda route: route.abort("aborted"))  # it would look again by itself
        assert await complaints(page) == [], name
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


async def test_axe_finds_nothing_on_the_page_that_asks_again(notifyd: Daemon, visit: Visit) -> None:
    page = await visit(notifyd.url + await view_of_a_plain_request(notifyd))
    await page.get_by_role("button", name="Reject", exact=True).click()
    assert await complaints(page) == []


async def view_of_a_plain_request(notifyd: Daemon) -> str:
    await notifyd.ask()
    return await notifyd.link()


async def test_a_list_is_decided_by_the_keyboard_and_axe_finds_nothing_on_the_way(
    notifyd: Daemon, visit: Visit
) -> None:
    page = await visit(notifyd.url + await listed(notifyd))
    await page.get_by_role("checkbox").first.press("Space")
    await page.get_by_role("button", name="Approve", exact=True).press("Enter")
    await page.get_by_role("button", name="Yes, approve").wait_for()
    assert await complaints(page) == []
    await page.get_by_role("button", name="Yes, approve").press("Enter")
    await page.get_by_text("your approval is recorded").wait_for()
    assert await complaints(page) == []


async def test_a_deputy_is_named_and_ended_and_axe_finds_nothing_on_the_way(
    notifyd: Daemon, visit: Visit
) -> None:
    page = await visit(notifyd.url + await listed(notifyd), viewport=SMALL)
    await page.get_by_text("Name a deputy", exact=True).click()
    day = await page.get_by_label("First day").get_attribute("min") or ""
    await page.get_by_label("Your deputy's address").fill("bob@acme.example")
    await page.get_by_label("First day").fill(day)
    await page.get_by_label("Last day").fill(day)
    assert await complaints(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.get_by_role("button", name="Name this deputy").click()
    said = page.get_by_text("bob@acme.example stands in for you")
    await said.wait_for()
    assert await complaints(page) == []
    await page.get_by_role("button", name="End this").click()
    await said.wait_for(state="detached")
