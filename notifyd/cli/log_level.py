"""`notifyd log-level`: what a running service writes to its log."""

from __future__ import annotations

import json
from typing import Any

import click

from notifyd.cli.common import json_option, print_json
from notifyd.cli.remote import Remote, calling, remote_options
from notifyd.client import LOG_LEVEL, Client
from notifyd.levels import LogLevel


@click.command("log-level")
@remote_options
@json_option
@click.argument("level", type=click.Choice([one.value for one in LogLevel]), required=False)
def log_level(remote: Remote, as_json: bool, level: str | None) -> None:
    """Log LEVEL and worse from now on, until the next start. Without LEVEL, show what is logged."""
    client = remote.operator()
    with calling(as_json):
        document = _set(client, level) if level else client.get(LOG_LEVEL)
    if as_json:
        print_json(document)
    else:
        click.echo(document["level"])


def _set(client: Client, level: str) -> Any:
    return client.post(LOG_LEVEL, json.dumps({"level": level}).encode()).document
