"""`notifyd dead`: what a running service has given up, and trying it again."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from notifyd.cli.common import json_option, limit_option, print_json
from notifyd.cli.remote import Remote, calling, print_list, remote_options, whole_id
from notifyd.client import DEAD


@click.group()
def dead() -> None:
    """Look at dead effects and deliveries together, and try one again."""


@dead.command("list")
@remote_options
@json_option
@limit_option
def list_dead(remote: Remote, as_json: bool, limit: int) -> None:
    """List what is dead: effects of approvals first, then deliveries, each newest first."""
    columns = ("ended", "what", "about", "reason", "fault", "id")
    print_list(remote.operator().items(DEAD), as_json, columns, _row, limit=limit)


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    about = f"{item['runId']}/{item['approvalId']}" if item["runId"] else None
    return item["endedAt"], f"{item['what']} {item['name']}", about, item["reason"], item["fault"], item["id"]


@dead.command("retry")
@remote_options
@json_option
@click.argument("id_", metavar="ID")
def retry_dead(remote: Remote, as_json: bool, id_: str) -> None:
    """Try the dead effect or delivery ID again."""
    client = remote.operator()
    with calling(as_json):
        whole = whole_id(client, id_, [(DEAD, {})])
        answer = client.post(f"{DEAD}/{quote(whole, safe='')}/retry")
    if as_json:
        print_json(answer.document)
    else:
        click.echo(f"{whole} is tried again")
