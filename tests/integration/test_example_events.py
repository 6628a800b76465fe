"""Each event that the documentation shows is taken by a service: as it is written, at its time, and stamped by
`send --now`, today. Whoever sends one after the other meets no id twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from markdown_it import MarkdownIt

from notifyd.cli.events import _stamped
from notifyd.model import SECOND
from tests.daemon import CALLBACK, CONFIG, Answer, Clock, Daemon, daemon

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
PACK: Final = ("PackApprovalRequested", "PackApprovalUpdated", "PackPolicyHold", "PackPolicyReleased")
THEN: Final = datetime(2026, 11, 20, 12, tzinfo=UTC)
"""After the last of them, and before the oldest is too old."""
OUR_CONFIG: Final = CONFIG.replace(f'["{CALLBACK}"]', '["https://runner.acme.example"]')


def documents() -> Iterator[tuple[str, Any]]:
    for path in sorted((ROOT / "docs/contract/examples").glob("*.json")):
        yield path.name, json.loads(path.read_text("utf-8"))
    for page in PAGES:
        for token in MarkdownIt().parse(page.read_text("utf-8")):
            if token.type == "fence" and token.map and token.info.startswith("json"):
                yield f"{page.name}:{token.map[0] + 1}", json.loads(token.content)


def is_event(document: Any) -> bool:
    return isinstance(document, dict) and ("specversion" in document or document.get("type") in PACK)


EVENTS: Final = {where: one for where, one in documents() if is_event(one)}


async def sent(notifyd: Daemon, document: dict[str, Any]) -> Answer:
    if "specversion" not in document:
        return await notifyd.signed("/notifications/pack-approvals", document)
    headers = {"content_type": "application/cloudevents+json"}
    return await notifyd.post("/api/v1/events", document, "operator", x_notifyd_tenant="acme", **headers)


@pytest.mark.usefixtures("templates_once")
@pytest.mark.parametrize("when", ["then", "now"])
async def test_each_is_taken_one_after_the_other(tmp_path: Path, when: str) -> None:
    clock = Clock()
    if when == "then":
        clock.turned = int(THEN.timestamp()) * SECOND - clock()
    assert len(EVENTS) >= 8
    async with daemon(tmp_path, OUR_CONFIG, clock=clock) as notifyd:
        for where, document in EVENTS.items():
            written = _stamped(document, datetime.now(UTC)) if when == "now" else document
            answer = await sent(notifyd, written)
            assert answer.status == 202, f"{where}: {answer.text}"
            if when == "now" and document.get("type") == "PackApprovalRequested":
                assert answer.json["outcome"] == "opened", where


def test_each_event_has_an_id_of_its_own() -> None:
    keys = [(one.get("source"), one.get("id") or one.get("eventId")) for one in EVENTS.values()]
    assert len(set(keys)) == len(keys)


STORY: Final = "0b7c9a52-0a68-4f6f-9a3b-6d1f3f1f2a11"
"""The correlation of the one approval that is accepted, decided, delivered and told of in the examples."""


def test_whatever_is_no_part_of_the_one_story_has_a_correlation_of_its_own() -> None:
    found = [one.get("correlationId") for _, one in documents() if isinstance(one, dict)]
    others = [one for one in found if one not in (None, STORY)]
    assert len(set(others)) == len(others)
    problems = [one for where, one in documents() if where == "Problem.json" or is_problem(one)]
    assert problems
    assert STORY not in [one.get("correlationId") for one in problems]


def is_problem(document: Any) -> bool:
    return isinstance(document, dict) and {"title", "status", "code"} <= set(document)
