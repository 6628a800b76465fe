"""`make gallery`: one page with every message, and pictures of each mail where chromium is installed."""

from __future__ import annotations

import asyncio
import html
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.gallery.cells import Cell, cells

VIEWS: Final[Mapping[str, Sequence[str]]] = {
    "light": ("--window-size=800,1100", "--blink-settings=preferredColorScheme=1"),
    "dark": ("--window-size=800,1100", "--blink-settings=preferredColorScheme=0"),
    "320": ("--window-size=320,1600", "--blink-settings=preferredColorScheme=1"),
}
"""How a mail is looked at, and what chromium is told for it."""

_AT_ONCE: Final = 2
_PAGE: Final = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>notifyd: gallery</title>
<style>body{{font:14px system-ui;margin:16px}}pre{{white-space:pre-wrap;max-width:90ch}}img{{border:1px solid;
max-width:32%;vertical-align:top}}h2{{margin-top:48px}}</style><h1>Messages</h1>{contents}</html>
"""


def main(folder: Path) -> None:
    """Write the gallery into `folder`, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shown = list(cells())
    for cell in shown:
        (folder / f"{_name(cell)}.html").write_text(cell.message.html or "", encoding="utf-8")
        (folder / f"{_name(cell)}.eml").write_bytes(cell.mail)
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser:
        asyncio.run(_pictures(browser, folder, shown))
    else:
        print("chromium is not installed: no pictures", file=sys.stderr)
    page = _PAGE.format(contents="".join(_section(cell, pictures=bool(browser)) for cell in shown))
    (folder / "index.html").write_text(page, encoding="utf-8")
    print(f"{folder}/index.html: {len(shown)} messages over {len(shown[0].sent) + 1} channels")


def _name(cell: Cell) -> str:
    return f"{cell.name}.{cell.locale}"


async def _pictures(browser: str, folder: Path, shown: Iterable[Cell]) -> None:
    turn = asyncio.Semaphore(_AT_ONCE)

    async def take(cell: Cell, view: str) -> None:
        source = (folder / f"{_name(cell)}.html").resolve().as_uri()
        target = folder / f"{_name(cell)}.{view}.png"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *VIEWS[view])
        async with turn:
            process = await asyncio.create_subprocess_exec(
                browser,
                *options,
                f"--screenshot={target.resolve()}",
                source,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await process.wait()

    await asyncio.gather(*(take(cell, view) for cell in shown for view in VIEWS))


def _section(cell: Cell, *, pictures: bool) -> str:
    name = html.escape(_name(cell))
    looks = "".join(f'<img src="{name}.{view}.png" alt="{view}">' for view in VIEWS) if pictures else ""
    sent = "".join(
        f"<details><summary>{html.escape(type_)}</summary><pre>{html.escape(text)}</pre></details>"
        for type_, text in cell.sent.items()
    )
    title, lang = html.escape(cell.message.title), html.escape(cell.locale)
    return f'<h2 id="{name}" lang="{lang}">{name}: {title}</h2>{looks}<p><a href="{name}.html">mail</a></p>{sent}'


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/gallery"))
