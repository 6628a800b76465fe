"""Attacks that once worked, each by its name, against a running notifyd."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from notifyd.plugin import Message, PermanentError, Receipt, TransientError
from tests import events
from tests.daemon import CALLBACK, CONFIG, Answer, Daemon, Inbox, daemon
from tests.sinks import HttpSink, Reply
from tests.waiting import until_async

PACK = "/notifications/pack-approvals"
ACK = f"{PACK}/run-0042/deploy-prod/ack"
OTHER_PLAN = "sha256:" + "0" * 64


def problem(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["code"]


def ack(asked: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Alice approves what was asked, in a body complete enough to be signed."""
    body = {"decision": "approved", "planHash": asked["planHash"], "actor": "alice@acme.example"}
    return (
        body
        | {"tenant": {"id": "acme"}, "runId": asked["runId"], "approvalId": asked["approvalId"]}
        | members
    )


# --- replay ------------------------------------------------------------------------------------------------


async def ask_again(notifyd: Daemon, plan: str) -> dict[str, Any]:
    """Open the next round, for `plan`."""
    notifyd.clock.turn(1)
    return await notifyd.ask(planHash=plan, requiredApprovals=2)


async def test_a_captured_signed_ack_counts_in_no_later_round_where_its_plan_comes_back(
    notifyd: Daemon,
) -> None:
    asked = await notifyd.ask(requiredApprovals=2)
    body = orjson.dumps(ack(asked))
    captured = {"Content-Type": "application/json"} | notifyd.signature(body)
    first = await notifyd.call("POST", ACK, data=body, headers=captured)
    await ask_again(notifyd, OTHER_PLAN)
    replaced = await notifyd.call("POST", ACK, data=body, headers=captured)
    await ask_again(notifyd, asked["planHash"])
    replayed = await notifyd.call("POST", ACK, data=body, headers=captured)
    assert (first.status, first.json["approvals"]["received"]) == (200, 1)
    assert (replaced.body, replayed.body) == (first.body, first.body)
    now = await notifyd.approval(asked)
    assert (now["status"], now["round"], now["approvals"]["received"]) == ("pending", 3, 0)


async def test_a_captured_signed_ack_that_never_arrived_counts_in_no_later_round(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredApprovals=2)
    body = orjson.dumps(ack(asked))
    captured = {"Content-Type": "application/json"} | notifyd.signature(body)
    for plan in (OTHER_PLAN, asked["planHash"]):
        await ask_again(notifyd, plan)
    answer = await notifyd.call("POST", ACK, data=body, headers=captured)
    assert problem(answer) == (422, "invalid_event")
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["/round"]
    assert (await notifyd.approval(asked))["approvals"]["received"] == 0


async def test_an_ack_for_another_round_of_the_same_plan_is_a_changed_plan(notifyd: Daemon) -> None:
    asked = await notifyd.ask(requiredApprovals=2)
    assert problem(await notifyd.signed(ACK, ack(asked, round=2))) == (409, "plan_changed")
    for plan in (OTHER_PLAN, asked["planHash"]):
        await ask_again(notifyd, plan)
    assert problem(await notifyd.signed(ACK, ack(asked, round=1))) == (409, "plan_changed")
    assert (await notifyd.signed(ACK, ack(asked, round=3))).json["approvals"]["received"] == 1


# --- another client's approval -----------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [[], ["outsider"]])
async def test_another_client_opens_no_round_and_ends_nothing_unless_it_is_let(
    notifyd: Daemon, shares: list[str]
) -> None:
    together = notifyd.text.replace('tenants = ["globex"]', 'tenants = ["acme", "globex"]')
    named = f'act_as = ["*@acme.example"]\nshares = {shares}'
    await notifyd.reload(together.replace('act_as = ["*@acme.example"]', named))
    asked = await notifyd.ask()
    notifyd.clock.turn(1)
    other = notifyd.requested(
        planHash=OTHER_PLAN, resume={"callbackUrl": f"{CALLBACK}/evil", "token": "stolen"}
    )
    replanned = await notifyd.signed(PACK, other, "outsider")
    assert (replanned.status, replanned.json["outcome"]) == (202, "new_round" if shares else "recorded")
    ended = await notifyd.signed(PACK, events.updated("approved", at=notifyd.clock()), "outsider")
    assert (ended.status, ended.json["outcome"]) == (202, "ended" if shares else "recorded")
    now = await notifyd.approval(asked)
    assert (now["status"], now["round"]) == (("approved", 2) if shares else ("pending", 1))


# --- names -------------------------------------------------------------------------------------------------

SPELLINGS = [
    "Alice <alice@acme.example>",
    '"alice"@acme.example',
    "alice@acme.example(ops)",
    "ALICE@ACME.EXAMPLE",
    "ａｌｉｃｅ@acme.example",
    "00u1ab",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_of_the_requesters_mailbox_approves_their_own_request(
    notifyd: Daemon, spelling: str
) -> None:
    asked = await notifyd.ask(requestedBy=spelling)
    assert problem(await notifyd.signed(ACK, ack(asked))) == (403, "self_approval")
    other = await notifyd.ask(runId="run-2", requestedBy="alice@acme.example")
    path = ACK.replace("run-0042", "run-2")
    assert problem(await notifyd.signed(path, ack(other, actor=spelling))) == (403, "self_approval")


async def test_a_name_in_to_with_a_display_name_cannot_approve_what_that_person_asked_for(
    notifyd: Daemon,
) -> None:
    await notifyd.reload(
        notifyd.text.replace('to = ["alice@acme.example"', 'to = ["Alice <alice@acme.example>"')
    )
    await notifyd.ask(requestedBy="alice@acme.example")
    page = await notifyd.get(await notifyd.link("Alice <alice@acme.example>"), None)
    assert page.status == 200
    assert "<form" not in page.text


async def test_one_person_votes_once_however_their_mailbox_is_spelled(notifyd: Daemon) -> None:
    await notifyd.reload(notifyd.text.replace('act_as = ["*@acme.example"]', 'act_as = ["*"]'))
    asked = await notifyd.ask(requiredApprovals=100)
    for spelling in ["alice@acme.example", *SPELLINGS]:
        await notifyd.signed(ACK, ack(asked, actor=spelling))
    idn = ["zoë@münchen.example", "Zoe\u0308@xn--mnchen-3ya.example", "zoë@MÜNCHEN.example"]
    for spelling in idn:
        await notifyd.signed(ACK, ack(asked, actor=spelling))
    assert (await notifyd.approval(asked))["approvals"]["received"] == 2


LOOKALIKES = {
    "zero-width space": "al\u200bice@acme.example",
    "soft hyphen": "al\u00adice@acme.example",
    "bidi mark": "alice\u200e@acme.example",
    "newline": "alice@acme.example\n",
    "Cyrillic letter": "\u0430lice@acme.example",
    "dotless i": "al\u0131ce@acme.example",
    "wholly Cyrillic": "\u0455\u0441\u043e\u0440\u0435@acme.example",
}


@pytest.mark.parametrize("name", LOOKALIKES.values(), ids=LOOKALIKES.keys())
async def test_a_name_that_looks_like_another_neither_votes_nor_asks(notifyd: Daemon, name: str) -> None:
    await notifyd.reload(notifyd.text.replace('act_as = ["*@acme.example"]', 'act_as = ["*"]'))
    asked = await notifyd.ask(requiredApprovals=2)
    voted = await notifyd.signed(ACK, ack(asked, actor=name))
    posted = await notifyd.signed(PACK, notifyd.requested(runId="run-2", requestedBy=name))
    for answer, pointer in ((voted, "/actor"), (posted, "/requestedBy")):
        assert problem(answer) == (422, "invalid_event")
        assert [fault["pointer"] for fault in answer.json["errors"]] == [pointer]
    assert (await notifyd.approval(asked))["approvals"]["received"] == 0


# --- receivers that answer with what they were sent --------------------------------------------------------


def percent(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def in_base64(text: str) -> str:
    return base64.b64encode(b"x" + text.encode()).decode()


def in_json(text: str) -> str:
    return "".join(f"\\u{ord(sign):04x}" for sign in text)


def in_entities(text: str) -> str:
    return "".join(f"&#x{ord(sign):x};" for sign in text)


def plain(text: str) -> str:
    return text


Encode = Callable[[str], str]
WAYS: Sequence[Encode] = (plain, percent, in_base64, in_json, in_entities)


class Echo(Inbox):
    """A receiver that answers with the link it was sent, in each way, and a channel that prints it."""

    async def send(self, message: Message) -> Receipt:
        self.messages.append(message)
        said = [encode(message.actions[0].url) for encode in WAYS]
        tries = len(self.messages) - 1
        if tries < 3:
            raise TransientError(f"no: {said[tries]}", excerpt=said[-1 - tries])
        if tries == 3:
            raise RuntimeError(said[1])
        raise PermanentError("no", excerpt=message.body + str(message))


def assert_nowhere(secrets: Iterable[str], folder: Path, *texts: str) -> None:
    """No piece of a secret stands in a text or in a file of the store, in any of the ways."""
    files = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    everything = files + "".join(texts).encode()
    for secret in secrets:
        for written in (encode(secret).encode() for encode in WAYS):
            assert written[4 : len(written) // 2] not in everything


async def test_a_receiver_that_answers_with_the_approvers_link_does_not_put_it_into_the_ledger(
    tmp_path: Path, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    text = CONFIG.replace(', "bob@acme.example"]', "]") + '[dispatch]\nbackoff = "1ms..2ms"\n'
    async with daemon(tmp_path, text, inbox=Echo()) as notifyd:
        asked = await notifyd.ask()
        link = await notifyd.link()
        (row,) = await ledger(notifyd, "dead")
        assert len(row["attempts"]) == 5
        shown = await notifyd.approval(asked)
        audit = await notifyd.get("/api/v1/audit")
    log = "".join(caplog.handler.format(record) for record in caplog.records)
    assert "RuntimeError" in log
    token = link.removeprefix("/approvals/")
    assert_nowhere([token], tmp_path, orjson.dumps([row, shown]).decode(), audit.text, log)


@pytest.mark.parametrize("encode", WAYS)
async def test_a_receiver_that_answers_with_the_resume_token_does_not_put_it_into_the_ledger(
    tmp_path: Path, encode: Encode
) -> None:
    async with HttpSink() as sink:
        sink.reply = Reply(400, lambda received: encode(orjson.loads(received.body)["data"]["resumeToken"]))
        async with daemon(tmp_path, CONFIG.replace(CALLBACK, sink.url)) as notifyd:
            token = "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"
            asked = await notifyd.ask(resume={"callbackUrl": f"{sink.url}/resume", "token": token})
            await notifyd.signed(ACK, ack(asked))
            (row,) = await ledger(notifyd, "dead")
            assert [made["excerpt"] for made in row["attempts"]] == ["***"]
            assert_nowhere([token], tmp_path, orjson.dumps(row).decode())


async def ledger(notifyd: Daemon, state: str) -> list[dict[str, Any]]:
    """The deliveries in a state, once there are any."""

    async def rows() -> Any:
        return (await notifyd.get(f"/api/v1/deliveries?state={state}")).json["items"]

    found: list[dict[str, Any]] = await until_async(rows)
    return found
