"""`notifyd serve`: the daemon as a process."""

from __future__ import annotations

import gc
import signal
from pathlib import Path

import click

from notifyd.cli.common import Failure, Unusable, config_failure, config_option
from notifyd.errors import ConfigError, NotifydError, StoreUnusableError
from notifyd.levels import LogLevel


@click.command()
@config_option
@click.option(
    "--log-level",
    type=click.Choice([one.value for one in LogLevel]),
    envvar="NOTIFYD_LOG_LEVEL",
    default=LogLevel.INFO.value,
    show_default=True,
    show_envvar=True,
    help="Log this and worse.",
)
@click.option(
    "--abandon-sealed",
    is_flag=True,
    help="Start without keys that stored rows need: they are never sent, and the log counts them.",
)
def serve(config_path: Path, log_level: str, abandon_sealed: bool) -> None:
    """Run the service.

    SIGHUP reads the configuration again; SIGUSR1 turns the log's debug lines on, and off again; SIGTERM and SIGINT
    end the service, within 10 seconds. Logs go to standard output: as text on a terminal, else as JSON lines.

    Exits with 0 after a signal, with 1 where it could not start or a step has broken, and with 3 where another
    start would end likewise: the configuration has a fault, or the store is corrupt or is not one of this service.
    """
    # Until the configuration is read there is nothing to reload, and a signal's default is death.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # What the imports make stays: searching it for garbage, again and again as it grows, took a tenth of a start.
    gc.disable()
    from notifyd.service import daemon

    gc.freeze()

    try:
        code = daemon.serve(config_path, LogLevel(log_level), abandon_sealed=abandon_sealed)
    except ConfigError as error:
        raise Unusable(*config_failure(config_path, error).lines) from None
    except StoreUnusableError as error:
        raise Unusable(f"cannot start: {error}") from None
    except (NotifydError, OSError) as error:
        raise Failure(f"cannot start: {error}") from None
    raise click.exceptions.Exit(code)
