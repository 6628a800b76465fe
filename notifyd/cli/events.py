"""`notifyd send` and `notifyd ack`: what Task Runner and its like do, by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote
from uuid import uuid4

import click

from notifyd.cli.common import Failure, json_option, parse_json, print_json
from notifyd.cli.output import print_members
from notifyd.cli.remote import Remote, calling, client_option, remote_options
from notifyd.client import EVENTS, PACK_EVENTS, Signer


@click.command()
@remote_options
@client_option
@json_option
@click.option("--now", "as_of_now", is_flag=True, help="With a new id, and its times moved to begin now.")
@click.argument("event", type=click.File("rb"))
def send(remote: Remote, client_name: str | None, as_json: bool, as_of_now: bool, event: IO[bytes]) -> None:
    """Post EVENT to a running service: a file, or - for standard input.

    A CloudEvent, or an array of them, goes to /api/v1/events, anything else to /notifications/pack-approvals.
    Exits with 0 where it was accepted, now or before. With --now an example whose times are over can be sent, as
    often as you like: each time under a new id, occurredAt (of a CloudEvent: time) is now, and expiresAt is as
    much later as it was.
    """
    body = event.read()
    path, content_type = _destination(event.name, body)
    if as_of_now:
        body = json.dumps(_stamped(parse_json(body), datetime.now(UTC))).encode()
    with calling(as_json):
        answer = remote.sender(client_name).post(path, body, content_type)
        documents = answer.document.get("items", [answer.document])
        _ = [document["outcome"] for document in documents]  # who answers without has accepted nothing
    if as_json:
        print_json(answer.document)
        return
    click.echo("accepted" if answer.status == 202 else "accepted before: the same event was sent again")
    for document in documents:
        print_members(document)


def _stamped(document: Any, now: datetime) -> Any:
    """An event, or each of an array, as if it happened now. What is no time is left for the service to refuse."""
    if isinstance(document, list):
        return [_stamped(one, now) for one in document]
    if not isinstance(document, dict):
        return document
    id_, at = ("id", "time") if "specversion" in document else ("eventId", "occurredAt")
    moved = {id_: str(uuid4()), at: _written(now)}
    begun, ends = _time(document.get(at)), _time(document.get("expiresAt"))
    if begun and ends and at == "occurredAt":
        moved["expiresAt"] = _written(now + (ends - begun))
    return document | moved


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found and found.tzinfo else None


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _destination(name: str, body: bytes) -> tuple[str, str]:
    try:
        document = parse_json(body)
    except ValueError as error:
        raise Failure(f"{name} is not JSON: {error}") from None
    if document == []:
        raise Failure(f"{name} holds no event")
    if isinstance(document, list):
        return EVENTS, "application/cloudevents-batch+json"
    if isinstance(document, dict) and "specversion" in document:
        return EVENTS, "application/cloudevents+json"
    return PACK_EVENTS, "application/json"


@click.command()
@remote_options
@client_option
@json_option
@click.argument("run")
@click.argument("approval")
@click.option("--decision", type=click.Choice(["approved", "rejected"]), required=True)
@click.option("--plan-hash", required=True, help="The plan that was looked at: sha256:<64 hex>.")
@click.option(
    "--round", "round_", type=click.IntRange(min=1), help="Its round, where the approval has had several."
)
@click.option("--actor", help="Who decides; by default the client itself.")
@click.option("--on-behalf-of", metavar="PERSON", help="For whom the actor stands in.")
@click.option("--comment", help="Why, for those who read it later.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="Fill in what the request asks for: JSON, else text. May be given several times.",
)
@click.option("--break-glass", is_flag=True, help="Approve at once, whatever the quorum; needs a comment.")
def ack(
    remote: Remote, client_name: str | None, as_json: bool, run: str, approval: str, **ballot: Any
) -> None:
    """Decide the approval APPROVAL of the run RUN."""
    client = remote.sender(client_name)
    tenant = remote.tenant_of(client_name)
    if isinstance(client.credentials, Signer) and not tenant:
        raise click.UsageError("a signed decision names its tenant: say which with --tenant")
    document = _ballot(run, approval, tenant, **ballot)
    path = f"{PACK_EVENTS}/{quote(run, safe='')}/{quote(approval, safe='')}/ack"
    with calling(as_json):
        answer = client.post(path, json.dumps(document).encode())
    if as_json:
        print_json(answer.document)
    else:
        print_members(_shown(answer.document))


def _ballot(
    run: str,
    approval: str,
    tenant: str,
    *,
    decision: str,
    plan_hash: str,
    round_: int | None,
    actor: str | None,
    on_behalf_of: str | None,
    comment: str | None,
    inputs: tuple[str, ...],
    break_glass: bool,
) -> dict[str, Any]:
    """The body, with all that decides meaning in it, because a signature covers nothing else."""
    document: dict[str, Any] = {
        "runId": run,
        "approvalId": approval,
        "decision": decision,
        "planHash": plan_hash,
    }
    given = {
        "tenant": {"id": tenant} if tenant else None,
        "round": round_,
        "actor": actor,
        "onBehalfOf": on_behalf_of,
        "comment": comment,
        "inputs": dict(map(_input, inputs)) or None,
        "breakGlass": break_glass or None,
    }
    return document | {name: value for name, value in given.items() if value is not None}


def _input(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--input")
    try:
        return name, parse_json(value)
    except ValueError:
        return name, value


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without the resume token, which is for programs."""
    resume = {name: value for name, value in answer["resume"].items() if name != "token"}
    return answer | {"resume": resume}
