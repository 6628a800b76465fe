"""`make bench`: notifyd beside its limits, all measured in the same run, as ratios.

The program under test has one core, the load and the sink the other. Nothing here is a test: it prints.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench.figures import FIGURES
from tests.bench.harness import LOAD_CORE, Bench, Row, line_of, module, process
from tests.bench.peers import peers


@click.command()
@click.option("--events", "count", default=20_000, help="How many events a saturated run sends.")
@click.option("--only", multiple=True, type=click.Choice([*FIGURES, "peers"]), help="Measure only these.")
@click.option("--peers", "with_peers", is_flag=True, help="Measure other programs too.")
def main(count: int, only: Sequence[str], with_peers: bool) -> None:
    """Measure, and print one table."""
    uvloop.run(_main(count, list(only) or [*FIGURES, *(["peers"] if with_peers else [])]))


async def _main(count: int, wanted: Sequence[str]) -> None:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        async with process(LOAD_CORE, *module("tests.bench.servers", "sink")) as sink:
            bench = Bench(count, Path(name), f"http://127.0.0.1:{await line_of(sink)}")
            for one in wanted:
                rows += await {**FIGURES, "peers": peers}[one](bench)
    table = Table("figure", "measured", "limit", "ratio", "must reach")
    for row in rows:
        table.add_row(row.name, row.figure, row.limit, row.ratio, row.must)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
