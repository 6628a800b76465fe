"""What the README promises of its two commands."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.conftest import Played

README = Path(__file__).parents[2] / "README.md"


def without_what_varies(text: str) -> list[str]:
    """Ports, times, links, folders and the order of what happens at once are another's at each run."""
    text = re.sub(r"(file://|[ ])\S*/(\w+\.\w+)$", r"\1…/\2", text, flags=re.MULTILINE)
    text = re.sub(r"/approvals/\S+", "/approvals/…", text)
    text = re.sub(r"127\.0\.0\.1:\d+|\d+ ms|\d+\.\d+ s", "…", text)
    return [in_any_order(line) if "notification.sent" in line else line for line in text.split("\n")]


def in_any_order(line: str) -> str:
    """The audit trail: what is sent at the same time may be recorded in either order."""
    return ", ".join(sorted(line.strip().split(", ")))


def test_the_transcript_in_the_readme_is_what_the_demo_says(demo: Played) -> None:
    shown = re.search(r"```console\n(notifyd demo: .*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert (demo.code, demo.stderr) == (0, "")
    assert shown
    assert without_what_varies(demo.stdout) == without_what_varies(shown[1])
