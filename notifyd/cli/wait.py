"""`notifyd wait`: a command line that goes on once an approval has ended."""

from __future__ import annotations

import time
from typing import Any, Final
from urllib.parse import quote

import click
from attrs import frozen

from notifyd.cli.common import Failure, json_option, not_ok, print_json
from notifyd.cli.remote import Remote, calling, remote_options
from notifyd.client import PACK_EVENTS, Answer, Client, RefusedError, UnreachableError
from notifyd.text import counted

_ASK: Final = 25
"""Seconds that one request waits: less than what a client or a proxy gives it."""

_OUTAGE: Final = 120.0
"""Seconds without an answer after which a service that has answered before is given up."""

_PAUSE: Final = 1.0
_PASSING: Final = frozenset({429, 502, 503, 504})
"""Refusals that pass: the service restarts, or has too many waiting."""


def _seconds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    from notifyd.config.units import SECOND, parse_duration

    try:
        return None if text is None else parse_duration(text) / SECOND
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@remote_options
@json_option
@click.option("--timeout", callback=_seconds, help="How long to wait, such as 30m; by default until it ends.")
@click.argument("run")
@click.argument("approval")
def wait(remote: Remote, as_json: bool, timeout: float | None, run: str, approval: str) -> None:
    """Wait until the approval APPROVAL of the run RUN has ended, and can not be taken back any more.

    Exits with 0 where it was approved, and with 1 where it was rejected, has expired, was cancelled, or is still
    pending after --timeout.
    """
    path = f"{PACK_EVENTS}/{quote(run, safe='')}/{quote(approval, safe='')}"
    with calling(as_json):
        shown = _Wait(remote.operator(), path, timeout).until_ended()
    if as_json:
        print_json(shown)
    if shown["status"] == "approved" and not shown.get("undoable"):
        if not as_json:
            click.echo(_told(shown))
        return
    raise not_ok() if as_json else Failure(_told(shown))


@frozen
class _Wait:
    """One wait, over as many requests as it takes. `seconds` None has no end but the approval's."""

    client: Client
    path: str
    seconds: float | None

    def until_ended(self) -> Any:
        """The approval as it was last shown. Raises `UnreachableError`, `RefusedError`."""
        began = time.monotonic()
        answer = self.client.changed(self.path, "", 0)
        shown = answer.document
        while shown["status"] == "pending" or shown.get("undoable"):
            left = _ASK if self.seconds is None else self.seconds - (time.monotonic() - began)
            if left <= 0:
                break
            answer = self._ask(answer.tag, min(_ASK, max(1, round(left))))
            shown = answer.document or shown
        return shown

    def _ask(self, tag: str, seconds: int) -> Answer:
        """One request. A service that is away for a while is asked again."""
        given_up = time.monotonic() + min(_OUTAGE, self.seconds or _OUTAGE)
        while True:
            try:
                return self.client.changed(self.path, tag, seconds)
            except (RefusedError, UnreachableError) as error:
                if not _passes(error) or time.monotonic() >= given_up:
                    raise
            time.sleep(_PAUSE)


def _passes(error: RefusedError | UnreachableError) -> bool:
    return isinstance(error, UnreachableError) or error.answer.status in _PASSING


def _told(shown: Any) -> str:
    """One line: the status, who ended it, and what they said."""
    if shown["status"] == "pending":
        votes = shown["approvals"]
        return f"still pending: {votes['received']} of {counted(votes['required'], 'approval')}"
    if shown.get("undoable"):
        return f"{shown['status']}, and may still be taken back"
    by = f" by {shown['endedBy']}" if shown["endedBy"] else ""
    said = shown["decisions"][-1]["comment"] if shown["decisions"] else ""
    return f"{shown['status']}{by}" + (f": {said}" if said else "")
