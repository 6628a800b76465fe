"""Rows under an old key of `keys.seal` are found and moved to the first, whoever else is at work on them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from attrs import evolve

from notifyd.errors import TransientError
from notifyd.flow import reseal
from notifyd.model import Delivery, Message
from notifyd.security.links import Link, Links
from notifyd.security.secrets import Keyring, key_id, sealed_under
from notifyd.store import DeliveryFilter, Page
from notifyd.web import keys
from tests.daemon import CONFIG, TOKENS, Answer, Daemon, daemon, until
from tests.forked import notifyd as run
from tests.sinks import HttpSink, Reply

OLD, NEW = base64.b64decode("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="), b"n" * 32
ASK = "/notifications/pack-approvals"
RESEAL = "/api/v1/keys/reseal"
pytestmark = pytest.mark.usefixtures("templates_once")

NOTHING = {"approvals": 0, "deliveries": 0}


def sealing_with(*ring: bytes, text: str = CONFIG) -> str:
    texts = orjson.dumps([base64.b64encode(key).decode() for key in ring]).decode()
    return text.replace(f'seal = ["{base64.b64encode(OLD).decode()}"]', f"seal = {texts}")


async def decided(notifyd: Daemon, **overrides: Any) -> dict[str, Any]:
    """A request that alice has approved through the runner."""
    document = await notifyd.ask(**overrides)
    ballot = {name: document[name] for name in ("runId", "approvalId", "planHash", "tenant")}
    ballot |= {"decision": "approved", "actor": "alice@acme.example"}
    answer = await notifyd.signed("{}/{runId}/{approvalId}/ack".format(ASK, **document), ballot)
    assert answer.status == 200, answer.text
    return document


async def rows(notifyd: Daemon, channel: str, count: int) -> list[Delivery]:
    """The deliveries of a channel, once there are `count`."""
    where = DeliveryFilter(channel=channel)
    async with asyncio.timeout(10):
        while True:
            found, _ = await notifyd.app._store.deliveries("acme", where, Page(1000))
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def moved(notifyd: Daemon, cursor: str | None = None) -> Answer:
    answer = await notifyd.post(RESEAL, {"cursor": cursor}, "operator")
    assert answer.status == 200, answer.text
    return answer


async def uses(notifyd: Daemon) -> Mapping[str, Any]:
    answer = await notifyd.get("/api/v1/keys", "operator")
    assert answer.status == 200, answer.text
    return {one["id"]: one for one in answer.json["keys"]}


async def test_what_was_moved_needs_the_old_key_no_more_and_every_callback_goes_out(tmp_path: Path) -> None:
    async with HttpSink() as sink:
        text = CONFIG.replace("http://127.0.0.1:9", sink.url)
        sink.reply = Reply(503)
        resume = {"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
        async with daemon(tmp_path, text) as notifyd:
            for number in range(6):
                await decided(notifyd, runId=f"run-{number}", resume=resume)
            await notifyd.ask(runId="undecided", resume=resume)
            await rows(notifyd, "resume", 6)
        async with daemon(tmp_path, sealing_with(NEW, OLD, text=text)) as notifyd:
            use = (await uses(notifyd))[key_id(OLD)]
            assert use["use"] == "opens"
            assert use["needed"]["deliveries"] >= 6
            assert use["needed"]["approvals"] >= 1
            answer = (await moved(notifyd)).json
            assert answer["key"] == key_id(NEW)
            assert answer["moved"]["approvals"] == 7
            assert answer["unreadable"] == NOTHING
            assert answer["nextCursor"] is None
            again = (await moved(notifyd)).json
            assert again["moved"] == NOTHING
            use = (await uses(notifyd))[key_id(OLD)]
            assert (use["needed"], use["ended"]) == (NOTHING, NOTHING)
        sink.received.clear()
        sink.reply = Reply()
        async with daemon(tmp_path, sealing_with(NEW, text=text)) as notifyd:
            assert list(await uses(notifyd)) == [key_id(NEW)]
            notifyd.clock.turn(3600)
            await sink.wait(6)
            told = [one["data"] for one in sink.documents]
            assert {one["runId"] for one in told} == {f"run-{number}" for number in range(6)}
            assert {one["resumeToken"] for one in told} == {resume["token"]}
            late = await decided(notifyd, runId="late", resume=resume)
            await sink.wait(1, lambda one: orjson.loads(one.body)["data"]["runId"] == late["runId"])


async def test_an_event_that_came_under_a_dropped_key_is_a_duplicate_and_another_content_a_conflict(
    tmp_path: Path,
) -> None:
    async with daemon(tmp_path) as notifyd:
        document = await notifyd.ask()
    third = b"3" * 32
    for ring in ((NEW, OLD), (third, NEW, OLD), (third,), (b"4" * 32, third), (b"4" * 32,)):
        async with daemon(tmp_path, sealing_with(*ring)) as notifyd:
            await moved(notifyd)
            again = await notifyd.signed(ASK, document)
            assert (again.status, again.json["outcome"]) == (200, "opened")
            other = await notifyd.signed(ASK, document | {"planHash": "sha256:" + "0" * 64})
            assert (other.status, other.json["code"]) == (409, "event_id_conflict")


async def test_a_reload_that_rotates_knows_events_again_too(tmp_path: Path) -> None:
    async with daemon(tmp_path) as notifyd:
        document = await notifyd.ask()
        await notifyd.reload(sealing_with(NEW, OLD))
        await moved(notifyd)
        for text in (sealing_with(NEW), sealing_with(NEW) + '[dispatch]\nmax_age = "1h"\n'):
            await notifyd.reload(text)
            changed = document | {"planHash": "sha256:" + "0" * 64}
            assert (await notifyd.signed(ASK, document)).status == 200
            assert (await notifyd.signed(ASK, changed)).status == 409


async def test_a_link_that_was_sent_dies_with_its_key_and_one_still_to_be_sent_does_not(
    tmp_path: Path,
) -> None:
    async with daemon(tmp_path) as notifyd:
        await notifyd.ask(runId="told")
        old = await notifyd.link()
        notifyd.inbox.fault = TransientError("not now")
        document = await notifyd.ask(runId="untold")
        await rows(notifyd, "inbox", 4)
    async with daemon(tmp_path, sealing_with(NEW, OLD), inbox=notifyd.inbox) as notifyd:
        assert (await moved(notifyd)).json["moved"]["deliveries"] == 4
        assert "Approve" in (await notifyd.call("GET", old)).text
    del notifyd.inbox.messages[:]
    notifyd.inbox.fault = None
    async with daemon(tmp_path, sealing_with(NEW), inbox=notifyd.inbox) as notifyd:
        assert "no longer valid" in (await notifyd.call("GET", old)).text
        notifyd.clock.turn(3600)
        link = await notifyd.link()
        page = await notifyd.call("GET", link)
        assert page.status == 200
        assert document["runId"] in page.text
        (message,) = [one for one in notifyd.inbox.messages if one.recipient == "alice@acme.example"]
        assert message.html is not None
        assert link in message.html
        mine = message.actions[-1].url.removeprefix("https://notifyd.acme.example")
        assert document["runId"] in (await notifyd.call("GET", mine)).text


async def test_only_the_link_that_a_recipient_was_given_is_renewed(tmp_path: Path) -> None:
    async with daemon(tmp_path) as notifyd:
        document = await notifyd.ask()
        forged = Links(Keyring([OLD]), "https://notifyd.acme.example")
        link = Link(
            "acme", document["runId"], document["approvalId"], 1, "", "bob@acme.example", "approvals", 1
        )
        other_tenant = evolve(link, tenant="globex", recipient="alice@acme.example")

        def told(notifyd: Daemon) -> list[Message]:
            sent = notifyd.inbox.messages
            return [m for m in sent if m.recipient == "alice@acme.example" and m.event["runId"] == "two"]

        texts = [forged.url(forged.seal(one)) for one in (link, other_tenant)]
        notifyd.inbox.fault = TransientError("not now")
        message = {"template": "pack-approval", "summary": " ".join(texts)}
        await notifyd.ask(runId="two", message=message)
        await rows(notifyd, "inbox", 4)
    async with daemon(tmp_path, sealing_with(NEW, OLD), inbox=notifyd.inbox) as notifyd:
        await moved(notifyd)
        notifyd.inbox.fault = None
        notifyd.clock.turn(3600)
        await until(lambda: told(notifyd))
        for text in texts:
            assert text in told(notifyd)[0].body
        assert sealed_under(told(notifyd)[0].actions[0].url.rpartition("/")[2]) == key_id(NEW)


async def test_two_at_once_and_a_decision_meanwhile_undo_nothing(tmp_path: Path) -> None:
    async with daemon(tmp_path) as notifyd:
        documents = [await notifyd.ask(runId=f"run-{number}") for number in range(8)]
    async with daemon(tmp_path, sealing_with(NEW, OLD)) as notifyd:
        ballots = [
            {name: document[name] for name in ("runId", "approvalId", "planHash", "tenant")}
            | {"decision": "rejected", "comment": "no", "actor": "alice@acme.example"}
            for document in documents
        ]
        first, second, *answers = await asyncio.gather(
            moved(notifyd),
            moved(notifyd),
            *(notifyd.signed("{}/{runId}/{approvalId}/ack".format(ASK, **one), one) for one in ballots),
        )
        assert [one.status for one in answers] == [200] * 8
        assert first.json["moved"]["approvals"] + second.json["moved"]["approvals"] >= 8
        assert first.json["unreadable"] == second.json["unreadable"] == NOTHING
        assert all([(await notifyd.approval(one))["status"] == "rejected" for one in documents])
        await moved(notifyd)
        assert (await uses(notifyd))[key_id(OLD)]["needed"] == NOTHING


async def test_a_long_reseal_is_many_short_requests_and_goes_on_where_it_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(tmp_path) as notifyd:
        for number in range(3):
            await notifyd.ask(runId=f"run-{number}")
        await rows(notifyd, "inbox", 6)
    monkeypatch.setattr(keys, "WORK", 0.0)
    monkeypatch.setattr(reseal, "_LOOK", 2)
    async with daemon(tmp_path, sealing_with(NEW, OLD)) as notifyd:
        one = (await moved(notifyd)).json
        assert one["moved"] == {"approvals": 2, "deliveries": 0}
    async with daemon(tmp_path, sealing_with(NEW, OLD)) as notifyd:
        cursor, total = None, dict(NOTHING)
        while True:
            answer = (await moved(notifyd, cursor)).json
            assert sum(answer["moved"].values()) <= 2
            total = {name: total[name] + answer["moved"][name] for name in total}
            if (cursor := answer["nextCursor"]) is None:
                break
        assert total == {"approvals": 1, "deliveries": 6}
        stale = (await moved(notifyd)).json["nextCursor"]
        await notifyd.reload(sealing_with(OLD, NEW))
        refused = await notifyd.post(RESEAL, {"cursor": stale}, "operator")
        assert (refused.status, refused.json["code"]) == (400, "invalid_cursor")


async def test_rows_that_no_key_opens_are_counted_and_left_as_they_are(tmp_path: Path) -> None:
    async with daemon(tmp_path) as notifyd:
        await notifyd.ask(runId="lost")
        await rows(notifyd, "inbox", 2)
    async with daemon(tmp_path, sealing_with(NEW), abandon_sealed=True) as notifyd:
        await notifyd.ask(runId="fine")
        await rows(notifyd, "inbox", 4)
        answer = (await moved(notifyd)).json
        assert (answer["moved"], answer["unreadable"]) == (NOTHING, {"approvals": 1, "deliveries": 2})
        assert (await uses(notifyd))[key_id(OLD)]["use"] == "missing"


@pytest.mark.parametrize(
    ("client", "status", "code"),
    [(None, 401, "unauthenticated"), ("reader", 403, "scope_missing"), ("task-runner", 403, "scope_missing")],
)
async def test_only_an_operator_may_look_at_keys_and_reseal(
    notifyd: Daemon, client: str | None, status: int, code: str
) -> None:
    for answer in (await notifyd.get("/api/v1/keys", client), await notifyd.post(RESEAL, {}, client)):
        assert (answer.status, answer.json["code"]) == (status, code)


async def test_the_commands_show_and_move_as_the_service_does(tmp_path: Path) -> None:
    async with daemon(tmp_path) as notifyd:
        await notifyd.ask()
        await rows(notifyd, "inbox", 2)
        await until(lambda: len(notifyd.inbox.messages) == 2)
    environ = {"NOTIFYD_TOKEN": TOKENS["operator"]}
    async with daemon(tmp_path, sealing_with(NEW, OLD)) as notifyd:
        where = ("--url", notifyd.url)
        shown = await run("keys", "status", *where, environ=environ)
        assert shown.code == 0, shown.stderr
        lines = [line.split("\t") for line in shown.stdout.splitlines()]
        assert lines[0][:3] == ["key", "use", "approvals in need"]
        assert lines[1:] == [
            [key_id(NEW), "seals", "0", "0", "0", "0"],
            [key_id(OLD), "opens", "1", "0", "0", "2"],
        ]
        done = await run("keys", "reseal", "--json", *where, environ=environ)
        assert (done.code, done.json) == (
            0,
            {"key": key_id(NEW), "moved": {"approvals": 1, "deliveries": 2}, "unreadable": NOTHING},
        )
        again = await run("keys", "reseal", *where, environ=environ)
        assert again.stdout.splitlines() == [
            f"collection\tmoved to {key_id(NEW)}",
            "approvals\t0",
            "deliveries\t0",
        ]


async def test_the_command_fails_where_rows_do_not_open(tmp_path: Path) -> None:
    async with daemon(tmp_path) as notifyd:
        await notifyd.ask()
        await rows(notifyd, "inbox", 2)
    environ = {"NOTIFYD_TOKEN": TOKENS["operator"]}
    async with daemon(tmp_path, sealing_with(NEW), abandon_sealed=True) as notifyd:
        for options in ((), ("--json",)):
            done = await run("keys", "reseal", *options, "--url", notifyd.url, environ=environ)
            assert done.code == 1
        assert done.json["unreadable"] == {"approvals": 1, "deliveries": 2}
