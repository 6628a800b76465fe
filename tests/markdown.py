"""The Markdown files of this repository, as the tests of the documentation read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("conf", "docs", "notifyd", "plugins", "systemd", "tests")
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
)


@cache
def parsed(page: Path) -> Sequence[Token]:
    return MarkdownIt().parse(page.read_text(encoding="utf-8"))


def walk(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from walk(token.children or ())


def code(page: Path) -> Iterator[str]:
    """What stands as code in a page: each span, and each line of a block."""
    for token in walk(parsed(page)):
        if token.type == "code_inline":
            yield token.content
        elif token.type in ("code_block", "fence"):
            yield from map(str.strip, token.content.splitlines())


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub, and the site alike, give to the headings of a page."""
    return frozenset(sections(page))


def sections(page: Path) -> Mapping[str, str]:
    """The text below each heading of a page, up to the next one, by the heading's anchor."""
    lines = page.read_text(encoding="utf-8").splitlines()
    headings = [
        (token.map[0], _slug(text))
        for token, text in pairwise(parsed(page))
        if token.type == "heading_open" and token.map
    ]
    found: dict[str, str] = {}
    for (start, slug), (end, _) in pairwise([*headings, (len(lines), "")]):
        repeats = (f"{slug}-{n}" for n in range(1, len(found) + 1))
        found[next(name for name in (slug, *repeats) if name not in found)] = "\n".join(
            lines[start + 1 : end]
        )
    return found


def _slug(inline: Token) -> str:
    text = "".join(token.content for token in inline.children or () if token.type in ("text", "code_inline"))
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def plain(text: str) -> str:
    """Text as Markdown: outside of backticks, `*` and `<` mean themselves."""
    return re.sub(r"(`[^`]*`)|([*<])", lambda match: match[1] or "\\" + match[2], text)


def cell(text: str) -> str:
    """What stands in a cell of a table, with `|` as itself."""
    return text.replace("|", r"\|")
