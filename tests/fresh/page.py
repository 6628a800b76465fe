"""The blocks of shell commands of a page, in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from attrs import frozen
from markdown_it import MarkdownIt

OPERATIONS: Final = Path(__file__).parents[2] / "docs" / "operations.md"

_NOT_RUN: Final = re.compile(r"<!-- not run: (.+) -->")


@frozen
class Block:
    """Commands, the line of the page they begin at, and why they are not run where they are not."""

    line: int
    commands: str
    why_not: str


def blocks(page: str) -> list[Block]:
    """Every block marked `sh`. A comment right before one says why it is not run."""
    found, why_not = [], ""
    for token in MarkdownIt().parse(page):
        if token.type == "fence" and token.info == "sh":
            assert token.map is not None
            found.append(Block(token.map[0] + 2, token.content, why_not))
        told = _NOT_RUN.fullmatch(token.content.strip()) if token.type == "html_block" else None
        why_not = told[1] if told else ""
    return found
