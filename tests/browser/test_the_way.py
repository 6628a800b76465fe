"""From the mail to the callback on a phone, with the clicks that a person needs for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import PHONE, Visit
from tests.daemon import CALLBACK, CONFIG, Daemon, daemon
from tests.ports import free_port
from tests.sinks import HttpSink, MailSink


class Hand:
    """Clicks, and counts its clicks."""

    def __init__(self) -> None:
        self.clicks = 0

    async def click(self, what: Locator) -> None:
        await what.click()
        self.clicks += 1


@pytest.fixture
async def mail() -> AsyncIterator[MailSink]:
    async with MailSink() as mail:
        yield mail


@pytest.fixture
async def runner() -> AsyncIterator[HttpSink]:
    async with HttpSink() as runner:
        yield runner


@pytest.fixture
async def notifyd(tmp_path: Path, mail: MailSink, runner: HttpSink) -> AsyncIterator[Daemon]:
    """Approvals are asked for by mail, and Task Runner can be reached."""
    port = free_port()
    text = (
        CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}")
        .replace("https://notifyd.acme.example", f"http://127.0.0.1:{port}")
        .replace(f'["{CALLBACK}"]', f'["{CALLBACK}", "{runner.url}"]')
        .replace('channels = ["inbox"]', 'channels = ["mail"]')
    )
    text += f'[channels.mail]\ntype = "email"\nhost = "127.0.0.1"\nport = {mail.port}\ntls = "none"\n'
    text += 'from = "notifyd@acme.example"\n'
    async with daemon(tmp_path, text) as running:
        yield running


async def opened_mail(mail: MailSink, visit: Visit) -> Page:
    """Alice's mail, as her program shows it."""
    mails = await mail.wait(2)
    (hers,) = (one for one in mails if "alice@" in one["To"])
    body = hers.get_body(("html",))
    assert body is not None
    page = await visit("about:blank")
    await page.set_content(body.get_content())
    return page


async def on_screen(page: Page, what: Locator) -> bool:
    """Is it on the first screen, without scrolling?"""
    box = await what.bounding_box()
    assert box is not None
    return bool(box["y"] >= 0 and box["y"] + box["height"] <= PHONE["height"])


async def test_from_the_mail_to_the_callback_it_takes_two_clicks_on_the_page(
    notifyd: Daemon, mail: MailSink, runner: HttpSink, visit: Visit
) -> None:
    resume = {"callbackUrl": f"{runner.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
    asked = await notifyd.ask(resume=resume)
    page, hand = await opened_mail(mail, visit), Hand()
    await page.locator('a[href*="/approvals/"]').first.click()

    approve = page.get_by_role("button", name="Approve", exact=True)
    for what in (approve, page.get_by_role("button", name="Reject", exact=True), page.locator("h1")):
        assert await on_screen(page, what)
    for text in ("Why a person is asked", "Asked by", "Ends in", "0 of 1 approvals", "production"):
        assert await on_screen(page, page.get_by_text(text).first), text

    await hand.click(approve)
    await hand.click(page.get_by_role("button", name="Yes, approve"))
    await expect(page.locator(".badge").first).to_have_text("Approved")
    assert hand.clicks == 2

    (callback,) = await runner.wait()
    assert callback.path == "/resume"
    told = runner.documents[0]["data"]
    assert (told["decision"], told["planHash"]) == ("approved", asked["planHash"])
    await expect(page.locator('[data-resume="delivered"]')).to_be_visible()


async def test_a_runner_that_cannot_be_told_shows_by_itself_once_it_has_been(
    notifyd: Daemon, mail: MailSink, runner: HttpSink, visit: Visit
) -> None:
    """The page looks again by itself: nobody has to."""
    runner.gate.clear()
    await notifyd.ask(resume={"callbackUrl": f"{runner.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"})
    page = await opened_mail(mail, visit)
    await page.locator('a[href*="/approvals/"]').first.click()
    await page.get_by_role("button", name="Approve", exact=True).click()
    await page.get_by_role("button", name="Yes, approve").click()
    await expect(page.locator('[data-resume="queued"]')).to_be_visible()
    runner.gate.set()
    await expect(page.locator('[data-resume="delivered"]')).to_be_visible(timeout=20_000)


async def test_the_buttons_stay_on_the_screen_however_long_the_plan_is_and_stand_apart(
    notifyd: Daemon, mail: MailSink, visit: Visit
) -> None:
    steps: list[dict[str, Any]] = [{"id": f"step-{n}", "name": f"Step {n} of the plan"} for n in range(40)]
    await notifyd.ask(steps=steps)
    page = await opened_mail(mail, visit)
    await page.locator('a[href*="/approvals/"]').first.click()
    approve = page.get_by_role("button", name="Approve", exact=True)
    reject = page.get_by_role("button", name="Reject", exact=True)
    for _ in range(2):
        assert await on_screen(page, approve)
        assert await on_screen(page, reject)
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
    first, second = await approve.bounding_box(), await reject.bounding_box()
    assert first is not None
    assert second is not None
    apart = max(second["x"] - first["x"] - first["width"], second["y"] - first["y"] - first["height"])
    assert apart >= 8, "WCAG 2.2, 2.5.8: a thumb does not hit both"


async def test_a_reason_is_asked_for_before_a_rejection_and_nothing_typed_is_lost(
    notifyd: Daemon, mail: MailSink, visit: Visit
) -> None:
    asked = await notifyd.ask()
    page = await opened_mail(mail, visit)
    await page.locator('a[href*="/approvals/"]').first.click()
    await page.get_by_role("button", name="Reject", exact=True).click()
    comment = page.get_by_role("textbox")
    await page.get_by_role("button", name="Yes, reject").click()
    assert await comment.evaluate("box => box.matches(':invalid')"), "the browser itself asks for it"
    await comment.fill("Not before the audit.")
    await page.get_by_role("button", name="Back to the plan").click()
    await expect(page.get_by_role("textbox").first).to_have_value("Not before the audit.")
    await page.get_by_role("button", name="Reject", exact=True).click()
    await page.get_by_role("button", name="Yes, reject").click()
    await expect(page.locator(".badge").first).to_have_text("Rejected")
    assert (await notifyd.approval(asked))["status"] == "rejected"


async def test_the_keyboard_alone_decides(notifyd: Daemon, mail: MailSink, visit: Visit) -> None:
    asked = await notifyd.ask()
    page = await opened_mail(mail, visit)
    await page.locator('a[href*="/approvals/"]').first.click()
    for button in ("Approve", "Yes, approve"):
        wanted = page.get_by_role("button", name=button, exact=True)
        for _ in range(40):
            await page.keyboard.press("Tab")
            if await wanted.evaluate("button => button === document.activeElement"):
                break
        await page.keyboard.press("Enter")
    await expect(page.locator(".badge").first).to_have_text("Approved")
    assert (await notifyd.approval(asked))["status"] == "approved"
