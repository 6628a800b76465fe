"""`notifyd silence`: holding notifications of a running service back for a time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import click

from notifyd.cli.common import json_option, limit_option, print_json
from notifyd.cli.output import on_terminal, shown_time
from notifyd.cli.remote import Remote, calling, print_list, remote_options, whole_id
from notifyd.client import SILENCES


@click.group()
def silence() -> None:
    """Hold notifications back for a time, and tell them afterwards."""


@silence.command("add")
@remote_options
@json_option
@click.option("--for", "span", metavar="DURATION", help="For how long from its start, such as 2h or 30m.")
@click.option("--until", metavar="TIME", help="Until when, an RFC 3339 time.")
@click.option("--from", "start", metavar="TIME", help="From when, an RFC 3339 time; by default at once.")
@click.option("--reason", required=True, help="Why, for those who read it later.")
@click.option(
    "--approvals", is_flag=True, help="Hold requests for approval too: nobody is asked until the end."
)
@click.argument("when")
def add_silence(
    remote: Remote,
    as_json: bool,
    span: str | None,
    until: str | None,
    start: str | None,
    reason: str,
    approvals: bool,
    when: str,
) -> None:
    """Hold back what events that match WHEN set off: a CEL expression over `event`, as a rule's `when`."""
    if (span is None) == (until is None):
        raise click.UsageError("say for how long with --for, or until when with --until")
    ends_at = until if until is not None else _end(start, span or "")
    document = {"when": when, "reason": reason, "endsAt": ends_at, "approvals": approvals}
    document |= {"startsAt": start} if start else {}
    with calling(as_json):
        answer = remote.operator().post(SILENCES, json.dumps(document).encode())
    if as_json:
        print_json(answer.document)
    else:
        click.echo(f"{answer.document['id']} until {shown_time(answer.document['endsAt'])}")
    _tell_misspelt(when)


def _tell_misspelt(when: str) -> None:
    """Of a predicate that the service has taken: what rather holds nothing."""
    from notifyd.rules.spelling import misspelt

    for doubt in misspelt(when):
        click.echo(f"notifyd: warning: {doubt}", err=True)


def _end(start: str | None, span: str) -> str:
    from notifyd.config.units import parse_duration

    try:
        begins = datetime.fromisoformat(start) if start else datetime.now(UTC)
        ends = begins + timedelta(microseconds=parse_duration(span))
        return ends.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError) as error:
        raise click.UsageError(str(error)) from None


@silence.command("list")
@remote_options
@json_option
@click.option("--all", "everything", is_flag=True, help="Those that are over, too.")
@limit_option
def list_silences(remote: Remote, as_json: bool, everything: bool, limit: int) -> None:
    """List the silences that are in force or to come, newest first."""
    found = (one for one in remote.operator().items(SILENCES) if everything or one["state"] != "over")
    begin = ("starts", "ends", "state", "when", "reason")
    if on_terminal():  # seven columns leave none of them its words
        print_list(found, as_json, (*begin, "id"), _shown, limit=limit)
    else:
        print_list(found, as_json, (*begin, "author", "id"), _row, limit=limit)


def _shown(item: dict[str, Any]) -> tuple[Any, ...]:
    *begin, reason, author, id_ = _row(item)
    return (*begin, f"{reason} ({author})", id_)


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    ends = item["endedAt"] or item["endsAt"]
    names = ("state", "when", "reason", "author", "id")
    return (item["startsAt"], ends, *(item[name] for name in names))


@silence.command("expire")
@remote_options
@json_option
@click.argument("id_", metavar="ID")
def expire_silence(remote: Remote, as_json: bool, id_: str) -> None:
    """End the silence ID now: what it held is told."""
    client = remote.operator()
    with calling(as_json):
        whole = whole_id(client, id_, [(SILENCES, {})])
        answer = client.delete(f"{SILENCES}/{quote(whole, safe='')}")
    if as_json:
        print_json(answer.document)
    else:
        click.echo(f"{whole} is over")
