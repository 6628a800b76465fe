"""`notifyd keys`: which stored rows need which key of `keys.seal`, and moving them all to the first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import click
from attrs import evolve

from notifyd.cli.common import Failure, json_option, not_ok, print_json
from notifyd.cli.output import print_table
from notifyd.cli.remote import Remote, calling, remote_options
from notifyd.cli.upkeep import Tally, is_watched
from notifyd.client import KEYS, RESEAL, Client
from notifyd.text import counted

COLLECTIONS: Final = ("approvals", "deliveries")

_COUNTING: Final = 600.0
"""Seconds that counting may take: the service reads every sealed row."""


@click.group()
def keys() -> None:
    """Look at the keys that seal stored rows, and move the rows to the first."""


@keys.command("status")
@remote_options
@json_option
def status(remote: Remote, as_json: bool) -> None:
    """Show which rows need which key. One that no row needs may be taken out of keys.seal."""
    with calling(as_json):
        found = _counted(remote.operator())
    if as_json:
        print_json(found)
        return
    columns = ("key", "use", *(f"{name} {need}" for name in COLLECTIONS for need in ("in need", "ended")))
    print_table(columns, map(_row, found))


def _counted(client: Client) -> list[Any]:
    found: list[Any] = evolve(client, timeout=_COUNTING).get(KEYS)["keys"]
    return found


def _row(key: Any) -> tuple[Any, ...]:
    counts = (key[need][name] for name in COLLECTIONS for need in ("needed", "ended"))
    return (key["id"], key["use"], *counts)


@keys.command("reseal")
@remote_options
@json_option
def reseal(remote: Remote, as_json: bool) -> None:
    """Seal all rows anew under the first key of keys.seal. Exits with 1 where some do not open.

    Repeated after it was cut short, it goes on with what is left. Several at once do no harm.
    """
    client = remote.operator()
    moved, unreadable = (Tally(dict.fromkeys(COLLECTIONS, 0)) for _ in range(2))
    key = ""
    with calling(as_json), moved.shown(_to_move(client)):
        for answer in _answers(client):
            key = answer["key"]
            for name in COLLECTIONS:
                moved.add(name, answer["moved"][name])
                unreadable.add(name, answer["unreadable"][name])
    left = sum(unreadable.counts.values())
    if as_json:
        print_json({"key": key, "moved": moved.counts, "unreadable": unreadable.counts})
    else:
        print_table(("collection", f"moved to {key}"), list(moved.counts.items()))
    if left and not as_json:
        shut = counted(left, "row does not open", "rows do not open")
        raise Failure(
            f"{shut} under any key of keys.seal, and nothing changes there: see 'notifyd keys status'"
        )
    if left:
        raise not_ok()


def _to_move(client: Client) -> dict[str, int]:
    """How many rows are under other keys than the first, for the progress bars; nothing where nobody looks."""
    if not is_watched():
        return {}
    others = [key for key in _counted(client) if key["use"] != "seals"]
    return {
        name: sum(key[need][name] for key in others for need in ("needed", "ended")) for name in COLLECTIONS
    }


def _answers(client: Client) -> Iterator[Any]:
    """Ask until there is no more to do; each answer takes about a second."""
    cursor: str | None = ""
    while cursor is not None:
        body = {"cursor": cursor} if cursor else {}
        answer = client.post(RESEAL, json.dumps(body).encode()).document
        yield answer
        cursor = answer["nextCursor"]
