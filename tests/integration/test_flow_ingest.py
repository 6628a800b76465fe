"""Ingest over a real store: what makes an event durable, a duplicate, a conflict, or nothing at all."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest

from notifyd.config.units import DAY, MINUTE
from notifyd.errors import (
    EventIdConflictError,
    InvalidError,
    NotifydError,
    OverloadedError,
    StoreError,
    TooOldError,
)
from notifyd.model import SECOND, State, Status
from notifyd.wire import events as wire
from notifyd.wire.codec import rfc3339
from tests import events
from tests.fakes import TOKEN, TurnableClock, principal
from tests.flows import RULES, TASKS, Flow, flow, stored_bytes

OTHER_PLAN = "sha256:" + "b" * 64


async def nothing_is_stored(way: Flow) -> bool:
    rows, trail = await way.deliveries(), await way.audit()
    pending = await way.store.outstanding()
    return not (rows or trail or pending or await way.unplanned())


# --- accepted, again, otherwise ----------------------------------------------------------------------------


async def test_an_event_is_accepted_once_and_the_answer_says_what_it_did(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        accepted = await way.post(way.requested(), correlation_id="corr-7")
        assert accepted.fresh
        assert accepted.answer == {
            "eventId": accepted.answer["eventId"],
            "tenant": "acme",
            "runId": "run-0042",
            "approvalId": "deploy-prod",
            "round": 1,
            "outcome": "opened",
            "correlationId": "corr-7",
        }


@pytest.mark.parametrize("given", [True, False])
async def test_readers_see_the_deadline_that_counts_given_or_by_default(tmp_path: Path, given: bool) -> None:
    async with flow(tmp_path, start=False) as way:
        document = way.requested(**({} if given else {"expiresAt": None}))
        await way.post(document)
        (event,) = await way.unplanned()
        seen = orjson.loads(event.body)
        by_default = rfc3339(event.occurred_at + 7 * DAY)
        assert seen["expiresAt"] == (document["expiresAt"] if given else by_default)


async def test_a_duplicate_is_given_the_first_answer_whatever_has_happened_since(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        document = way.requested()
        first = await way.post(document, correlation_id="corr-first")
        await way.decide(document)
        again = await way.post(document, correlation_id="corr-second")
        assert (again.fresh, again.answer) == (False, first.answer)
        assert len([line for line in await way.audit() if line.name == "pack.approval.requested"]) == 1
        assert way.metric("notifyd_events_total", kind="pack.approval", outcome="duplicate") == 1


async def test_the_same_content_written_otherwise_is_a_duplicate(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        document = way.requested(parameters={"replicas": 3, "share": 0.5, "name": "Zürich 🚀"})
        backwards = json.dumps(dict(reversed(document.items())), indent=3, ensure_ascii=True)
        exponents = backwards.replace("0.5", "5.0e-1").replace("\\ud83d\\ude80", "🚀")
        assert (await way.post(document)).fresh
        for text in (backwards, exponents):
            assert not (await way.post(orjson.loads(text))).fresh


@pytest.mark.parametrize(
    "change",
    [
        {"planHash": OTHER_PLAN},
        {"labels": {"environment": "staging"}},
        {"resume": {"callbackUrl": "https://runner.acme.example/resume/run-0042", "token": "another-token"}},
        {"x-note": "new"},
    ],
)
async def test_the_same_id_with_other_content_is_a_conflict(tmp_path: Path, change: dict[str, Any]) -> None:
    async with flow(tmp_path, start=False) as way:
        document = await way.ask()
        with pytest.raises(EventIdConflictError):
            await way.post(document | change)
        assert (await way.approval(document)).plan_hash == document["planHash"]
        assert way.metric("notifyd_events_total", kind="pack.approval", outcome="conflict") == 1


async def test_of_one_event_posted_many_times_at_once_one_is_new(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        document = way.requested()
        accepted = await asyncio.gather(*(way.post(document, correlation_id=f"c{n}") for n in range(10)))
        assert [one.fresh for one in accepted].count(True) == 1
        assert len({orjson.dumps(dict(one.answer)) for one in accepted}) == 1
        assert len(await way.unplanned()) == 1


async def test_two_tenants_may_use_the_same_ids(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        document = await way.ask()
        other = await way.post(document | {"tenant": {"id": "globex"}})
        assert other.fresh
        assert await way.store.outstanding() == {"acme": 1, "globex": 1}


async def test_a_store_that_loses_its_answer_is_asked_again_and_tells_a_duplicate(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        way.store.fail("append", after=True)
        document = way.requested()
        with pytest.raises(StoreError):
            await way.post(document)
        assert not (await way.post(document)).fresh
        assert (await way.approval(document)).status is Status.PENDING


async def test_an_event_whose_answer_was_lost_is_planned_when_it_is_sent_again(tmp_path: Path) -> None:
    async with flow(tmp_path) as way:
        way.store.fail("append", times=1, after=True)
        document = way.requested()
        with pytest.raises(StoreError):
            await way.post(document)
        for _ in range(3):
            assert not (await way.post(document)).fresh
        assert [row.state for row in await way.ended(1)] == [State.SENT]  # before the event's lease ends
        assert len(way.channel().received) == 1


async def test_an_event_is_a_duplicate_after_a_restart_too(tmp_path: Path) -> None:
    clock = TurnableClock()
    async with flow(tmp_path, clock=clock, start=False) as way:
        document = await way.ask()
    async with flow(tmp_path, clock=clock, start=False) as way:
        assert not (await way.post(document)).fresh
        with pytest.raises(EventIdConflictError):
            await way.post(document | {"planHash": OTHER_PLAN})


# --- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 5 * MINUTE])
async def test_an_event_ahead_of_the_clock_within_the_tolerance_is_taken(tmp_path: Path, ahead: int) -> None:
    async with flow(tmp_path, start=False) as way:
        await way.ask(occurredAt=rfc3339(way.clock() + ahead))


async def test_an_event_ahead_of_the_clock_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        with pytest.raises(InvalidError) as caught:
            await way.ask(occurredAt=rfc3339(way.clock() + 5 * MINUTE + 1))
        assert caught.value.faults[0].pointer == "/occurredAt"
        assert await nothing_is_stored(way)


async def test_an_event_older_than_what_is_kept_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        await way.ask(occurredAt=rfc3339(way.clock() - 30 * DAY))
        with pytest.raises(TooOldError) as caught:
            await way.ask(occurredAt=rfc3339(way.clock() - 30 * DAY - 1), runId="run-old")
        assert caught.value.faults[0].pointer == "/occurredAt"
        assert len(await way.unplanned()) == 1


async def test_a_repeat_is_a_duplicate_whatever_clock_and_configuration_say_by_then(tmp_path: Path) -> None:
    """A sender whose answer was lost sends again: a refusal would tell it that nothing was accepted."""
    async with flow(tmp_path, start=False) as way:
        document = way.requested()
        first = await way.post(document)
        cloud = {"specversion": "1.0", "id": "c-1", "source": "/s", "type": "task.done", "tenant": "acme"}
        timed = cloud | {"time": rfc3339(way.clock())}
        await way.cloud(timed)
        for shift in (31 * DAY, -DAY):
            way.clock.now += shift
            again = await way.post(document)
            assert (again.fresh, again.answer) == (False, first.answer)
            assert not (await way.cloud(timed)).fresh
            with pytest.raises((InvalidError, TooOldError)):
                await way.post(document | {"labels": {"changed": "yes"}})
            with pytest.raises((InvalidError, TooOldError)):
                await way.cloud(timed | {"id": "c-2"})
            way.clock.now -= shift
        assert await way.reload('[resume]\nallowed_origins = ["https://elsewhere.example"]\n')
        assert not (await way.post(document)).fresh
        with pytest.raises(InvalidError):
            await way.ask(runId="run-new")


async def test_all_that_an_event_has_at_fault_is_told_together(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        with pytest.raises(InvalidError) as caught:
            await way.ask(
                occurredAt=rfc3339(way.clock() + DAY),
                requestedBy="al\u200bice",
                resume=way.resume("https://evil.example/resume"),
                approvalGroups=[{"name": n, "grant": "G", "required": 1} for n in ("A", "a")],
            )
        assert [fault.pointer for fault in caught.value.faults] == [
            "/occurredAt",
            "/requestedBy",
            "/approvalGroups/1/name",
            "/resume/callbackUrl",
        ]
        assert await nothing_is_stored(way)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/resume",
        "http://runner.acme.example/resume",
        "https://runner.acme.example:444/resume",
        "https://alice@runner.acme.example/resume",
        "https://169.254.169.254/latest/meta-data",
    ],
)
async def test_a_callback_to_elsewhere_is_refused_and_leaves_nothing(tmp_path: Path, url: str) -> None:
    async with flow(tmp_path, start=False) as way:
        with pytest.raises(InvalidError) as caught:
            await way.ask(resume=way.resume(url))
        assert [fault.pointer for fault in caught.value.faults] == ["/resume/callbackUrl"]
        assert await nothing_is_stored(way)


async def test_a_full_backlog_refuses_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with flow(tmp_path, RULES + "[dispatch]\nmax_backlog = 2\n", start=False) as way:
        await way.ask(runId="run-1")
        await way.ask(runId="run-2")
        with pytest.raises(OverloadedError) as caught:
            await way.ask(runId="run-3")
        assert 1 <= caught.value.retry_after <= 60
        assert len(await way.unplanned()) == 2


async def test_a_store_that_fails_leaves_nothing_and_the_event_can_be_sent_again(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        way.store.fail("append")
        document = way.requested()
        with pytest.raises(StoreError):
            await way.post(document)
        assert await nothing_is_stored(way)
        assert (await way.post(document)).fresh


# --- the token ---------------------------------------------------------------------------------------------


async def test_the_token_is_nowhere_on_disk_wherever_the_event_repeats_it(tmp_path: Path) -> None:
    token = TOKEN.reveal()
    async with flow(tmp_path) as way:
        document = await way.ask(
            message={"title": f"use {token}", "summary": token},
            labels={"environment": "production", "hint": f"({token})"},
            parameters={"deep": [{"er": [token, f"a {token} b"]}], token: "as a name"},
            steps=[{"id": token, "name": token}],
            policy={"id": "prod", "messages": [token]},
            **{"x-debug": {"copy": token}},
        )
        await way.messages(1)
        await way.decide(document)
        await way.ended(1)
        assert token.encode() not in stored_bytes(tmp_path)
        (message,) = await way.messages(1)
        assert token not in repr(message)
    assert token.encode() not in stored_bytes(tmp_path)


async def test_a_token_that_the_event_repeats_as_an_address_or_a_form_writes_it_is_not_kept(
    tmp_path: Path,
) -> None:
    token = "rt+3yQ8/Jv1n=Tz5kWc7p\u00fc"
    written = {quote(token), quote(token, safe=""), quote_plus(token), json.dumps(token)[1:-1]}
    async with flow(tmp_path) as way:
        await way.ask(
            resume={"callbackUrl": "https://runner.acme.example/r", "token": token},
            links=[{"rel": "run", "href": f"https://runner.acme.example/r?t={quote(token, safe='')}"}],
            parameters={"said": sorted(written)},
        )
        (message,) = await way.messages(1)
        assert [one for one in written if one in repr(message)] == []
    assert [one for one in written if one.encode() in stored_bytes(tmp_path)] == []


async def test_a_token_for_a_correlation_id_is_refused(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        with pytest.raises(InvalidError) as caught:
            await way.post(way.requested(), correlation_id=f"run/{TOKEN.reveal()}")
        assert [fault.pointer for fault in caught.value.faults] == ["/resume/token"]
        assert TOKEN.reveal().encode() not in stored_bytes(tmp_path)


@pytest.mark.parametrize(
    ("pointer", "place"),
    [
        ("/runId", {"runId": f"run-{TOKEN.reveal()}"}),
        ("/approvalId", {"approvalId": TOKEN.reveal()}),
        ("/eventId", {"eventId": TOKEN.reveal()}),
        ("/requestedBy", {"requestedBy": f"{TOKEN.reveal()}@acme.example"}),
        ("/requiredGrants", {"requiredGrants": ["Packs.Approve", TOKEN.reveal()]}),
        ("/policy/id", {"policy": {"id": TOKEN.reveal()}}),
    ],
)
async def test_a_token_where_it_would_be_kept_in_clear_is_refused(
    tmp_path: Path, pointer: str, place: dict[str, Any]
) -> None:
    async with flow(tmp_path, start=False) as way:
        with pytest.raises(InvalidError) as caught:
            await way.ask(**place)
        assert [fault.pointer for fault in caught.value.faults] == [pointer]
        assert TOKEN.reveal() not in str(caught.value)
        assert TOKEN.reveal().encode() not in stored_bytes(tmp_path)


@pytest.mark.parametrize("query", ["t=rt_3yQ8Jv1nTz5kWc7pXe2mRb9d", "t=rt%5F3yQ8Jv1nTz5kWc7pXe2mRb9d"])
async def test_a_token_in_the_callbacks_address_is_refused_however_it_is_written(
    tmp_path: Path, query: str
) -> None:
    async with flow(tmp_path, start=False) as way:
        with pytest.raises(InvalidError) as caught:
            await way.ask(resume=way.resume(f"https://runner.acme.example/resume?{query}"))
        assert [fault.pointer for fault in caught.value.faults] == ["/resume/callbackUrl"]


@pytest.mark.parametrize("token", ["run", "a", "true", "***", "resume", "token", "planHash"])
async def test_a_token_that_is_an_ordinary_word_takes_nothing_of_the_approval_with_it(
    tmp_path: Path, token: str
) -> None:
    async with flow(tmp_path) as way:
        resume = {"callbackUrl": "https://runner.acme.example/r", "token": token}
        document = await way.ask(resume=resume)
        (message,) = await way.messages(1)
        assert message.event["kind"] == "pack.approval"
        assert (await way.approval(document)).plan_hash == document["planHash"]


async def test_a_configured_secret_in_an_event_is_not_stored(tmp_path: Path) -> None:
    secret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlBQkNERUY="  # keys.seal, in base64
    async with flow(tmp_path) as way:
        await way.ask(message={"title": f"the key is {secret}"}, labels={"environment": "production"})
        (message,) = await way.messages(1)
        assert secret not in repr(message)
        assert secret.encode() not in stored_bytes(tmp_path)


async def test_what_names_itself_a_secret_is_not_stored(tmp_path: Path) -> None:
    async with flow(tmp_path) as way:
        await way.ask(parameters={"db_password": "hunter2-hunter2", "replicas": 3})
        (message,) = await way.messages(1)
        assert message.event["parameters"] == {"db_password": "***", "replicas": 3}
        assert b"hunter2" not in stored_bytes(tmp_path)


# --- what an event becomes ---------------------------------------------------------------------------------


async def test_without_an_expiry_the_default_counts_from_when_it_was_asked(tmp_path: Path) -> None:
    async with flow(tmp_path, RULES + '[approvals]\ndefault_ttl = "2h"\n', start=False) as way:
        asked_at = way.clock() - 60 * SECOND
        document = await way.ask(occurredAt=rfc3339(asked_at), expiresAt=None)
        assert (await way.approval(document)).expires_at == asked_at + 7200 * SECOND


async def test_an_approval_that_comes_expired_asks_nobody(tmp_path: Path) -> None:
    async with flow(tmp_path) as way:
        accepted = await way.post(way.requested(expiresAt=rfc3339(way.clock())))
        assert accepted.answer["outcome"] == "expired"
        assert await way.unplanned() == []
        assert [line.name for line in await way.audit()] == [
            "pack.approval.requested",
            "pack.approval.expired",
        ]


async def test_without_a_requester_it_is_the_client_that_posted(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        document = await way.ask(requestedBy=None)
        assert (await way.approval(document)).requested_by == "client:task-runner"


async def test_the_requester_is_kept_by_the_canonical_name(tmp_path: Path) -> None:
    aliases = '[auth.actors]\n"alice@acme.example" = ["00u1ab"]\n'
    async with flow(tmp_path, RULES + aliases, start=False) as way:
        document = await way.ask(requestedBy=" 00U1AB ")
        assert (await way.approval(document)).requested_by == "alice@acme.example"


async def test_holds_are_kept_apart_by_their_policy(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        for policy in ("prod", "freeze"):
            held = await way.post(events.held(at=way.clock(), policy={"id": policy}))
            assert held.answer["outcome"] == "opened"
        released = await way.post(events.released(at=way.clock() + 1, policy={"id": "prod"}))
        assert released.answer["outcome"] == "ended"
        again = await way.post(events.held(at=way.clock() + 2, policy={"id": "freeze"}))
        assert again.answer["outcome"] == "recorded"


async def test_rules_see_what_the_contract_names_and_no_token(tmp_path: Path) -> None:
    rules = RULES.replace('event.action == "requested"', "true")
    async with flow(tmp_path, rules) as way:
        document = await way.ask(**{"x-note": "kept"})
        (message,) = await way.messages(1)
        seen = message.event
        assert (seen["kind"], seen["action"], seen["round"]) == ("pack.approval", "requested", 1)
        assert seen["tenant"] == document["tenant"]
        assert seen["resume"] == {"callbackUrl": document["resume"]["callbackUrl"]}
        assert (seen["x-note"], seen["correlationId"]) == ("kept", "corr-1")
        assert seen["occurredAt"] == document["occurredAt"]


@pytest.mark.parametrize("resume", [None, "left out"])
async def test_an_update_needs_no_resume_and_may_say_null(tmp_path: Path, resume: str | None) -> None:
    async with flow(tmp_path, start=False) as way:
        document = events.updated("approved", at=way.clock())
        given = document if resume else document | {"resume": None}
        assert (await way.post(given)).answer["outcome"] == "ended"


async def test_a_cloud_event_is_one_by_source_and_id(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        document = events.cloud_event(at=way.clock())
        assert (await way.cloud(document)).fresh
        assert not (await way.cloud(document)).fresh
        assert (await way.cloud(document | {"source": "/elsewhere"})).fresh
        assert (await way.cloud(document, tenant="globex")).fresh
        with pytest.raises(EventIdConflictError):
            await way.cloud(document | {"data": {"other": True}})


async def test_a_cloud_event_without_a_time_happens_when_it_comes(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS) as way:
        document = events.cloud_event(at=way.clock())
        del document["time"]
        await way.cloud(document)
        (message,) = await way.messages(1)
        assert message.event["occurredAt"] == rfc3339(way.clock())
        assert message.event["tenant"] == {"id": "acme"}


async def test_a_cloud_event_cannot_pass_for_an_approval_or_claim_to_be_of_another_tenant(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, TASKS, start=False) as way:
        for forged in ({"type": "pack.approval"}, {"type": "pack.policy"}):
            with pytest.raises(InvalidError):
                wire.parse_cloud_event(events.cloud_event(at=way.clock(), **forged))
        plain = events.cloud_event(at=way.clock(), kind="pack.approval", action="requested", planhash="x")
        await way.cloud(plain)
        (event,) = await way.unplanned()
        assert (event.kind, event.action) == ("task.done", "")
        seen = orjson.loads(event.body)
        assert (seen["kind"], seen["action"], seen["tenant"]) == ("task.done", "", {"id": "acme"})


@pytest.mark.parametrize("ahead", [5 * MINUTE + 1, -30 * DAY - 1])
async def test_a_cloud_events_time_has_the_same_bounds(tmp_path: Path, ahead: int) -> None:
    async with flow(tmp_path, start=False) as way:
        with pytest.raises(NotifydError) as caught:
            await way.cloud(events.cloud_event(at=way.clock() + ahead))
        assert isinstance(caught.value, InvalidError | TooOldError)
        assert await nothing_is_stored(way)


async def test_pending_approvals_are_counted_as_they_come_and_go(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:

        def outstanding() -> float:
            return way.metric("notifyd_approvals_outstanding", tenant="acme")

        await way.ask(runId="run-1")
        second = await way.ask(runId="run-2")
        third = await way.ask(runId="run-3")
        assert outstanding() == 3
        await way.post(events.updated("cancelled", at=way.clock(), runId="run-1"))
        await way.post(events.updated("cancelled", at=way.clock(), runId="never-asked"))
        await way.post(way.requested(runId="run-4", expiresAt=rfc3339(way.clock())))
        assert outstanding() == 2
        await way.decide(second)
        assert outstanding() == 1
        later = rfc3339(way.clock() + SECOND)
        await way.post(way.requested(runId="run-3", planHash=OTHER_PLAN, occurredAt=later))
        assert outstanding() == 1
        way.clock.turn(86401)
        await way.app._expiry.sweep()
        assert outstanding() == 0
        assert (await way.approval(third)).status is Status.EXPIRED


async def test_who_posted_is_kept_with_the_event(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        await way.post(way.requested(), by=principal("other-runner"), correlation_id="corr-9")
        (event,) = await way.unplanned()
        assert (event.client, event.correlation_id) == ("other-runner", "corr-9")
        (line,) = await way.audit()
        assert (line.actor, line.correlation_id) == ("client:other-runner", "corr-9")
