"""What commands share: their options, how they fail, and how they print."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from notifyd.errors import ConfigError, Fault
from notifyd.text import clean

if TYPE_CHECKING:  # imported by the commands that need them, when they do
    from notifyd.config.settings import Settings
    from notifyd.registry.discovery import Discovered
    from notifyd.store import Store

DEFAULT_CONFIG: Final = Path("/etc/notifyd/notifyd.toml")

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="NOTIFYD_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    show_envvar=True,
    help="The configuration file.",
)
needless_config_option = click.option(
    "--config", hidden=True, expose_value=False, help="Every command takes it; this one has no use for it."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Seconds(click.FloatRange):
    """A time to wait: more than none, and no more than a day, since no clock of the system takes any number."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True, max=86_400)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


limit_option = click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="So many at most."
)


class Failure(click.ClickException):
    """What was asked about is not ok: one line on standard error for each reason, and exit code 1."""

    exit_code = 1

    def __init__(self, message: str, *more: str) -> None:
        super().__init__(message)
        self.lines = (message, *more)

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.lines:
            # One line each, and nothing that steers a terminal, whatever an answer of a service holds.
            click.echo(f"notifyd: {clean(line).replace(chr(10), ' ')}", file=file or sys.stderr)


class Unfit(Failure):
    """What was given to compare with is faulty itself, so that there is no answer: wrong usage."""

    exit_code = 2


class Unusable(Failure):
    """The service cannot start, and a second start would not help: its manager is not to try."""

    exit_code = 3


def not_ok() -> click.exceptions.Exit:
    """Raise this where the answer itself, already printed, is that something is not ok."""
    return click.exceptions.Exit(1)


def config_failure(path: Path, error: ConfigError) -> Failure:
    return Failure(*fault_lines(path, error.faults))


def fault_lines(path: Path, faults: Iterable[Fault]) -> list[str]:
    """Each fault with its file, once, and the line where it has one: `notifyd.toml:12: server.listen: ...`."""
    from notifyd.config.lines import is_of_file, placed

    return [
        str(fault) if is_of_file(fault, path) else f"{path}:{line}: {fault}" if line else f"{path}: {fault}"
        for line, fault in placed(path, faults)
    ]


def load_config(path: Path) -> tuple[Settings, Discovered]:
    """The configuration and the plugins it was read with. Raises `ConfigError`."""
    from notifyd.config.load import read
    from notifyd.registry.discovery import discover

    discovered = discover()
    return read(path, discovered.brought).whole(), discovered


@asynccontextmanager
async def store_of(settings: Settings, command: str, *, create: bool = False) -> AsyncIterator[Store]:
    """The configured store, open for a command. On MongoDB that is a node of its own, beside the service's.

    Raises `StoreMissingError` where there is none, unless one may be made: an answer about an empty store would
    look like success. Raises `StoreOutdatedError` for a schema of an earlier notifyd, which may still need it.
    """
    from notifyd.model import SECOND, wall_clock
    from notifyd.store.open import StoreOptions, open_store

    store = await open_store(
        settings.store.url,
        StoreOptions(
            node=f"{settings.server.node}/{command}",
            clock=wall_clock,
            create=create,
            upgrade=create,
            timeout=settings.store.timeout / SECOND,
            driver=settings.store.driver,
        ),
    )
    try:
        yield store
    finally:
        await store.aclose()


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text. Raises `ValueError`, also for one that is nested too deeply to be read."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_event(data: bytes) -> Any:
    """The value of a text as posting it would read it.

    Raises `ValueError` for what is no JSON, `MalformedError` and `InvalidError` for what else would be refused.
    """
    from notifyd.wire.codec import loads

    parse_json(data)
    return loads(data)


def print_json(document: Any) -> None:
    """In UTF-8, or in ASCII alone where standard output has another encoding: with its escapes it stays JSON."""
    plain = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    click.echo(json.dumps(document, ensure_ascii=plain, indent=2, default=date.isoformat))
