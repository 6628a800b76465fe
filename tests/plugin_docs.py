"""`docs/plugins.md`, taken apart: its blocks, and its reference by heading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen
from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "plugins.md"
EXAMPLE: Final = ROOT / "tests" / "example_plugin"


@frozen
class Block:
    """A fenced block. `title` is the file it is, "" for none."""

    kind: str
    title: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What is typed, in a console."""
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]

    @property
    def shown(self) -> list[str]:
        """What is said to be printed, in a console."""
        return [line.strip() for line in self.text.splitlines() if line and not line.startswith("$ ")]


def blocks() -> list[Block]:
    tokens = MarkdownIt().parse(PAGE.read_text(encoding="utf-8"))
    return [_block(token.info, token.content) for token in tokens if token.type == "fence"]


def _block(info: str, text: str) -> Block:
    kind, _, rest = info.partition(" ")
    title = re.fullmatch(r'(?:title="([^"]+)")?', rest.strip())
    assert title, info
    return Block(kind, title[1] or "", text)


def reference() -> Mapping[str, str]:
    """What stands below each heading of the third level that is code, by the code."""
    parts = re.split(r"^###? (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        head.strip("`"): text
        for head, text in zip(parts[1::2], parts[2::2], strict=True)
        if head.startswith("`") and head.endswith("`")
    }
