"""Playing the acts, and telling of them as a person would want to read it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from attrs import define, field
from rich.console import Console
from rich.text import Text

from notifyd.demo.acts import ACTS, LAST_ACTS, Act, Lines, MismatchError, Play, ask_again, stop_daemon
from notifyd.demo.stage import Stage, StageError, stage

_PATIENCE: Final = 15.0
"""Seconds that an act may take."""


class FailedActError(Exception):
    """An act failed; the text names it and says why."""


@define
class Narrator:
    """Tells of each act, numbered. Colours and nothing else depend on whether this is a terminal."""

    console: Console
    _numbers: count[int] = field(factory=lambda: count(1))

    def tell(self, lines: Lines) -> None:
        headline, *details = lines
        self._print(Text.assemble((f"{next(self._numbers):>3}  ", "bold green"), headline))
        for detail in details:
            self._print(Text(f"     {detail}", "cyan" if "://" in detail else "dim"))

    def say(self, text: str, style: str = "") -> None:
        self._print(Text(text, style))

    def _print(self, text: Text) -> None:
        # Not wrapped, so that an address stays one.
        self.console.print(text, soft_wrap=True)


async def play_all(out: Path, console: Console) -> None:
    """Play the demo with its files in `out`. On a terminal a second approval then waits until Ctrl-C.

    Raises `FailedActError`; CancelledError where a signal comes before the end.
    """
    narrator = Narrator(console)
    if (task := asyncio.current_task()) is not None:
        _on_signals(task.cancel)
    narrator.say("notifyd demo: one approval, from the event to the resumed run\n", "bold")
    async with stage(out) as one:
        play = Play(one)
        await _play(ACTS, play, narrator)
        if console.is_terminal:
            await _stay(play, narrator)
        else:
            await _play(LAST_ACTS, play, narrator)
    narrator.say("\nEverything went as it should.", "bold green")


async def _play(acts: Sequence[Act], play: Play, narrator: Narrator) -> None:
    for act in acts:
        await _act(act, play, narrator)


async def _act(act: Act, play: Play, narrator: Narrator) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            lines = await act.run(play)
    except (MismatchError, StageError) as error:
        raise FailedActError(f"{act.name}: {error}") from None
    except TimeoutError:
        raise FailedActError(
            f"{act.name}: it did not happen; last log line: {play.stage.last_words()}"
        ) from None
    except Exception as error:
        raise FailedActError(f"{act.name}: {type(error).__name__}: {error}") from error
    narrator.tell(lines)


def _on_signals(then: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, then)


# --- on a terminal ------------------------------------------------------------------------------------------


async def _stay(play: Play, narrator: Narrator) -> None:
    """Ask for a second approval, and wait until Ctrl-C, telling of the decision if one comes."""
    enough = asyncio.Event()
    _on_signals(enough.set)
    await _act(Act("ask for a second approval", ask_again), play, narrator)
    telling = asyncio.create_task(_tell_decision(play.stage, narrator))
    await enough.wait()
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    narrator.console.print()
    await _act(Act("stop the daemon", stop_daemon), play, narrator)


async def _tell_decision(one: Stage, narrator: Narrator) -> None:
    data = (await one.runner.document(1))["data"]
    narrator.tell((f"Task Runner gets the decision: {data['decision']} by {', '.join(data['actors'])}",))
