"""`notifyd ready`: is a service ready? For the health check of a container, or a script that waits."""

from __future__ import annotations

from pathlib import Path

import click

from notifyd.cli.common import Seconds, config_option, json_option, print_json
from notifyd.cli.remote import Remote, calling, url_option
from notifyd.client import READY, Anybody, Client
from notifyd.trust import trusting_anything


@click.command()
@config_option
@url_option
@json_option
@click.option(
    "--timeout",
    type=Seconds(),
    default=4.0,
    show_default=True,
    help="Seconds to wait for its answer.",
)
def ready(config_path: Path, url: str | None, as_json: bool, timeout: float) -> None:
    """Ask a service whether it is ready. Exits with 1 where it is not, or gives no answer.

    Where it listens, and whether by HTTPS, is read from [server] of the configuration, and nothing else is.
    """
    remote = Remote(config_path, url, None)
    # Its certificate may be renewed and not loaded yet, and is for another name: none of that makes it unready.
    trust = trusting_anything() if remote.own_certificate else None
    with calling(as_json):
        document = Client(remote.url, Anybody(), timeout=timeout, trust=trust).get(READY)
    if as_json:
        print_json(document)
    else:
        click.echo(document["status"])
