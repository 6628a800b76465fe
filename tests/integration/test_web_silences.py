"""Silences over HTTP and on the command line."""

from __future__ import annotations

from typing import Any

import pytest

from notifyd.model import SECOND
from notifyd.wire.codec import rfc3339
from tests.command import Result
from tests.command import notifyd as run
from tests.daemon import TOKENS, Answer, Daemon, bearer
from tests.waiting import until, until_async

PATH = "/api/v1/silences"
TENANT = {"X_Notifyd_Tenant": "acme"}


def problem(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["code"]


def asked(notifyd: Daemon, **changes: Any) -> dict[str, Any]:
    ends = rfc3339(notifyd.clock() + 3600 * SECOND)
    return {"when": 'event.kind == "task.done"', "reason": "maintenance", "endsAt": ends} | changes


async def delete(notifyd: Daemon, path: str, client: str = "operator", tenant: str = "acme") -> Any:
    headers = bearer(client) | {"X-Notifyd-Tenant": tenant}
    return await notifyd.call("DELETE", path, headers=headers)


async def test_a_silence_is_added_listed_and_ended_by_operators_of_its_tenant(notifyd: Daemon) -> None:
    added = await notifyd.post(PATH, asked(notifyd), "operator", **TENANT)
    assert added.status == 200, added.text
    assert (added.json["state"], added.json["author"], added.json["approvals"]) == (
        "in_force",
        "client:operator",
        False,
    )
    assert (await notifyd.get(PATH)).json == {"items": [added.json], "nextCursor": None}
    assert (await notifyd.get(PATH, "outsider")).json["items"] == []
    one = f"{PATH}/{added.json['id']}"
    assert problem(await delete(notifyd, one, tenant="globex")) == (404, "not_found")
    assert problem(await delete(notifyd, one, "reader")) == (403, "scope_missing")
    assert problem(await notifyd.post(PATH, asked(notifyd), "reader")) == (403, "scope_missing")
    ended = (await delete(notifyd, one)).json
    assert (ended["state"], ended["endedBy"]) == ("over", "client:operator")
    assert (await delete(notifyd, one)).json == ended


async def test_every_fault_of_a_silence_is_told_at_once(notifyd: Daemon) -> None:
    wrong = {"when": "event.x ==", "reason": " ", "endsAt": "tomorrow", "startsAt": "today"}
    answer = await notifyd.post(PATH, wrong, "operator", **TENANT)
    assert problem(answer) == (422, "invalid_event")
    assert {one["pointer"] for one in answer.json["errors"]} == {"/when", "/reason", "/endsAt", "/startsAt"}


async def test_a_predicate_is_refused_as_a_rules_would_be(notifyd: Daemon) -> None:
    for when in (
        "event.a.all(a, event.b.all(b, event.c.all(c, true)))",  # too many loops in one another
        "event.title.matches(event.pattern)",  # a pattern that comes from the event
        "unknown == 1",
        "event.kind",  # neither true nor false
        "event.kind > 3",  # fails on every event
        "x" * 4001,
        "",
    ):
        answer = await notifyd.post(PATH, asked(notifyd, when=when), "operator", **TENANT)
        assert problem(answer) == (422, "invalid_event"), when
        assert {one["pointer"] for one in answer.json["errors"]} == {"/when"}


async def test_a_silence_has_an_end_that_is_ahead_and_not_too_far(notifyd: Daemon) -> None:
    for start, end in ((0, -1), (60, 30), (0, 367 * 24 * 3600)):
        starts, ends = (rfc3339(notifyd.clock() + seconds * SECOND) for seconds in (start, end))
        document = asked(notifyd, startsAt=starts, endsAt=ends)
        answer = await notifyd.post(PATH, document, "operator", **TENANT)
        assert [one["pointer"] for one in answer.json["errors"]] == ["/endsAt"], (start, end)


async def test_the_command_adds_lists_and_expires_and_what_was_held_is_told(notifyd: Daemon) -> None:
    async def silence(*args: str) -> Result:
        environ = {"NOTIFYD_TOKEN": TOKENS["operator"], "NOTIFYD_TENANT": "acme"}
        result = await run("silence", *args, "--url", notifyd.url, environ=environ)
        assert result.code == 0, result.stderr
        return result

    when, ends = 'event.kind == "pack.approval"', rfc3339(notifyd.clock() + 3600 * SECOND)
    await silence("add", "--until", ends, "--reason", "release freeze", "--approvals", when)
    (row,) = [line.split("\t") for line in (await silence("list")).stdout.splitlines()[1:]]
    assert row[2:6] == ["in_force", when, "release freeze", "client:operator"]
    await notifyd.ask()

    async def held() -> bool:
        rows = (await notifyd.get("/api/v1/deliveries?channel=inbox")).json["items"]
        return [one["waitsFor"] for one in rows] == ["silence"] * 2

    await until_async(held)
    assert "is over" in (await silence("expire", row[6][:12])).stdout
    assert (await silence("list")).stdout.count("\n") == 1
    assert len((await silence("list", "--all", "--json")).json) == 1
    notifyd.clock.turn(2)
    await until(lambda: len(notifyd.inbox.messages) == 2)
    assert {one.event["action"] for one in notifyd.inbox.messages} == {"requested"}
    doubtful = await silence("add", "--for", "1m", "--reason", "a slip", 'event.kindd == "task.done"')
    assert "warning: `event.kindd` is nothing that notifyd knows of an event" in doubtful.stderr


@pytest.mark.parametrize(
    "more",
    [[], ["--for", "2h", "--until", "2030-01-01T00:00:00Z"], ["--for", "soon"]],
    ids=["no end", "two ends", "no duration"],
)
async def test_wrong_usage_of_silence_add_exits_with_2(more: list[str]) -> None:
    result = await run("silence", "add", "--reason", "r", *more, "true", "--url", "http://127.0.0.1:9")
    assert result.code == 2, result.stderr
