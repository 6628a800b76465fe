"""The daemon as a process that kills itself with SIGKILL before or after the n-th call of one store operation.

Usage: python -m tests.chaos.crashing [--often] CONFIG TRACE [OPERATION NTH SIDE], or `start`, which forks it from
a process that has imported it: most of a start goes to that. It appends each operation it has finished to the
file TRACE, a line each, unless that is `-`, and prints `listening PORT` once it does. Its clock is ahead by the
seconds in the file `turned` beside CONFIG, where there is one: see `turn`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from notifyd.config import load as config
from notifyd.config.settings import Settings
from notifyd.metrics import Metrics
from notifyd.model import SECOND, Clock, Instant, wall_clock
from notifyd.registry.discovery import discover
from notifyd.service.app import open_configured_store, running
from notifyd.service.daemon import _loop_factory
from notifyd.store import Store
from tests.forks import Forked, ForkServer

STEPS = frozenset(
    {
        "append",
        "append_all",
        "append_planned",
        "fix_plans",
        "fold",
        "insert_deliveries",
        "let_go",
        "record",
        "release",
        "replace_approval",
        "replace_message",
        "complete_effect",
        "write_audit",
    }
)
"""The operations that take the way a step further. Claims and leases are void after a crash."""


@define
class CrashingStore:
    """A store that counts its steps, and crashes at one of them."""

    inner: Store
    trace: Path | None
    crash_at: tuple[str, int, str] | None
    calls: dict[str, int] = field(factory=dict)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name not in STEPS:
            return method

        async def step(*args: Any, **kwargs: Any) -> Any:
            nth = self.calls[name] = self.calls.get(name, 0) + 1
            self._crash_if(name, nth, "before")
            result = await method(*args, **kwargs)
            if self.trace is not None:
                with self.trace.open("a") as trace:
                    trace.write(f"{name} {nth}\n")
            self._crash_if(name, nth, "after")
            return result

        return step

    def _crash_if(self, *where: Any) -> None:
        if where == self.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)


def turn(folder: Path, seconds: int) -> None:
    """Set the clock of the daemons whose configuration is in `folder` ahead, in this life and the next ones.

    Back where `seconds` are negative.
    """
    new = folder / "turned.new"
    new.write_text(str(seconds))
    new.replace(folder / "turned")


def turned_clock(folder: Path) -> Clock:
    turned = folder / "turned"

    def clock() -> Instant:
        try:
            return wall_clock() + int(turned.read_text()) * SECOND
        except FileNotFoundError:
            return wall_clock()

    return clock


async def main(config_path: str, trace: str, crash_at: tuple[str, int, str] | None) -> None:
    async def open_store(settings: Settings, metrics: Metrics, clock: Clock) -> Store:
        store = await open_configured_store(settings, metrics, clock)
        crashing: Any = CrashingStore(store, None if trace == "-" else Path(trace), crash_at)
        return crashing  # type: ignore[no-any-return]

    discovered = discover()
    settings = config.read(Path(config_path), discovered.brought).whole()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clock = turned_clock(Path(config_path).parent)
    async with running(settings, discovered, clock=clock, open_store=open_store) as app:
        print("listening", app.address[1], flush=True)
        await stop.wait()


def run() -> None:
    """Run what the arguments say."""
    _, *arguments = sys.argv
    if arguments[0] == "--often":
        _look_often()
        del arguments[0]
    config_path, trace, *where = arguments
    point = (where[0], int(where[1]), where[2]) if where else None
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main(config_path, trace, point))


def _look_often() -> None:
    import pytest  # a fifth of a start, and only for this

    from tests.often import look_often

    look_often(pytest.MonkeyPatch())


DAEMONS: Final = ForkServer("tests.chaos.crashing")


async def start(
    folder: Path,
    *crash_at: str,
    often: bool = False,
    traced: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> Forked:
    """The daemon of `folder`/notifyd.toml, with a crash in it where one is named; its log is `folder`/stderr.

    `often`: it looks many times a second for what is due, and so may do an effect beside who has begun with it.
    """
    arguments = ["--often"] * often + [
        str(folder / "notifyd.toml"),
        str(folder / "trace") if traced else "-",
        *crash_at,
    ]
    null = os.open(os.devnull, os.O_RDWR)
    try:
        with (folder / "stderr").open("ab") as stderr:
            return await DAEMONS.start(arguments, environ, (null, null, stderr.fileno()))
    finally:
        os.close(null)


def load() -> Callable[[], None]:
    """Import what the daemon imports, and compile the built-in templates; `run`."""
    import pytest  # noqa: F401 - as `_look_often` does

    import notifyd.store.sqlite  # noqa: F401 - as the store's opening does
    from notifyd.render.render import TemplateSet

    TemplateSet.load(discover().template_sources, (), "en")
    return run


if __name__ == "__main__":
    run()
