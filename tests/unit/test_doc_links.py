"""Every link of the documentation leads somewhere, and every page is found from the front page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pytest

from tests.markdown import PAGES, ROOT, anchors, parsed, walk

PIPE: Final = re.compile(r"(?<!\\)\|")
ATTRIBUTES: Final = re.compile(r"""\b(?:href|src)=["']([^"']*)["']""")


def links(page: Path) -> Iterator[str]:
    """Where the links and images of a page lead, those of its HTML too."""
    for token in walk(parsed(page)):
        if token.type in ("link_open", "image"):
            yield str(token.attrGet("href") or token.attrGet("src") or "")
        elif token.type in ("html_inline", "html_block"):
            yield from ATTRIBUTES.findall(token.content)


def target(page: Path, href: str) -> Path:
    path = unquote(urlsplit(href).path)
    return (page.parent / path).resolve() if path else page


def fault(page: Path, href: str) -> str | None:
    """What is wrong with a link; other hosts are not asked."""
    url = urlsplit(href)
    if url.scheme == "mailto":
        return None
    if url.scheme or url.netloc:
        well_formed = url.scheme == "https" and re.fullmatch(r"[a-z0-9.-]+\.[a-z]{2,}", url.netloc)
        return None if well_formed else "is no https URL"
    file = target(page, href)
    if url.path.startswith("/") or not file.is_file():
        return "is no file beside this page"
    if url.fragment and (file.suffix != ".md" or unquote(url.fragment) not in anchors(file)):
        return "names no heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_and_image_of_a_page_leads_somewhere(page: Path) -> None:
    assert {href: told for href in links(page) if (told := fault(page, href))} == {}


def test_every_page_of_the_documentation_is_found_from_the_front_page() -> None:
    reached, ahead = set[Path](), {ROOT / "README.md"}
    while ahead:
        page = ahead.pop()
        reached.add(page)
        local = {target(page, href) for href in links(page) if not urlsplit(href).scheme}
        ahead |= {found for found in local if found.suffix == ".md" and found.is_file()} - reached
    assert [str(page) for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in reached] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    listed = re.findall(
        r'"(?:[^"]*<)?/([^"<>]+)>?"', (ROOT / "docs" / "site" / "conf.py").read_text(encoding="utf-8")
    )
    pages = [str(page.relative_to(ROOT).with_suffix("")) for page in PAGES if page.parent == ROOT]
    pages += [
        str(page.relative_to(ROOT).with_suffix("")) for page in PAGES if page.is_relative_to(ROOT / "docs")
    ]
    assert [
        page for page in pages if page != "README" and not any(fnmatch(page, one) for one in listed)
    ] == []


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("[a](other.md)", None),
        ("[a](other.md#two-words-here)", None),
        ("[a](other.md#two-words-here-1)", None),
        ("[a](#here)", None),
        ("![a](image.png)", None),
        ("[a](https://www.rfc-editor.org/info/bcp47)", None),
        ("[a](gone.md)", "is no file beside this page"),
        ("[a](.)", "is no file beside this page"),
        ("[a](/other.md)", "is no file beside this page"),
        ("[a][b]\n\n[b]: gone.md", "is no file beside this page"),
        ("![a](gone.png)", "is no file beside this page"),
        ('<img src="gone.png">', "is no file beside this page"),
        ("[a](other.md#gone)", "names no heading"),
        ("[a](other.md#two-words-here-2)", "names no heading"),
        ("[a](#gone)", "names no heading"),
        ("[a](image.png#here)", "names no heading"),
        ("[a](http://www.rfc-editor.org/)", "is no https URL"),
        ("[a](https://localhost/)", "is no https URL"),
        ("[a](//www.rfc-editor.org/)", "is no https URL"),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, link: str, told: str | None) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n| a |\n|---|\n| b |\n\n{link}\n", encoding="utf-8")
    (tmp_path / "other.md").write_text("# Two `words`, here\n\n## Two words here\n", encoding="utf-8")
    (tmp_path / "image.png").touch()
    assert [fault(page, href) for href in links(page)] == [told]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_row_of_a_table_has_the_cells_of_its_head(page: Path) -> None:
    """A pipe parts cells inside of code too, unless a backslash is before it."""
    rows = [row for token in parsed(page) if token.type == "inline" for row in _table(token.content)]
    assert [row for row, cells, heads in rows if cells != heads] == []


def _table(text: str) -> Iterator[tuple[str, int, int]]:
    """Each row of a paragraph that is a table, with the pipes in it, and those of the first."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    yield from ((row, len(PIPE.findall(row)), len(PIPE.findall(rows[0]))) for row in rows)
