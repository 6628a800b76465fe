"""The console in a real browser: accessible on every screen, by the keyboard, with and without JavaScript."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Page, expect

from notifyd.plugin import PermanentError
from tests import events
from tests.browser.conftest import Visit
from tests.browser.test_accessible import SCREENS, complaints
from tests.daemon import CONFIG, TOKENS, Daemon, daemon
from tests.ports import free_port
from tests.waiting import until_async

DESK: Final[dict[str, Any]] = {
    "viewport": {"width": 1280, "height": 800},
    "is_mobile": False,
    "has_touch": False,
    "device_scale_factor": 1,
}
PAGES: Final = (
    *("", "deliveries", "dead", "approvals", "approvals/run-0042/deploy-prod"),
    *("incidents", "silences", "channels", "audit", "configuration"),
)


@pytest.fixture
async def notifyd(tmp_path: Path) -> AsyncIterator[Daemon]:
    """Something of everything: an approval, dead letters, an incident, a silence."""
    port = free_port()
    text = CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}")
    text = text.replace("https://notifyd.acme.example", f"http://127.0.0.1:{port}")
    text += "\n[console]\nenabled = true\n"
    async with daemon(tmp_path, text) as running:
        running.inbox.fault = PermanentError("the receiver does not know this address")
        await running.ask(runId="run-0042")
        await running.signed("/notifications/pack-approvals", events.held(at=running.clock()))
        silence = {"when": "true", "reason": "maintenance", "endsAt": "2099-01-01T00:00:00Z"}
        silence["endsAt"] = events.requested(at=running.clock() + 3_600_000_000)["occurredAt"]
        await running.post("/api/v1/silences", silence, "operator", X_Notifyd_Tenant="acme")
        await until_async(lambda: _dead(running))
        running.inbox.fault = None
        yield running


async def _dead(running: Daemon) -> bool:
    return len((await running.get("/api/v1/deliveries?state=dead")).json["items"]) == 2


async def sign_in(page: Page) -> None:
    await page.get_by_role("textbox", name="A client's API token").fill(TOKENS["operator"])
    await page.get_by_role("button", name="Sign in by the token").press("Enter")
    await page.get_by_role("heading", level=1).wait_for()
    await expect(page.get_by_role("button", name="Sign out")).to_be_visible()


@pytest.mark.parametrize("screen", [*SCREENS, "desk"])
async def test_axe_finds_nothing_on_any_page_and_nothing_is_wider_than_the_screen(
    screen: str, notifyd: Daemon, visit: Visit
) -> None:
    page = await visit(f"{notifyd.url}/console", **(SCREENS | {"desk": DESK})[screen])
    assert await complaints(page) == []
    await sign_in(page)
    one = (await notifyd.get("/api/v1/deliveries?state=dead")).json["items"][0]["id"]
    for path in (*PAGES, f"deliveries/{one}", "deliveries/none"):
        await page.goto(f"{notifyd.url}/console/{path}")
        assert await complaints(page) == [], path
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


async def test_a_dead_letter_is_found_and_tried_again_by_the_keyboard(notifyd: Daemon, visit: Visit) -> None:
    page = await visit(f"{notifyd.url}/console", **DESK)
    await sign_in(page)
    await expect(page.get_by_role("heading", level=1)).to_have_text("2 things are wrong now")
    await page.get_by_role("cell").get_by_role("link", name="Dead letters").press("Enter")
    await page.get_by_role("button", name="Retry the delivery").first.press("Enter")
    await expect(page.get_by_role("status")).to_have_text("It is tried again.")
    await expect(page.get_by_role("button", name="Retry the delivery")).to_have_count(1)


async def test_the_first_page_tells_by_itself_what_has_changed_and_can_be_paused(
    notifyd: Daemon, visit: Visit
) -> None:
    page = await visit(f"{notifyd.url}/console", **DESK)
    await sign_in(page)
    await page.clock.install()
    await page.reload()
    await page.get_by_role("button", name="Pause").click()
    for one in (await notifyd.get("/api/v1/deliveries?state=dead")).json["items"]:
        await notifyd.post(f"/api/v1/dead/{one['id']}/retry", {}, "operator", X_Notifyd_Tenant="acme")
    await page.clock.run_for(30_000)
    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_have_text("2 things are wrong now")
    await page.get_by_role("button", name="Pause").click()
    await page.clock.run_for(5_000)
    await expect(heading).to_have_text("1 thing is wrong now")
    assert "(1)" in await page.title()


async def test_it_works_without_javascript(notifyd: Daemon, visit: Visit) -> None:
    page = await visit(f"{notifyd.url}/console/silences", **DESK, java_script_enabled=False)
    await sign_in(page)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Silences")
    await expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    await page.get_by_label("What it holds").fill('event.kind == "task.done"')
    await page.get_by_label("Why").fill("the disks of zrh-1 are changed")
    await page.get_by_role("button", name="Add the silence").click()
    await expect(page.get_by_role("status")).to_have_text("The silence is set.")
    await page.get_by_role("button", name="Expire the silence: the disks").click()
    await expect(page.get_by_role("status")).to_contain_text("The silence is over")


async def test_a_link_in_a_chat_leads_to_the_page_for_who_is_signed_in(notifyd: Daemon, visit: Visit) -> None:
    page = await visit(f"{notifyd.url}/console", **DESK)
    await sign_in(page)
    await page.goto("about:blank")
    await page.set_content(f'<a href="{notifyd.url}/console/dead">look here</a>')
    await page.get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Dead letters")
