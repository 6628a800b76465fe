"""`notifyd audit`: the audit trail of a running service."""

from __future__ import annotations

import json
from typing import Any

import click

from notifyd.cli.common import json_option, print_json
from notifyd.cli.output import print_table
from notifyd.cli.remote import Remote, calling, remote_options
from notifyd.client import AUDIT


@click.group()
def audit() -> None:
    """Look at the audit trail."""


@audit.command("list")
@remote_options
@json_option
@click.option("--run", help="Of this run only.")
@click.option("--approval", help="Of approvals with this id only.")
@click.option(
    "--untenanted",
    is_flag=True,
    help="What concerns no tenant, such as refused callers; needs the scope Notifier.Operate.",
)
def list_audit(
    remote: Remote, as_json: bool, run: str | None, approval: str | None, untenanted: bool
) -> None:
    """List the audit trail, newest first."""
    given = {"runId": run, "approvalId": approval, "untenanted": "true" if untenanted else None}
    with calling(as_json):
        asked = {name: value for name, value in given.items() if value}
        items = list(remote.operator().items(AUDIT, **asked))
    if as_json:
        print_json(items)
    else:
        print_table(("at", "name", "actor", "about", "facts"), map(_row, items))


def _row(item: Any) -> tuple[Any, ...]:
    about = f"{item['runId']}/{item['approvalId']}" if item["runId"] else None
    return item["at"], item["name"], item["actor"], about, json.dumps(item["data"], ensure_ascii=False)
