"""`notifyd dead`: what a running service has given up, and trying it again."""

from __future__ import annotations

from itertools import islice
from urllib.parse import quote

import click

from notifyd.cli.common import json_option, print_json
from notifyd.cli.output import print_table
from notifyd.cli.remote import Remote, calling, remote_options
from notifyd.client import DEAD


@click.group()
def dead() -> None:
    """Look at dead effects and deliveries together, and try one again."""


@dead.command("list")
@remote_options
@json_option
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="So many at most.")
def list_dead(remote: Remote, as_json: bool, limit: int) -> None:
    """List what is dead: effects of approvals first, then deliveries, each newest first."""
    with calling(as_json):
        items = list(islice(remote.operator().items(DEAD), limit))
    if as_json:
        print_json(items)
        return
    columns = ("what", "name", "runId", "approvalId", "endedAt", "reason", "fault", "id")
    print_table(columns, ([item[name] for name in columns] for item in items))


@dead.command("retry")
@remote_options
@json_option
@click.argument("id_", metavar="ID")
def retry_dead(remote: Remote, as_json: bool, id_: str) -> None:
    """Try the dead effect or delivery ID again."""
    with calling(as_json):
        answer = remote.operator().post(f"{DEAD}/{quote(id_, safe='')}/retry")
    if as_json:
        print_json(answer.document)
    else:
        click.echo(f"{id_} is tried again")
