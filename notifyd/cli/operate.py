"""`notifyd channels` and `notifyd deliveries`: looking after a running service."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

import click
from attrs import define, field

from notifyd.cli.common import Failure, json_option, limit_option, not_ok, print_json
from notifyd.cli.output import print_members, print_table, shown_time
from notifyd.cli.remote import Lists, Remote, calling, print_list, remote_options, whole_id
from notifyd.client import CHANNELS, DELIVERIES, Client, RefusedError, UnreachableError

_TIMED = ("window", "retry")
"""What a delivery waits for until a time that is known."""

_DEAD_ONES: Final[Lists] = ((DELIVERIES, {"state": "dead"}),)
_SOUGHT: Final[Lists] = (*_DEAD_ONES, (DELIVERIES, {"state": "pending"}), (DELIVERIES, {}))
"""Where an id is sought that begins as was said, the likeliest first."""

STATES = ("pending", "sending", "sent", "dead", "folded")


@click.group()
def channels() -> None:
    """List or test the channels of a running service."""


@channels.command("list")
@remote_options
@json_option
def list_channels(remote: Remote, as_json: bool) -> None:
    """List the channels."""
    columns = ("name", "type", "plugin", "breaker", "backlog", "last success", "last failure")
    print_list(remote.operator().items(CHANNELS), as_json, columns, _channel_row)


def _channel_row(item: Any) -> tuple[Any, ...]:
    lane, sent, failed = item["lane"], item["lastSuccess"], item["lastFailure"]
    return (
        item["name"],
        item["type"],
        f"{item['plugin']} {item['version']}",
        lane["breaker"],
        lane["backlog"],
        sent and sent["at"],
        failed and f"{shown_time(failed['at'])} {failed['reason']}: {failed['detail']}",
    )


@channels.command("test")
@remote_options
@json_option
@click.option("--recipient", help="Whom to write to, where the channel writes to a person.")
@click.argument("name")
def test_channel(remote: Remote, as_json: bool, recipient: str | None, name: str) -> None:
    """Send a test message through the channel NAME. Exits with 1 where it does not get through."""
    body = json.dumps({"recipient": recipient}).encode() if recipient else b""
    with calling(as_json):
        answer = remote.operator().post(f"{CHANNELS}/{quote(name, safe='')}/test", body)
    if as_json:
        print_json(answer.document)
    else:
        click.echo(": ".join(filter(None, (f"{name} took the test message", answer.document["detail"]))))


@click.group()
def deliveries() -> None:
    """Look at the ledger of deliveries, and send dead ones again."""


@deliveries.command("list")
@remote_options
@json_option
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@click.option("--channel", help="Only those for this channel.")
@limit_option
def list_deliveries(
    remote: Remote, as_json: bool, state: str | None, channel: str | None, limit: int
) -> None:
    """List deliveries, newest first."""
    found = remote.operator().items(DELIVERIES, state=state, channel=channel)
    print_list(found, as_json, ("created", "state", "to", "about", "why", "id"), _row, limit=limit)


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    about = f"{item['kind']} {item['action']}".strip()
    if item["runId"]:
        about += f" {item['runId']}/{item['approvalId']}"
    to = " ".join(filter(None, (item["channel"], item["recipient"])))
    return item["createdAt"], item["state"], to, about, _why(item), item["id"]


def _why(item: dict[str, Any]) -> str:
    """What it waits for and, where that is known, until when; and the fault of its last attempt."""
    waits, reason = item["waitsFor"], item["reason"]
    until = f"{waits} until {shown_time(item['nextAttemptAt'])}" if waits in _TIMED else waits
    return ": ".join(filter(None, (until, reason if reason != waits else None)))


@deliveries.command("show")
@remote_options
@json_option
@click.argument("id_", metavar="ID")
def show_delivery(remote: Remote, as_json: bool, id_: str) -> None:
    """Show one delivery with its attempts."""
    client = remote.operator()
    with calling(as_json):
        item = client.get(f"{DELIVERIES}/{quote(whole_id(client, id_, _SOUGHT), safe='')}")
    if as_json:
        print_json(item)
        return
    attempts = item["attempts"]
    print_members({name: item[name] for name in item if name != "attempts"})
    columns = ("at", "outcome", "reason", "status", "durationMs", "detail", "excerpt")
    print_table(columns, [[attempt[name] for name in columns] for attempt in attempts])


@deliveries.command("retry")
@remote_options
@json_option
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--channel", help="All dead ones of this channel.")
@click.option("--all", "everything", is_flag=True, help="All dead ones there are.")
def retry_deliveries(
    remote: Remote, as_json: bool, id_: str | None, channel: str | None, everything: bool
) -> None:
    """Send dead deliveries again: the one named ID, those of a channel, or all."""
    if [id_ is not None, channel is not None, everything].count(True) != 1 or "" in {id_, channel}:
        raise click.UsageError("name one delivery, or give --channel NAME, or --all")
    client, result = remote.operator(), Retried()
    with calling(as_json):
        if id_:
            result.retried.append(_retry(client, whole_id(client, id_, _DEAD_ONES)))
        else:
            try:
                _retry_dead(client, channel, result)
            except (UnreachableError, KeyboardInterrupt):
                _print_retried(result, as_json)  # they are, whatever ended the command
                raise
    _print_retried(result, as_json)
    if result.refused and not as_json:
        raise Failure(*(f"{refused['id']}: {refused['message']}" for refused in result.refused))
    if result.refused:
        raise not_ok()


@define
class Retried:
    """The ids of what is to be sent again, and why something is not."""

    retried: list[str] = field(factory=list)
    refused: list[dict[str, str]] = field(factory=list)


def _print_retried(result: Retried, as_json: bool) -> None:
    if as_json:
        print_json({"retried": result.retried, "refused": result.refused})
    else:
        click.echo(f"{len(result.retried)} to be sent again")


def _retry(client: Client, id_: str) -> str:
    client.post(f"{DELIVERIES}/{quote(id_, safe='')}/retry")
    return id_


def _retry_dead(client: Client, channel: str | None, result: Retried) -> None:
    # All are listed first: one that is sent again leaves the list that is being read.
    for item in list(client.items(DELIVERIES, state="dead", channel=channel)):
        try:
            result.retried.append(_retry(client, item["id"]))
        except RefusedError as error:
            result.refused.append({"id": item["id"], "message": error.answer.summary})
