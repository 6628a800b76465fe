"""`notifyd receipt verify`: check the receipt of an approval's end, with nothing but the public keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

import click

from notifyd.cli.common import Failure, json_option, needless_config_option, print_json
from notifyd.cli.output import print_members
from notifyd.client import Anybody, Client, RefusedError, UnreachableError, is_address
from notifyd.security.jwt import KeySet

_HERE: Final = ("127.0.0.1", "::1", "localhost")


@click.group()
def receipt() -> None:
    """Check receipts."""


@receipt.command("verify")
@needless_config_option
@json_option
@click.option(
    "--keys",
    "place",
    required=True,
    metavar="JWKS",
    help="The public keys, a JSON Web Key Set: a file, or an https address.",
)
@click.argument("file", type=click.File("rb"))
def verify(as_json: bool, place: str, file: IO[bytes]) -> None:
    """Check the receipt in FILE (- for standard input) and print what it proves.

    Exits with 1, saying what is wrong, where it proves nothing. Whether it is the receipt that you meant, the
    run, approval and plan that are printed tell.
    """
    from notifyd.approval.receipts import prove
    from notifyd.security.dsse import EnvelopeError

    try:
        proved = prove(file.read().strip(), keys_at(place))
    except EnvelopeError as error:
        raise Failure(f"{file.name}: {error}") from None
    if as_json:
        print_json(proved.statement)
    else:
        print_members(_told(proved.statement) | {"signed by": ", ".join(proved.keys)})


def _told(statement: Any) -> dict[str, Any]:
    """What a person asks first, before the rest."""
    said, (subject,) = statement["predicate"], statement["subject"]
    votes = [f"{one['actor']} {one['decision']} ({one['way']})" for one in said["decisions"]]
    return {
        "status": said["status"],
        "plan": f"sha256:{subject['digest']['sha256']}",
        **{name: said[name] for name in ("tenant", "runId", "approvalId", "round", "endedAt", "endedBy")},
        "decisions": ", ".join(votes) or None,
        "auditHead": _head(said.get("auditHead")),
    }


def _head(head: Any) -> str | None:
    """As `notifyd audit verify --head` takes it."""
    return head and f"{head['number']}:{head['digest']['sha256']}"


def keys_at(place: str) -> KeySet:
    """The key set in a file or at an address. Raises `Failure`."""
    try:
        return KeySet.parse(_fetched(place) if "://" in place else Path(place).read_bytes())
    except OSError as error:
        raise Failure(f"{place}: {error.strerror}") from None
    except (UnreachableError, RefusedError, ValueError) as error:
        raise Failure(f"{place}: {error}") from None


def _fetched(url: str) -> str:
    """Keys that came over a wire without TLS would prove nothing."""
    parts = urlsplit(url)
    if not is_address(url) or (parts.scheme == "http" and parts.hostname not in _HERE):
        raise click.UsageError(f"--keys is a file or an https address, and {url!r} is neither")
    return json.dumps(Client(f"{parts.scheme}://{parts.netloc}", Anybody()).get(parts.path or "/"))
