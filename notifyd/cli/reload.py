"""`notifyd reload`: have the service of this machine read its configuration, and say whether it did."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import click

from notifyd.cli.common import Failure, Seconds, needless_config_option
from notifyd.service import reloads

_LOOK: Final = 0.05
"""Seconds between looks: nothing tells a process that is no child of the service's."""


@click.command("reload")
@needless_config_option
@click.option(
    "--timeout",
    type=Seconds(),
    default=60.0,
    show_default=True,
    help="Seconds to wait for the end of the reload.",
)
def reload(timeout: float) -> None:
    """Have the service read its configuration again, and wait until it has. Exits with 1 where it refused it.

    For ExecReload of systemd: it finds the service by $RUNTIME_DIRECTORY. Its log says what it refused, and why.
    """
    where = reloads.folder()
    if where is None:
        raise click.UsageError(
            "set RUNTIME_DIRECTORY to the runtime folder of the service, such as /run/notifyd"
        )
    try:
        before = reloads.read(where)
        os.kill(before.pid, signal.SIGHUP)
        after = _ended(where, before, time.monotonic() + timeout)
    except (OSError, ValueError) as error:
        raise Failure(f"no service is found by {where}: {error}") from None
    if not after.taken:
        raise Failure("the reload was refused, and the configuration before is in force: the log says why")
    click.echo("reloaded")


def _ended(where: Path, before: reloads.Reloads, deadline: float) -> reloads.Reloads:
    """How the first reload ended that began after the signal: one under way may have read what was before."""
    while True:
        now = reloads.read(where)
        if now.pid != before.pid:
            raise Failure("the service has been started anew meanwhile, and has read its configuration")
        if now.ended > before.begun:
            return now
        if time.monotonic() >= deadline:
            raise Failure("the service does not come to the reload: is its loop held up? See its log")
        os.kill(before.pid, 0)  # raises where it has ended
        time.sleep(_LOOK)
