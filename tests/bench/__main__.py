"""`make bench`: notifyd beside its limits, all measured in the same run, as ratios.

The program under test has one core, the load and the sink the other. Nothing here is a test: it prints.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench.figures import FIGURES
from tests.bench.harness import LOAD_CORE, Bench, Row, line_of, medians, module, process
from tests.bench.peers import peers


@click.command()
@click.option("--events", "count", default=20_000, help="How many events a saturated run sends.")
@click.option("--only", multiple=True, type=click.Choice([*FIGURES, "peers"]), help="Measure only these.")
@click.option("--runs", default=5, help="How many times each figure is measured; the table has the medians.")
def main(count: int, only: Sequence[str], runs: int) -> None:
    """Measure every figure by turns, and print one table of the medians. Peers are measured where asked for."""
    uvloop.run(_main(count, runs, only or list(FIGURES)))


async def _main(count: int, runs: int, wanted: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        async with process(LOAD_CORE, *module("tests.bench.servers", "sink")) as sink:
            address = f"http://127.0.0.1:{await line_of(sink)}"
            measured = [await _run(count, Path(name), run, address, wanted) for run in range(runs)]
    table = Table("figure", "measured", "limit", "ratio", "must reach", title=f"medians of {runs} runs")
    for row in medians(measured):
        table.add_row(*row.cells)
    Console(width=110).print(table)


async def _run(count: int, folder: Path, run: int, sink: str, wanted: Sequence[str]) -> list[Row]:
    bench = Bench(count, folder / str(run), sink)
    bench.folder.mkdir()
    figures = {**FIGURES, "peers": peers}
    rows = [row for one in wanted for row in await figures[one](bench)]
    shutil.rmtree(bench.folder)
    return rows


if __name__ == "__main__":
    main()
