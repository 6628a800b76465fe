"""`notifyd audit`: the audit trail of a running service, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, Final

import click

from notifyd.cli.common import Failure, json_option, limit_option, not_ok, parse_json, print_json
from notifyd.cli.output import on_terminal, print_members, short
from notifyd.cli.receipt import keys_at
from notifyd.cli.remote import Remote, calling, print_list, remote_options
from notifyd.client import AUDIT, AUDIT_SEALS, KEY_SET
from notifyd.text import clean

if TYPE_CHECKING:  # imported by the command that needs it, when it does
    from notifyd.security.jwt import KeySet
    from notifyd.wire.chain import ChainCheck

_TRUE: Final = {True: "true", False: None}
_UNTENANTED: Final = "what concerns no tenant, such as refused callers; needs the scope Notifier.Operate."


@click.group()
def audit() -> None:
    """Look at the audit trail."""


@audit.command("list")
@remote_options
@json_option
@click.option("--run", help="Of this run only.")
@click.option("--approval", help="Of approvals with this id only.")
@click.option("--untenanted", is_flag=True, help=_UNTENANTED.capitalize())
@limit_option
def list_audit(
    remote: Remote, as_json: bool, run: str | None, approval: str | None, untenanted: bool, limit: int
) -> None:
    """List the audit trail, newest first."""
    found = remote.operator().items(AUDIT, runId=run, approvalId=approval, untenanted=_TRUE[untenanted])
    columns = ("at", "name", "actor", "about", "facts")
    print_list(found, as_json, columns, _row, limit=limit, cut=columns[2:])


def _row(item: Any) -> tuple[Any, ...]:
    about = f"{item['runId']}/{item['approvalId']}" if item["runId"] else None
    return item["at"], item["name"], item["actor"], about, _facts(item["data"])


def _facts(data: Mapping[str, Any]) -> str:
    """For a program as JSON; for a person the values, with those that are ids last, since a line may be cut."""
    if not on_terminal():
        return json.dumps(data, ensure_ascii=False)
    told = sorted(data.items(), key=lambda fact: fact[0].lower().endswith("id"))
    return " ".join(f"{name}={short(_plain(value))}" for name, value in told)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- sealed ------------------------------------------------------------------------------------------------


@audit.command("export")
@remote_options
@click.option("--untenanted", is_flag=True, help="Write " + _UNTENANTED)
def export_audit(remote: Remote, untenanted: bool) -> None:
    """Write the sealed audit trail to standard output, as JSON Lines, oldest first.

    Each seal is followed by the records that it is over. 'notifyd audit verify FILE' checks such a file.
    """
    with calling(as_json=False):
        for item in _sealed(remote, untenanted):
            for line in _lines(item):
                click.echo(json.dumps(line, ensure_ascii=False))


def _sealed(remote: Remote, untenanted: bool) -> Iterator[Any]:
    return remote.operator().items(AUDIT_SEALS, untenanted=_TRUE[untenanted])


def _lines(item: Any) -> Iterator[Any]:
    """The lines of an export: the seal, where there is one, and its records."""
    if item["envelope"] is not None:
        yield {"seal": item["number"], "envelope": item["envelope"]}
    for record in item["records"]:
        yield {"seal": item["number"], **record}


@audit.command("verify")
@remote_options
@json_option
@click.option("--untenanted", is_flag=True, help="Check " + _UNTENANTED)
@click.option(
    "--keys",
    "place",
    metavar="JWKS",
    help="The public keys, a JSON Web Key Set: a file, or an https address. By default the service's own.",
)
@click.option(
    "--head",
    metavar="NUMBER:HASH",
    help="A seal that has to be in the chain: auditHead of a receipt, or what an earlier check has printed.",
)
@click.argument("file", type=click.File("rb"), required=False)
def verify_audit(
    remote: Remote,
    as_json: bool,
    untenanted: bool,
    place: str | None,
    head: str | None,
    file: IO[bytes] | None,
) -> None:
    """Check the audit trail by its seals: that of the service, or the export in FILE (- for standard input).

    Exits with 1 where a record or a seal was changed, removed or reordered, naming each.
    """
    with calling(as_json):
        if file is not None:
            check, faults = _checked(_read(file), keys_at(place) if place else None, head)
        else:
            keys = keys_at(place) if place else _published(remote)
            check, faults = _checked(_sealed(remote, untenanted), keys, head)
    told: dict[str, Any] = {"ok": not faults}
    told |= {"seals": check.seals, "records": check.records, "removedByAge": check.purged}
    told |= {"signedTo": check.signed or None, "head": str(check.head) if check.head else None}
    if as_json:
        print_json(told | {"faults": faults})
    else:
        print_members(told)
        for fault in faults:
            click.echo(clean(fault).replace("\n", " "))
    if faults:
        raise not_ok()


def _published(remote: Remote) -> KeySet | None:
    """The service's own keys, None where it has none."""
    from notifyd.security.jwt import KeySet

    document = remote.anybody().get(KEY_SET)
    return KeySet.parse(json.dumps(document)) if document["keys"] else None


def _read(file: IO[bytes]) -> Iterator[Any]:
    """The items that an export was written from: a record belongs to the seal that it stands behind."""
    item: Any = {"number": None, "envelope": None, "records": []}
    for number, text in enumerate(file, start=1):
        line = _line(text, f"{file.name}, line {number}")
        if "envelope" in line or (line["seal"] is None and item["envelope"] is not None):
            yield item
            item = {"number": line["seal"], "envelope": line.get("envelope"), "records": []}
        if "envelope" not in line:
            del line["seal"]
            item["records"].append(line)
    yield item


def _line(text: bytes, where: str) -> dict[str, Any]:
    try:
        line = parse_json(text)
    except ValueError:
        line = None
    if not isinstance(line, dict) or "seal" not in line:
        raise Failure(f"{where}: is no line of an export of the audit trail")
    return line


def _checked(items: Iterable[Any], keys: KeySet | None, head: str | None) -> tuple[ChainCheck, list[str]]:
    """The check, and what is wrong."""
    from notifyd.wire.chain import ChainCheck, Head

    try:
        check = ChainCheck(keys, Head.parse(head) if head else None)
    except ValueError:
        raise click.UsageError(f"--head is written NUMBER:HASH, and {head!r} is not") from None
    faults, strays = list[str](), list[Any]()
    for item in items:
        if item["envelope"] is None:
            strays += item["records"]
        else:
            faults += check.add(item["number"], str(item["envelope"]), item["records"])
    return check, [*faults, *check.end(strays)]
