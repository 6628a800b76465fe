"""Chromium, as the system has it, with the screen of a phone."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
PHONE: Final = {"width": 390, "height": 844}
SMALL: Final = {"width": 320, "height": 640}
"""What WCAG 2.2 asks for in 1.4.10: a page of 1,280 pixels at 400%."""

Visit = Callable[..., Awaitable[Page]]


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    assert path is not None, "these tests need Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def visit(chromium: Browser) -> Visit:
    """Opens an address on a phone; options are those of a browser's context, such as `color_scheme`."""

    async def visit(url: str, **options: Any) -> Page:
        phone: dict[str, Any] = {
            "viewport": PHONE,
            "device_scale_factor": 2.625,  # a fraction, as most phones have
            "is_mobile": True,
            "has_touch": True,
            "locale": "en-GB",
        }
        page = await (await chromium.new_context(**phone | options)).new_page()
        await page.goto(url)
        return page

    return visit
