"""The site that `make docs` has built: complete, and sound without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SITE: Final = ROOT / "build" / "docs"
SOURCES: Final = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LOADING: Final = {"audio", "embed", "iframe", "img", "input", "object", "script", "source", "track", "video"}
LOADING_RELATIONS: Final = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
}


class Loaded(HTMLParser):
    """What a browser fetches for a page, or where it connects, without a click."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in LOADING:
            self.urls += [values[name] for name in ("src", "data", "srcset", "poster") if name in values]
        elif tag == "link" and LOADING_RELATIONS & set(values.get("rel", "").split()):
            self.urls.append(values["href"])


def loaded_by(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".html":
        parser = Loaded()
        parser.feed(text)
        yield from parser.urls
    yield from re.findall(r"""url\(\s*["']?([^"')]+)""", text)
    yield from re.findall(r"""@import\s+["']([^"']+)""", text)


def test_nothing_is_loaded_from_another_host() -> None:
    files = [file for file in SITE.rglob("*") if file.suffix in (".html", ".css")]
    assert {url for file in files for url in loaded_by(file) if re.match(r"(?:[a-z]+:)?//", url)} == set()
    assert [file.name for file in files if "mathjax" in file.read_text(encoding="utf-8").lower()] == []


@pytest.mark.parametrize(
    "markup",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/x.css">',
        '<img src="http://img.example/x.png">',
        "<style>@import 'https://fonts.example/x.css'</style>",
        '<p style="background: url(https://img.example/x.png)">',
    ],
)
def test_what_another_host_serves_is_found(tmp_path: Path, markup: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(markup, encoding="utf-8")
    assert [url for url in loaded_by(page) if re.match(r"(?:[a-z]+:)?//", url)]


def test_each_page_is_built_and_stands_in_the_sidebar_of_the_front_page() -> None:
    front = (SITE / "README.html").read_text(encoding="utf-8")
    pages = [str(source.relative_to(ROOT).with_suffix(".html")) for source in SOURCES]
    assert [page for page in pages if not (SITE / page).is_file()] == []
    assert [page for page in pages if page != "README.html" and f'href="{page}"' not in front] == []
    assert "README.html" in (SITE / "index.html").read_text(encoding="utf-8")


def test_the_search_index_has_every_page_and_is_a_script_that_needs_no_server() -> None:
    index = (SITE / "searchindex.js").read_text(encoding="utf-8")
    docnames = re.search(r'"docnames":\s*\[([^\]]*)\]', index)
    assert docnames
    assert set(re.findall(r'"([^"]+)"', docnames[1])) == {
        str(s.relative_to(ROOT).with_suffix("")) for s in SOURCES
    }
    assert 'src="searchindex.js"' in (SITE / "search.html").read_text(encoding="utf-8")


def test_code_can_be_copied_and_the_reader_chooses_between_light_and_dark() -> None:
    page = (SITE / "docs" / "operations.html").read_text(encoding="utf-8")
    assert "copybutton.js" in page
    assert "theme-toggle" in page


def test_a_broken_link_an_anchor_an_image_and_a_page_in_no_navigation_each_fail_the_build(
    tmp_path: Path,
) -> None:
    for source in [*SOURCES, *(ROOT / "docs").rglob("*.png")]:
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    page = tmp_path / "docs" / "stray.md"
    page.write_text("# Stray\n\n[a](gone.md) [b](rules.md#gone) ![c](gone.png)\n", encoding="utf-8")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(ROOT / "docs" / "site")]
    done = subprocess.run(
        [*build, str(tmp_path), str(tmp_path / "built")], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stderr.splitlines() if "stray" in line]
    assert done.returncode != 0
    assert [
        sum(word in line for line in told) for word in ("'gone.md'", "'gone'", "gone.png", "toctree")
    ] == [1] * 4
