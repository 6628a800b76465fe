"""kill -9 between any two steps of the way, then a restart: the way is finished, and nothing is seen twice
by a receiver under another id.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from attrs import define, field

from notifyd.model import SECOND, wall_clock
from notifyd.security.secrets import Secret
from notifyd.security.signing import secret_bytes, sign, verify
from notifyd.testing import Sink
from notifyd.wire.codec import rfc3339
from tests import events
from tests.chaos import crashing
from tests.chaos.nodes import PATIENT
from tests.forks import Forked
from tests.mongodb import MongoServer
from tests.ports import free_port
from tests.waiting import until, until_async

pytestmark = pytest.mark.long

POINTS = [
    ("append", 1),  # the event, with its approval
    ("fix_plans", 1),  # its plan, with its delivery
    ("record", 1),  # the notification was sent
    ("replace_approval", 1),  # the decision
    ("write_audit", 1),  # its first effect
    ("complete_effect", 1),
    ("append", 2),  # its second: the notice
    ("complete_effect", 2),
    ("insert_deliveries", 1),  # its third: the callback
    ("complete_effect", 3),
    ("fix_plans", 2),  # the notice's plan
    ("record", 2),  # the callback, or the notice
    ("record", 3),  # the other
    ("fix_plans", 3),  # the plan of what the callback's end raised
    ("record", 4),  # the last notification
]
SIDES = ("before", "after")

SECRET = Secret("whsec_" + base64.b64encode(b"the secret of the task runner 01").decode())
TOKEN = "reader-token-0123456789"
RESUME_TOKEN = "resume-token-known-to-the-runner-only"

EMBEDDED = 'url = "sqlite:///{folder}/notifyd.db"'
"""The store, as a line of `CONFIG`."""
CONFIG = """
[server]
listen = "127.0.0.1:{port}"
[store]
url = "sqlite:///{folder}/notifyd.db"
[keys]
seal = ["{seal}"]
[auth.clients.task-runner]
hmac_secrets = ["{secret}"]
scopes = ["Packs.Approve", "Notifier.Events:Write"]
act_as = ["*@acme.example"]
tenants = ["acme"]
[auth.clients.reader]
token_hashes = ["sha256:{token_hash}"]
scopes = ["Notifier.Read"]
tenants = ["acme"]
[egress]
allow_private = ["127.0.0.0/8"]
[resume]
allowed_origins = ["{sink}"]
[dispatch]
backoff = "50ms..500ms"
[channels.hook]
type = "webhook"
url = "{sink}/hook"
secret = "{secret}"
[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval"'
channels = ["hook"]
"""


@define
class Runner:
    """Task Runner, and whoever starts a daemon again that has died."""

    folder: Path
    sink: Sink
    port: int
    starts: int = 0
    process: Forked | None = None
    event: dict[str, Any] = field(factory=dict)

    @property
    def trace(self) -> list[str]:
        path = self.folder / "trace"
        return path.read_text().splitlines() if path.exists() else []

    async def supervise(self, *crash_at: str) -> None:
        """Start the daemon, the first time with a crash in it, and again when it ends."""
        while True:
            where = crash_at if self.starts == 0 else ()
            self.starts += 1
            self.process = await crashing.start(self.folder, *where)
            await self.process.wait()

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call until the daemon answers with success, however often it is not there."""
        url = f"http://127.0.0.1:{self.port}{path}"
        raw = orjson.dumps(body) if body is not None else b""
        async with aiohttp.ClientSession() as session:
            while True:
                headers = {"Authorization": f"Bearer {TOKEN}"} if body is None else self._signed(raw)
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with session.request(method, url, data=raw, headers=headers) as response:
                        if response.status < 300:
                            return orjson.loads(await response.read())  # type: ignore[no-any-return]
                        assert response.status >= 500, await response.text()
                await asyncio.sleep(0.02)

    def _signed(self, raw: bytes) -> dict[str, str]:
        headers = sign([SECRET], "call", int(time.time()), raw)
        return headers | {"X-Notifyd-Client": "task-runner", "Content-Type": "application/json"}

    async def until_sent(self, kind: str) -> None:
        await until(lambda: kind in self.seen(), seconds=45)

    def seen(self) -> dict[str, set[str]]:
        """What the receiver was sent: type to ids."""
        seen: dict[str, set[str]] = {}
        for one in self.sink.received:
            verify([secret_bytes(SECRET)], one.headers, one.body, time.time(), 60)
            seen.setdefault(orjson.loads(one.body)["type"], set()).add(one.headers["webhook-id"])
        return seen

    async def play(self) -> None:
        """One approval, from the event to the last notification."""
        await self.call("POST", "/notifications/pack-approvals", self.event)
        await self.until_sent("pack.approval.requested")
        path = "/notifications/pack-approvals/{runId}/{approvalId}".format(**self.event)
        ballot = {name: self.event[name] for name in ("tenant", "runId", "approvalId", "planHash")}
        ballot |= {"decision": "approved", "actor": "alice@acme.example"}
        await self.call("POST", path + "/ack", ballot)
        await self.until_sent("pack.approval.resumed")
        await until_async(self._settled, seconds=45)

    async def play_expiry(self, seconds: float) -> None:
        """One approval that nobody decides: it expires so many seconds from now, or has expired already."""
        await self.audit()  # it has started, however long that took
        self.event["expiresAt"] = rfc3339(wall_clock() + int(seconds * SECOND))
        await self.call("POST", "/notifications/pack-approvals", self.event)
        await self.until_sent("pack.approval.resumed")

        async def settled() -> bool:
            return bool((await self.approval())["resume"]["status"] == "delivered")

        await until_async(settled, seconds=45)

    async def _settled(self) -> bool:
        return await self.all_sent(4)

    async def all_sent(self, count: int) -> bool:
        pending = await self.call("GET", "/api/v1/deliveries?state=pending")
        sending = await self.call("GET", "/api/v1/deliveries?state=sending")
        sent = await self.call("GET", "/api/v1/deliveries?state=sent")
        return not pending["items"] and not sending["items"] and len(sent["items"]) == count

    async def audit(self) -> list[str]:
        return sorted(one["name"] for one in (await self.call("GET", "/api/v1/audit"))["items"])

    async def approval(self) -> dict[str, Any]:
        return await self.call(
            "GET", "/notifications/pack-approvals/{runId}/{approvalId}".format(**self.event)
        )


@asynccontextmanager
async def runner(
    folder: Path, *crash_at: str, config: str = CONFIG, database: str = ""
) -> AsyncIterator[Runner]:
    """`database` is the URL of a MongoDB database, by default the store is a file in `folder`."""
    if database:
        config = config.replace(EMBEDDED, f'url = "{database}"\ntimeout = "{PATIENT}"')
        config = config.replace("[dispatch]", '[dispatch]\nlease = "3s"\nclock_skew = "1s"')
    async with Sink() as sink:
        one = Runner(folder, sink, free_port())
        text = config.format(
            port=one.port,
            folder=folder,
            seal=base64.b64encode(b"0" * 32).decode(),
            secret=SECRET.reveal(),
            token_hash=hashlib.sha256(TOKEN.encode()).hexdigest(),
            sink=sink.url,
        )
        (folder / "notifyd.toml").write_text(text)
        resume = {"callbackUrl": sink.url + "/resume", "token": RESUME_TOKEN}
        occurred_at = rfc3339(wall_clock())
        one.event = events.load("requested-en") | {"occurredAt": occurred_at, "resume": resume}
        del one.event["expiresAt"]
        supervisor = asyncio.create_task(one.supervise(*crash_at))
        try:
            yield one
        finally:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
            if one.process is not None and one.process.returncode is None:
                one.process.kill()
                await one.process.wait()


AUDIT = [
    "notification.sent",
    "notification.sent",
    "notification.sent",
    "pack.approval.acknowledged",
    "pack.approval.requested",
    "resume.delivered",
]


def expect_all_done(one: Runner) -> None:
    """Each message under one id, the callback with the token in it."""
    seen = one.seen()
    assert {kind: len(ids) for kind, ids in seen.items()} == {
        "pack.approval.requested": 1,
        "pack.approval.acknowledged": 1,
        "pack.approval.decided": 1,
        "pack.approval.resumed": 1,
    }
    callback = next(r for r in one.sink.received if r.path == "/resume")
    assert orjson.loads(callback.body)["data"]["resumeToken"] == RESUME_TOKEN


async def test_the_points_are_all_the_steps_there_are(tmp_path: Path) -> None:
    async with runner(tmp_path) as one:
        await one.play()
        expect_all_done(one)
        assert one.starts == 1
        assert len(one.sink.received) == 4
        # A machine that is slow gives a lease back, and claims the same again.
        steps = [step for step in one.trace if not step.startswith("release ")]
        assert sorted(steps) == sorted(f"{name} {nth}" for name, nth in POINTS)
        assert await one.audit() == AUDIT


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("step", "nth"), POINTS)
async def test_a_restart_finishes_what_a_kill_left_undone(
    step: str, nth: int, side: str, tmp_path: Path
) -> None:
    async with runner(tmp_path, step, str(nth), side) as one:
        await one.play()
        assert one.starts == 2, "the daemon was not killed"
        expect_all_done(one)
        # At least once: what was under way may come again, under its own id. The callback and the notice can be
        # under way at the same time.
        assert len(one.sink.received) <= 4 + 2
        assert await one.audit() == AUDIT
        approval = await one.approval()
        assert approval["status"] == "approved"
        assert approval["resume"]["status"] == "delivered"


# --- an event that comes while nothing waits ---------------------------------------------------------------

PLAIN = {"specversion": "1.0", "id": "deploy-1", "source": "ci", "type": "deploy.done", "tenant": "acme"}


@pytest.mark.parametrize("side", SIDES)
async def test_an_event_that_is_stored_with_its_plan_is_sent_after_a_kill_under_one_id(
    side: str, tmp_path: Path
) -> None:
    config = CONFIG.replace("pack.approval", "deploy.done")
    async with runner(tmp_path, "append_planned", "1", side, config=config) as one:
        await one.call("POST", "/api/v1/events", PLAIN)
        assert one.starts == 2, "the daemon was not killed"
        await until_async(partial(one.all_sent, 1), seconds=45)
        assert [len(ids) for ids in one.seen().values()] == [1]


# --- an approval that nobody decides -----------------------------------------------------------------------

EXPIRY_POINTS = [
    ("replace_approval", 1, "after"),  # the end
    ("complete_effect", 1, "before"),  # its audit line is written
    ("append", 2, "after"),  # its notice
    ("insert_deliveries", 1, "before"),  # its callback
    ("insert_deliveries", 1, "after"),
    ("complete_effect", 3, "after"),
]


def expect_expiry_answered(one: Runner, *told: str) -> None:
    """One callback, under one id, that says `expired` by nobody; and each message to people under one id."""
    seen = one.seen()
    assert seen.keys() == {"pack.approval.decided", "pack.approval.resumed", *told}
    assert all(len(ids) == 1 for ids in seen.values())
    callback = next(r for r in one.sink.received if r.path == "/resume")
    data = orjson.loads(callback.body)["data"]
    assert (data["decision"], data["actors"], data["resumeToken"]) == ("expired", [], RESUME_TOKEN)


@pytest.mark.parametrize(("step", "nth", "side"), EXPIRY_POINTS)
async def test_a_restart_finishes_the_answer_to_an_expiry_that_a_kill_left_undone(
    step: str, nth: int, side: str, tmp_path: Path
) -> None:
    async with runner(tmp_path, step, str(nth), side) as one:
        await one.play_expiry(1.5)
        assert one.starts == 2, "the daemon was not killed"
        await one.until_sent("pack.approval.expired")
        expect_expiry_answered(one, "pack.approval.requested", "pack.approval.expired")
        assert (await one.audit()).count("pack.approval.expired") == 1


@pytest.mark.parametrize(("step", "nth"), [("replace_approval", 1), ("insert_deliveries", 1)])
async def test_a_restart_on_mongodb_finishes_the_answer_to_an_expiry(
    step: str, nth: int, tmp_path: Path, mongo_server: MongoServer
) -> None:
    """What the killed one had leased is free once its leases are over."""
    async with runner(tmp_path, step, str(nth), "after", database=mongo_server.database()) as one:
        await one.play_expiry(1.5)
        assert one.starts >= 2, "the daemon was not killed"
        await one.until_sent("pack.approval.expired")
        expect_expiry_answered(one, "pack.approval.requested", "pack.approval.expired")
        assert (await one.audit()).count("pack.approval.expired") == 1


@pytest.mark.parametrize(("step", "nth"), [("append", 1), ("insert_deliveries", 1)])
async def test_a_restart_answers_a_request_that_came_expired(step: str, nth: int, tmp_path: Path) -> None:
    async with runner(tmp_path, step, str(nth), "after") as one:
        await one.play_expiry(-60)
        assert one.starts == 2, "the daemon was not killed"
        expect_expiry_answered(one)


# --- a reminder, and an escalation -------------------------------------------------------------------------

OPS = """
[channels.ops]
type = "webhook"
url = "{sink}/ops"
secret = "{secret}"
"""
TIMERS = {
    "reminded": CONFIG + 'remind = ["500ms"]\n',
    "escalated": CONFIG.replace("[[rules]]", OPS + "[[rules]]")
    + 'escalate = [{{after = "500ms", channels = ["ops"]}}]\n',
}
TIMER_POINTS = [
    ("reminded", "replace_approval", 1, "before"),  # it is due
    ("escalated", "replace_approval", 1, "after"),
    ("reminded", "append", 2, "after"),  # its event
]


@pytest.mark.parametrize(("action", "step", "nth", "side"), TIMER_POINTS)
async def test_a_restart_sends_what_a_timer_set_off_before_a_kill_under_one_id(
    action: str, step: str, nth: int, side: str, tmp_path: Path
) -> None:
    async with runner(tmp_path, step, str(nth), side, config=TIMERS[action]) as one:
        await expect_one_more(one, action)


@pytest.mark.parametrize("action", TIMERS)
async def test_a_restart_on_mongodb_sends_what_a_timer_set_off_under_one_id(
    action: str, tmp_path: Path, mongo_server: MongoServer
) -> None:
    where, database = ("replace_approval", "1", "after"), mongo_server.database()
    async with runner(tmp_path, *where, config=TIMERS[action], database=database) as one:
        await expect_one_more(one, action)


async def expect_one_more(one: Runner, action: str) -> None:
    await one.call("POST", "/notifications/pack-approvals", one.event)
    await one.until_sent(f"pack.approval.{action}")

    async def restarted() -> bool:
        return one.starts >= 2 and bool(await one.audit())

    await until_async(restarted, seconds=45)
    await until_async(partial(one.all_sent, 2), seconds=45)
    assert {kind: len(ids) for kind, ids in one.seen().items()} == {
        "pack.approval.requested": 1,
        f"pack.approval.{action}": 1,
    }


# --- the end of the time in which a decision can be taken back ---------------------------------------------

UNDOING = CONFIG + '[approvals]\nundo = "200ms"\n'
UNDO_POINTS = [
    ("replace_approval", "2", "before"),  # it can no longer be taken back
    ("replace_approval", "2", "after"),
    ("insert_deliveries", "1", "after"),  # its callback
]


@pytest.mark.parametrize("point", UNDO_POINTS)
async def test_a_restart_sets_off_once_what_has_waited_to_be_taken_back(
    point: tuple[str, str, str], tmp_path: Path
) -> None:
    async with runner(tmp_path, *point, config=UNDOING) as one:
        await expect_one_end(one)


async def test_a_restart_on_mongodb_sets_off_once_what_has_waited_to_be_taken_back(
    tmp_path: Path, mongo_server: MongoServer
) -> None:
    database = mongo_server.database()
    async with runner(tmp_path, *UNDO_POINTS[1], config=UNDOING, database=database) as one:
        await expect_one_end(one)


async def expect_one_end(one: Runner) -> None:
    await one.play()
    assert one.starts >= 2, "the daemon was not killed"
    expect_all_done(one)
    assert await one.audit() == AUDIT
    approval = await one.approval()
    assert (approval["status"], approval.get("undoable")) == ("approved", None)
