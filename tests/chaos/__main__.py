"""`make chaos`: every fault while events come, and a table of what came of them. No test: it prints.

The short form of each is in `test_faults.py`; what is measured, and the figures, in `docs/reliability.md`.
"""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import uvloop
from attrs import astuple

from tests import forks
from tests.chaos.faults import FAULTS
from tests.chaos.stage import Fault, Row, on_stage

HEAD: Final = (
    "fault",
    "times",
    "accepted",
    "refused",
    "lost",
    "repeated",
    "callbacks",
    "missing",
    "seconds",
)
_SETTLING: Final = 10.0
"""Seconds of a fault's time that are kept for what was accepted to arrive."""


@click.command()
@click.option(
    "--events", default=sum(one.events for one in FAULTS.values()), show_default=True, help="In all."
)
@click.option("--minutes", default=30.0, show_default=True, help="No event is posted after that.")
@click.option("--only", multiple=True, type=click.Choice(list(FAULTS)), help="Only these faults.")
@click.option("--folder", type=click.Path(path_type=Path, exists=True), help="Where databases are made.")
def main(events: int, minutes: float, only: Sequence[str], folder: Path | None) -> None:
    """Play every fault, and print one table. Exit code 1 where anything was lost."""
    faults = {name: FAULTS[name] for name in only or FAULTS}
    rows = uvloop.run(_play_all(faults, events, minutes * 60, folder))
    for server in forks.SERVERS:
        server.close()
    print(table(rows))
    whole = len(rows) == len(faults) and not any(row.lost or row.missing for row in rows)
    sys.exit(0 if whole else 1)


async def _play_all(faults: dict[str, Fault], events: int, seconds: float, folder: Path | None) -> list[Row]:
    """One after the other, each for the part of the time that is left which its events are of those left."""
    end, scale = time.monotonic() + seconds, events / sum(fault.events for fault in faults.values())
    rows = []
    for place, (name, fault) in enumerate(faults.items()):
        left = list(faults.values())[place:]
        time_left = (end - time.monotonic()) * _weight(fault) / sum(map(_weight, left))
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows.append(await _play(name, fault, scale, time_left - _SETTLING, folder))
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001 - the others are played all the same; the exit code tells
            traceback.print_exc()
    return rows


def _weight(fault: Fault) -> float:
    """Of a run's time: a node on MongoDB takes some hundred times as long for an event."""
    return fault.events * (100 if fault.nodes > 1 else 1)


async def _play(name: str, fault: Fault, scale: float, seconds: float, folder: Path | None) -> Row:
    goal = max(int(fault.events * scale), fault.batch)
    rounds = max(1, goal // fault.every)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        async with on_stage(Path(place), fault, goal=goal, rounds=rounds, seconds=seconds) as stage:
            await stage.play()
            return stage.row(name)


def table(rows: Sequence[Row]) -> str:
    """In Markdown, with a line for all together."""
    all_ = (
        Row("all", *(sum(column) for column in list(zip(*map(astuple, rows), strict=True))[1:]))
        if rows
        else None
    )
    lines = ["| " + " | ".join(HEAD) + " |", "|---|" + "---:|" * (len(HEAD) - 1)]
    for row in [*rows, all_] if all_ else []:
        name, *figures = astuple(row)
        lines.append(f"| {name} | " + " | ".join(f"{figure:,.0f}" for figure in figures) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
