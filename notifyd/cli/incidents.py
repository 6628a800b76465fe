"""`notifyd incidents`: what policies hold, as a running service knows of it."""

from __future__ import annotations

from typing import Any

import click

from notifyd.cli.common import json_option, limit_option
from notifyd.cli.remote import Remote, print_list, remote_options
from notifyd.client import INCIDENTS


@click.group()
def incidents() -> None:
    """Look at what policies hold."""


@incidents.command("list")
@remote_options
@json_option
@click.option("--open/--closed", "is_open", default=None, help="Only those that are open, or closed.")
@click.option("--run", help="Only those of this run.")
@limit_option
def list_incidents(remote: Remote, as_json: bool, is_open: bool | None, run: str | None, limit: int) -> None:
    """List incidents, newest first."""
    wanted = None if is_open is None else str(is_open).lower()
    found = remote.operator().items(INCIDENTS, open=wanted, runId=run)
    print_list(found, as_json, ("opened", "closed", "policy", "about", "messages"), _row, limit=limit)


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    about = f"{item['runId']}/{item['approvalId']}"
    return item["openedAt"], item["closedAt"], item["policyId"], about, "; ".join(item["messages"])
