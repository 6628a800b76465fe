"""`notifyd approvals`: what a running service asks people, and what they have decided."""

from __future__ import annotations

from operator import itemgetter
from urllib.parse import quote

import click

from notifyd.cli.common import json_option, limit_option, print_json
from notifyd.cli.output import print_members, print_table
from notifyd.cli.remote import Remote, calling, print_list, remote_options
from notifyd.client import PACK_EVENTS

STATUSES = ("pending", "approved", "rejected", "expired", "cancelled")


@click.group()
def approvals() -> None:
    """Look at approvals."""


@approvals.command("list")
@remote_options
@json_option
@click.option("--status", type=click.Choice(STATUSES), help="Only those in this status.")
@click.option("--run", help="Only those of this run.")
@limit_option
def list_approvals(remote: Remote, as_json: bool, status: str | None, run: str | None, limit: int) -> None:
    """List approvals, newest first."""
    found = remote.operator().items(PACK_EVENTS, status=status, runId=run)
    columns = ("requestedAt", "status", "expiresAt", "runId", "approvalId")
    print_list(found, as_json, columns, itemgetter(*columns), limit=limit)


@approvals.command("show")
@remote_options
@json_option
@click.argument("run")
@click.argument("approval")
def show_approval(remote: Remote, as_json: bool, run: str, approval: str) -> None:
    """Show the approval APPROVAL of the run RUN, with its decisions and its history."""
    with calling(as_json):
        item = remote.operator().get(f"{PACK_EVENTS}/{quote(run, safe='')}/{quote(approval, safe='')}")
    if as_json:
        print_json(item)
        return
    decisions, history = item["decisions"], item["history"]
    print_members({name: item[name] for name in item if name not in {"decisions", "history"}})
    for columns, rows in (
        (("decidedAt", "decision", "actor", "comment"), decisions),
        (("at", "name", "actor"), history),
    ):
        click.echo()
        print_table(columns, ([row[name] for name in columns] for row in rows))
