"""What the documentation names exists: metrics, options, commands with their flags, and lines that are quoted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from notifyd import plugin
from notifyd.config.structure import options_of
from notifyd.registry.options import described
from tests.command_pages import outline
from tests.markdown import PAGES, ROOT, code
from tests.option_pages import sections
from tests.unit.test_monitoring import SERIES

CURRENT: Final = [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "adr"]
"""Pages on what is; the others tell what was."""
RUNBOOK: Final = ROOT / "docs" / "runbook.md"

FAMILIES: Final = SERIES.keys() | {re.sub("_(?:bucket|sum|count)$", "", name) for name in SERIES}
NO_METRICS: Final = {name for name in vars(plugin) if name.startswith("notifyd_")} | {
    "notifyd_api",
    "notifyd_pager",
}
"""Hooks, a declaration of plugins, and the module that the tutorial makes."""

OPTIONS: Final = {
    f"{name}.{one.name}" for name, record in sections().items() for one in described(options_of(record))
}
NO_OPTIONS: Final = {
    *("resume.token", "resume.status", "resume.reason"),  # members of an event and of an answer
    *("auth.refused", "resume.delivered", "resume.dead"),  # kinds of records in the audit trail
    *("auth.py", "keys.json"),
}

FLAGS: Final[Mapping[str, frozenset[str]]] = {
    one.name: frozenset(flag for written, _ in one.options for flag in re.findall(r"--[a-z-]+", written))
    for one in outline()
} | {"notifyd": frozenset({"--version"})}
EVERYWHERE: Final = {"--config", "--help"}
CALL: Final = re.compile(r"^(?:\$ |sudo |[A-Z_]+=\S+ |\S*/bin/)*(notifyd (?:-|[a-z]).*)")

NOT_OURS: Final = {"start-limit-hit", "Permission denied", "failed"}
"""Quotes of systemd, of the system, and of metrics' labels."""


def each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


@each(CURRENT)
def test_a_metric_that_is_named_is_exported(page: Path) -> None:
    named = {name for text in code(page) for name in re.findall(r"\bnotifyd_[a-z_]+", text)}
    assert named - FAMILIES - NO_METRICS == set()


@each(CURRENT)
def test_an_option_that_is_named_can_be_set(page: Path) -> None:
    roots = {name.partition(".")[0] for name in OPTIONS}
    named = {
        found[1] for text in code(page) if (found := re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)+)(?: = .*)?", text))
    }
    ours = {name for name in named if name.partition(".")[0] in roots}
    tables = {name.removesuffix(".NAME") for name in sections()}
    assert ours - OPTIONS - tables - NO_OPTIONS == set()


def calls(page: Path) -> Iterator[list[str]]:
    """The words of each call of notifyd in a page, without what stands before it and after a pipe."""
    for text in code(page):
        if call := CALL.match(text):
            yield re.split(r" [|>#&]", call[1])[0].split()


def command(words: list[str]) -> str | None:
    return next((name for n in (3, 2, 1) if (name := " ".join(words[:n])) in FLAGS), None)


@each(CURRENT)
def test_a_call_that_is_shown_is_of_a_command_with_the_flags_that_it_has(page: Path) -> None:
    for words in calls(page):
        called = command(words)
        assert called, words
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags - FLAGS[called] - EVERYWHERE == set(), words


def constants(node: ast.AST) -> Iterator[str]:
    """Texts of a module; what is filled in at run time stands as `{}`."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value.replace("%s", "{}")
    for child in ast.iter_child_nodes(node):
        yield from constants(child)


def texts() -> Iterator[str]:
    for module in (ROOT / "notifyd").rglob("*.py"):
        yield from constants(ast.parse(module.read_text(encoding="utf-8")))
    words = ROOT / "notifyd" / "web" / "pages" / "words" / "en.toml"
    yield words.read_text(encoding="utf-8")


def test_what_the_runbook_quotes_is_said_somewhere() -> None:
    """A word in capitals, such as NAME, stands for what is filled in."""
    said = [text.lower() for text in texts()]
    text = re.sub(r"`[^`]*`", "", RUNBOOK.read_text(encoding="utf-8"))
    quoted = {" ".join(quote.split()) for quote in re.findall(r'"([^"]+)"', text)}
    assert len(quoted) > 10
    for quote in quoted - NOT_OURS:
        pattern = re.compile(re.sub(r"\b[A-Z]{2,}\b", r".*", re.escape(quote)).lower().replace("\\ ", " "))
        assert any(pattern.search(text) for text in said), quote
