"""The demo's acts, in order. Each does one step, checks that it did what it should, and says so in a few lines."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, Final, TypeAlias

import orjson
from attrs import define, field, frozen
from yarl import URL

from notifyd import __version__
from notifyd.client import PACK_EVENTS
from notifyd.demo.page import Page
from notifyd.demo.stage import Stage
from notifyd.security.secrets import Secret
from notifyd.security.signing import sign

APPROVER: Final = "alice@acme.example"
TITLE: Final = "Deploy payments v3 to production"
COMMENT: Final = "Checked the migration plan with the ledger team."


class MismatchError(Exception):
    """An act did not do what it should."""


def expect(condition: object, otherwise: str) -> None:
    """Raises `MismatchError` with what is wrong, unless `condition` holds."""
    if not condition:
        raise MismatchError(otherwise)


@define
class Play:
    """What the acts know of one another."""

    stage: Stage
    event: dict[str, Any] = field(factory=dict)
    link: str = ""

    @property
    def approval_path(self) -> str:
        return f"{PACK_EVENTS}/{self.event['runId']}/{self.event['approvalId']}"


Lines: TypeAlias = Sequence[str]


@frozen
class Act:
    """`name` says what it does, for when it fails; `run` gives a headline and details for when it does not."""

    name: str
    run: Callable[[Play], Awaitable[Lines]]


# --- the event ----------------------------------------------------------------------------------------------


DEPLOYMENT: Final[Mapping[str, Any]] = {
    "packId": "pkg:oci/acme/payments@v3",
    "planHash": "sha256:3fa9c4e1" + "7b" * 28,
    "steps": [
        {"id": "migrate", "name": "Migrate the ledger schema"},
        {"id": "deploy", "name": "Deploy to production"},
    ],
    "message": {
        "template": "pack-approval",
        "title": TITLE,
        "summary": "Version 3 adds instant transfers. The ledger schema changes with it; "
        "going back takes about ten minutes.",
    },
    "parameters": {"replicas": 3, "region": "eu-central-1"},
}
SCALING: Final[Mapping[str, Any]] = {
    "packId": "pkg:oci/acme/ledger@v7",
    "planHash": "sha256:9d01b7aa" + "4c" * 28,
    "steps": [{"id": "scale", "name": "Scale the ledger from three replicas to six"}],
    "message": {
        "template": "pack-approval",
        "title": "Scale the ledger to six replicas",
        "summary": "Settlement at the end of the month needs twice the throughput. Nothing restarts.",
    },
    "parameters": {"replicas": 6, "region": "eu-central-1"},
}


def requested(stage: Stage, run: str, plan: Mapping[str, Any], token: Secret) -> dict[str, Any]:
    """Task Runner's request for approval, asked now, of what is to be done by `plan`."""
    now = datetime.now(UTC)
    return {
        "type": "PackApprovalRequested",
        "eventId": str(uuid.uuid4()),
        "occurredAt": now.isoformat(),
        "tenant": {"id": "acme", "project": "payments"},
        "runId": run,
        "approvalId": "deploy-prod",
        "requiredGrants": ["Packs.Approve"],
        "requestedBy": "ci@acme.example",
        "expiresAt": (now + timedelta(days=1)).isoformat(),
        "labels": {"environment": "production", "team": "payments"},
        "resume": {"callbackUrl": f"{stage.runner.url}/resume/{run}", "token": token.reveal()},
        **plan,
    }


async def post(stage: Stage, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Send `event`, signed by Task Runner; status and answer."""
    body = orjson.dumps(event)
    headers = sign([stage.props.runner], event["eventId"], int(time.time()), body)
    headers |= {"X-Notifyd-Client": "task-runner", "Content-Type": "application/json"}
    async with stage.session.post(stage.url + PACK_EVENTS, data=body, headers=headers) as answer:
        return answer.status, orjson.loads(await answer.read())


# --- the acts -----------------------------------------------------------------------------------------------


async def start_daemon(play: Play) -> Lines:
    begun = time.monotonic()
    await play.stage.start()
    took = time.monotonic() - begun
    return (
        f"notifyd {__version__} is ready at {play.stage.url}, after {took:.1f} s",
        f"configuration  {play.stage.config}",
        f"log            {play.stage.log}",
    )


async def post_event(play: Play) -> Lines:
    play.event = requested(play.stage, "run-0042", DEPLOYMENT, play.stage.props.resume)
    begun = time.monotonic()
    status, answer = await post(play.stage, play.event)
    took = (time.monotonic() - begun) * 1000
    expect(status == 202, f"it was answered with {status}: {answer}")
    return (
        f"Task Runner asks for approval, with a signed event: 202 in {took:.0f} ms",
        f"{TITLE}  ({play.event['runId']}/{play.event['approvalId']}, requested by ci@acme.example)",
    )


async def post_again(play: Play) -> Lines:
    status, answer = await post(play.stage, play.event)
    expect(status == 200, f"a duplicate was answered with {status}: {answer}")
    return ("It sends the same event again, as if the answer had been lost: 200, known already",)


async def receive_webhook(play: Play) -> Lines:
    document = await play.stage.hook.document(0)
    kind = document["type"]
    expect(kind == "pack.approval.requested", f"its type is {kind}")
    told = orjson.dumps(document).decode()
    expect(play.stage.props.resume.reveal() not in told, "it holds the resume token")
    return (f"The webhook got {kind}; its signature is valid, and the resume token is not in it",)


async def receive_mail(play: Play) -> Lines:
    mail = await play.stage.mailbox.mail(0)
    html, plain = content(mail, "html"), content(mail, "plain")
    expect(html and plain, "it lacks its HTML or its plain text")
    expect(APPROVER in str(mail["To"]), f"it is to {mail['To']}")
    saved = play.stage.out / "mail.html"
    saved.write_text(html, encoding="utf-8")
    play.link = link_in(html)
    return (
        f"{APPROVER} got a mail: {mail['Subject']}",
        f"open it in a browser: {saved.resolve().as_uri()}",
    )


def content(mail: EmailMessage, subtype: str) -> str:
    """A mail's text in one form, "" where it has none."""
    part = mail.get_body((subtype,))
    return part.get_content() if part else ""


def link_in(html: str) -> str:
    """The one link to decide by: that of the button."""
    found = {link for link in Page(html).links if "/approvals/" in link}
    links = {link for link in found if "/approvals/mine/" not in link}
    expect(len(links) == 1, f"it has {len(links)} links to decide by")
    return links.pop()


async def open_page(play: Play) -> Lines:
    for _ in range(2):  # a mail scanner opens it too
        async with play.stage.session.get(play.link) as answer:
            html = await answer.text()
            expect(answer.status == 200, f"the page answered {answer.status}")
    expect(TITLE in html, "the page does not show what it is about")
    expect("csrf" in Page(html).fields, "the page has no form")
    pending = await play.stage.look(play.approval_path)
    expect(pending["status"] == "pending", f"looking at it made it {pending['status']}")
    return ("Alice opens her link and reads the plan; looking decides nothing", shortened(play.link))


async def approve(play: Play) -> Lines:
    await decide(play.stage, play.link, "approved", COMMENT)
    approval = await play.stage.look(play.approval_path)
    expect(approval["status"] == "approved", f"the approval is {approval['status']}")
    (decision,) = approval["decisions"]
    expect(decision["actor"] == APPROVER, f"it is by {decision['actor']}")
    return ("Alice approves on the page, as herself, through its form", f'"{COMMENT}"')


async def decide(stage: Stage, link: str, decision: str, comment: str) -> None:
    """Do as a browser does: load the page, fill in the form, press a button, and press the one that confirms."""
    async with stage.session.get(link) as answer:
        page = Page(await answer.text())
    expect(decision in page.buttons, f"the page has no button for {decision}")
    form = page.fields | {"decision": decision, "comment": comment}
    async with stage.session.post(link, data=form, allow_redirects=False) as answer:
        expect(answer.status == 200, f"the form was answered with {answer.status}")
        asked = Page(await answer.text())
    expect(decision in asked.buttons, "nobody asks whether that is meant")
    form = asked.fields | {"decision": decision, "comment": comment}
    async with stage.session.post(link, data=form, allow_redirects=False) as answer:
        expect(answer.status == 303, f"the confirmation was answered with {answer.status}")


async def receive_callback(play: Play) -> Lines:
    data = (await play.stage.runner.document(0))["data"]
    expect(data["decision"] == "approved", f"it says {data['decision']}")
    expect(data["planHash"] == play.event["planHash"], "it is about another plan")
    expect(data["resumeToken"] == play.stage.props.resume.reveal(), "its resume token is another one")
    return (
        "Task Runner gets the decision on its callback; the signature is valid, and its resume token is back",
        f"{data['decision']} by {', '.join(data['actors'])}: the run goes on",
    )


async def read_audit(play: Play) -> Lines:
    last = await play.stage.hook.document(2)  # after the request's and the decision's
    expect(last["type"] == "pack.approval.resumed", f"the last notification was {last['type']}")
    deliveries = await settled(play.stage)
    states = sorted({item["state"] for item in deliveries})
    expect(states == ["sent"], f"the ledger has deliveries that are {', '.join(states)}")
    audit = await play.stage.look("/api/v1/audit", runId=play.event["runId"])
    names = [item["name"] for item in reversed(audit["items"])]
    for name in ("pack.approval.requested", "pack.approval.acknowledged", "resume.delivered"):
        expect(names.count(name) == 1, f"the audit has {names.count(name)} of {name}")
    return (
        f"All {len(deliveries)} deliveries are in the ledger as sent, and the audit trail tells the story",
        ", ".join(names),
    )


async def settled(stage: Stage) -> list[Any]:
    """The ledger, once no delivery is under way: a receiver knows of one before its sender has noted it."""
    while True:
        items: list[Any] = (await stage.look("/api/v1/deliveries"))["items"]
        if all(item["state"] not in ("pending", "sending") for item in items):
            return items
        await asyncio.sleep(0.02)


async def stop_daemon(play: Play) -> Lines:
    begun = time.monotonic()
    code = await play.stage.stop()
    took = time.monotonic() - begun
    expect(code == 0, f"it ended with exit code {code}")
    ids = [one.headers["webhook-id"] for one in play.stage.runner.received]
    expect(len(ids) == len(set(ids)), "a callback came more than once")
    return (f"The daemon ends after {took:.1f} s, with exit code 0; each callback came once",)


async def search_secrets(play: Play) -> Lines:
    files = [*play.stage.backstage.iterdir(), *play.stage.out.iterdir()]
    for file in files:
        content = file.read_bytes()
        for value in play.stage.props.values():
            expect(value.encode() not in content, f"a secret is in {file.name} in clear")
    return ("No secret is in the database, the log or the mail: tokens and links are sealed",)


async def ask_again(play: Play) -> Lines:
    event = requested(play.stage, "run-0043", SCALING, play.stage.props.resume)
    status, answer = await post(play.stage, event)
    expect(status == 202, f"it was answered with {status}: {answer}")
    mail = await play.stage.mailbox.mail(1)
    return (
        "A second approval waits for you: decide it on its page. Ctrl-C ends the demo",
        link_in(content(mail, "html")),
    )


ACTS: Final = (
    Act("start the daemon", start_daemon),
    Act("post the event", post_event),
    Act("post it again", post_again),
    Act("receive the webhook", receive_webhook),
    Act("receive the mail", receive_mail),
    Act("open the approver's page", open_page),
    Act("approve on the page", approve),
    Act("receive the signed callback", receive_callback),
    Act("read the audit trail", read_audit),
)
LAST_ACTS: Final = (
    Act("stop the daemon", stop_daemon),
    Act("look for secrets", search_secrets),
)
"""For when nobody wants to go on by hand."""


def shortened(link: str) -> str:
    """A link for a line of text. The whole of it is in the mail."""
    url = URL(link)
    return f"{url.origin()}/approvals/{url.name[:16]}…"
