"""`notifyd demo`."""

from __future__ import annotations

import asyncio
import signal
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import click

from notifyd.cli.common import Failure, needless_config_option

_INTERRUPTED = 128 + signal.SIGINT


@click.command()
@needless_config_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the mail, the log and the configuration are put; by default a new temporary folder.",
)
def demo(out: Path | None) -> None:
    """Start a service with a made-up Task Runner, mail server and webhook, all on this machine, and play one
    approval from event to resume.

    Exits with 1 where a step fails. On a terminal a second approval then waits for you until Ctrl-C.
    """
    if find_spec("aiosmtpd") is None:
        raise Failure("the demo needs a mail server to send to: pip install 'notifyd-server[demo]'")
    from rich.console import Console

    from notifyd.demo.play import FailedActError, play_all

    folder = out or Path(mkdtemp(prefix="notifyd-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(play_all(folder.resolve(), Console(highlight=False)))
    except FailedActError as error:
        raise Failure(f"the demo failed at this step: {error}") from None
    except asyncio.CancelledError:
        raise click.exceptions.Exit(_INTERRUPTED) from None
