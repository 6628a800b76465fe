"""Waiting for an approval to change: by long polls, and by `notifyd wait`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from notifyd.flow import watch
from tests.command import Result
from tests.daemon import CONFIG, TOKENS, Answer, Daemon, bearer, daemon
from tests.forked import notifyd as run
from tests.integration.test_web_approvals import ACK, ONE, ack, problem
from tests.waiting import until, until_async

OPERATOR = {"NOTIFYD_TOKEN": TOKENS["operator"], "NOTIFYD_TENANT": "acme"}


@asynccontextmanager
async def waiting(notifyd: Daemon, tag: str = "", wait: str = "30s") -> AsyncIterator[asyncio.Task[Answer]]:
    """A long poll under way, once the node knows of it."""
    headers = {"If_None_Match": tag} if tag else {}
    before = len(notifyd.app._watches)
    task = asyncio.create_task(notifyd.get(f"{ONE}?wait={wait}", **headers))
    await until(lambda: len(notifyd.app._watches) > before)
    yield task
    await asyncio.wait([task], timeout=10)
    assert task.done()


async def test_a_wait_ends_with_the_decision_it_waited_for(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    async with waiting(notifyd) as waits:
        await notifyd.signed(ACK, ack(asked))
    answer = await waits
    assert (answer.status, answer.json["status"]) == (200, "approved")


async def test_every_vote_and_a_new_round_are_changes_and_a_repeated_request_is_none(
    notifyd: Daemon,
) -> None:
    asked = await notifyd.ask(requiredApprovals=2)
    async with waiting(notifyd) as waits:
        await notifyd.signed(ACK, ack(asked))
    voted = await waits
    assert voted.json["approvals"] == {"required": 2, "received": 1}
    notifyd.clock.turn(1)
    await notifyd.ask(requiredApprovals=2)  # the same plan again: nothing that a caller waits for
    async with waiting(notifyd, voted.headers["ETag"]) as waits:
        notifyd.clock.turn(1)
        await notifyd.ask(requiredApprovals=2, planHash="sha256:" + "b" * 64)
    assert (await waits).json["round"] == 2


async def test_what_changed_while_nobody_waited_is_not_missed(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    tag = (await notifyd.get(ONE)).headers["ETag"]
    assert (await notifyd.get(ONE, If_None_Match=tag)).status == 304
    await notifyd.signed(ACK, ack(asked))
    answer = await notifyd.get(f"{ONE}?wait=60s", If_None_Match=tag)
    assert (answer.status, answer.json["status"]) == (200, "approved")
    assert answer.headers["ETag"] != tag


async def test_the_end_of_the_callback_is_a_change(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    await notifyd.signed(ACK, ack(asked))
    queued = await notifyd.get(ONE)
    assert queued.json["resume"]["status"] == "queued"
    callback = f"/api/v1/deliveries/{queued.json['resume']['deliveryId']}"

    async def is_there() -> bool:
        return (await notifyd.get(callback)).status == 200

    await until_async(is_there)
    async with waiting(notifyd, queued.headers["ETag"]) as waits:
        notifyd.clock.turn(8 * 86400)  # past resume.max_age: nobody listens there

        def over() -> bool:
            notifyd.app._dispatcher.wake()  # again where an attempt was under way
            return waits.done()

        await until(over)
    assert (await waits).json["resume"]["status"] == "failed"


async def test_an_approval_that_has_ended_is_shown_at_once_to_whoever_knows_nothing(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    await notifyd.signed(ACK, ack(asked))
    async with asyncio.timeout(5):
        answer = await notifyd.get(f"{ONE}?wait=60s")
    assert answer.json["status"] == "approved"


async def test_a_wait_in_which_nothing_happens_ends_in_its_time(notifyd: Daemon) -> None:
    await notifyd.ask()
    answer = await notifyd.get(f"{ONE}?wait=50ms")
    assert (answer.status, answer.json["status"]) == (200, "pending")
    assert (await notifyd.get(f"{ONE}?wait=50ms", If_None_Match=answer.headers["ETag"])).status == 304
    assert (await notifyd.get(f"{ONE}?wait=50ms", If_None_Match="*")).status == 304


@pytest.mark.parametrize("wait", ["61s", "2m", "1", "-1s", "soon"])
async def test_a_wait_that_is_too_long_or_no_duration_is_refused(notifyd: Daemon, wait: str) -> None:
    await notifyd.ask()
    answer = await notifyd.get(f"{ONE}?wait={wait}")
    assert problem(answer) == (400, "invalid_query")
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["wait"]


async def test_waiting_for_what_is_not_there_is_not_found_at_once(notifyd: Daemon) -> None:
    assert problem(await notifyd.get(f"{ONE}?wait=60s")) == (404, "not_found")
    assert len(notifyd.app._watches) == 0


async def test_who_waits_does_not_ask_the_store(notifyd: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    await notifyd.ask()
    async with waiting(notifyd) as waits:
        read: list[Any] = []
        monkeypatch.setattr(vars(notifyd.app._store)["_store"], "approval", read.append)
        await asyncio.wait([waits], timeout=1.2)
        assert read == []
        monkeypatch.undo()
        notifyd.app._draining = True
        notifyd.app._watches.wake_all()
    notifyd.app._draining = False


async def test_a_client_has_so_many_waits_and_others_have_theirs(
    notifyd: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_WAITING", 1)
    asked = await notifyd.ask()
    async with waiting(notifyd) as waits:
        refused = await notifyd.get(f"{ONE}?wait=30s")
        assert problem(refused) == (429, "too_many_waiting")
        assert "Retry-After" in refused.headers
        other = await notifyd.get(f"{ONE}?wait=10ms", "operator", X_Notifyd_Tenant="acme")
        assert other.status == 200
        await notifyd.signed(ACK, ack(asked))
    assert (await waits).status == 200


async def test_a_caller_that_has_gone_leaves_its_place(notifyd: Daemon) -> None:
    await notifyd.ask()
    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(session.get(f"{notifyd.url}{ONE}?wait=60s", headers=bearer("reader")))
        await until(lambda: len(notifyd.app._watches))
        task.cancel()
        await asyncio.wait([task])
    await until(lambda: not len(notifyd.app._watches), 5)


async def test_a_stop_ends_every_wait_at_once_with_what_is_known(
    tmp_path: Path, templates_once: None
) -> None:
    async with daemon(tmp_path) as notifyd:
        await notifyd.ask()
        async with waiting(notifyd, wait="60s") as waits:
            began = asyncio.get_running_loop().time()
            await notifyd.app.drain()
        assert asyncio.get_running_loop().time() - began < 5
        assert (await waits).json["status"] == "pending"


# --- on the command line -----------------------------------------------------------------------------------


async def wait(notifyd: Daemon, *options: str, approval: str = "deploy-prod") -> Result:
    return await run("wait", "run-0042", approval, "--url", notifyd.url, *options, environ=OPERATOR)


async def test_the_command_goes_on_once_the_approval_is_approved(notifyd: Daemon) -> None:
    asked = await notifyd.ask()
    waits = asyncio.create_task(wait(notifyd))
    await until(lambda: len(notifyd.app._watches))
    await notifyd.signed(ACK, ack(asked, comment="checked"))
    result = await waits
    assert (result.code, result.stdout, result.stderr) == (0, "approved by alice@acme.example: checked\n", "")


@pytest.mark.parametrize(("ending", "said"), [("rejected", "rejected by"), ("expired", "expired by notifyd")])
async def test_another_end_is_exit_code_1_and_says_which(notifyd: Daemon, ending: str, said: str) -> None:
    asked = await notifyd.ask()
    if ending == "rejected":
        await notifyd.signed(ACK, ack(asked, decision="rejected", comment="not today"))
    else:
        notifyd.clock.turn(8 * 86400)
        await notifyd.app._expiry.sweep()
    result = await wait(notifyd)
    assert result.code == 1
    assert said in result.stderr
    shown = await wait(notifyd, "--json")
    assert (shown.code, json.loads(shown.stdout)["status"]) == (1, ending)


async def test_an_approval_that_is_still_pending_after_its_timeout_is_exit_code_1(notifyd: Daemon) -> None:
    await notifyd.ask(requiredApprovals=2)
    result = await wait(notifyd, "--timeout", "1s")
    assert result.code == 1
    assert "still pending: 0 of 2 approvals" in result.stderr


async def test_wrong_usage_is_exit_code_2_and_an_unknown_approval_1(notifyd: Daemon) -> None:
    assert (await wait(notifyd, "--timeout", "soon")).code == 2
    unknown = await wait(notifyd, approval="other")
    assert unknown.code == 1
    assert "not_found" in unknown.stderr


async def test_the_command_goes_on_after_a_restart(tmp_path: Path, templates_once: None) -> None:
    async with daemon(tmp_path) as first:
        asked = await first.ask()
        host, port = first.app.address
        waits = asyncio.create_task(wait(first))
        await until(lambda: len(first.app._watches))
    async with daemon(tmp_path, CONFIG.replace("127.0.0.1:0", f"{host}:{port}")) as second:
        await second.signed(ACK, ack(asked))
        assert (await waits).code == 0


async def test_the_command_waits_until_an_approval_can_not_be_taken_back_any_more(
    tmp_path: Path, templates_once: None
) -> None:
    async with daemon(tmp_path, CONFIG + '\n[approvals]\nundo = "10m"\n') as notifyd:
        asked = await notifyd.ask()
        await notifyd.signed(ACK, ack(asked))
        assert (await notifyd.get(ONE)).json["undoable"] is True
        early = await wait(notifyd, "--timeout", "1s")
        assert (early.code, "may still be taken back" in early.stderr) == (1, True)
        waits = asyncio.create_task(wait(notifyd))
        await until(lambda: len(notifyd.app._watches))
        notifyd.clock.turn(601)
        assert (await waits).code == 0
        assert "undoable" not in (await notifyd.get(ONE)).json
