"""Decisions over a real store: the order of the checks, answers repeated byte for byte, and races."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
import rfc8785

from notifyd.approval.quorum import progress
from notifyd.errors import (
    AlreadyDecidedError,
    AlreadyVotedError,
    ExpiredError,
    GrantMissingError,
    InvalidError,
    NotFoundError,
    NotifydError,
    PlanChangedError,
    SelfApprovalError,
)
from notifyd.flow.decide import Decisions
from notifyd.model import SECOND, AuditName, Choice, Outcome, ResumeStatus, Status, Via
from notifyd.security.secrets import decrypt, derive_key
from notifyd.security.signing import secret_bytes
from notifyd.store import Store
from notifyd.wire.codec import rfc3339
from tests import events
from tests.fakes import RUNNER, TOKEN, RecordingEffects, TurnableClock, principal
from tests.flows import RULES, Flow, flow

OTHER_PLAN = "sha256:" + "b" * 64


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Flow]:
    async with flow(tmp_path, start=False) as way:
        yield way


# --- the answer --------------------------------------------------------------------------------------------


async def test_the_answer_tells_the_state_at_that_time_as_the_contract_has_it(way: Flow) -> None:
    document = await way.ask(requiredApprovals=2)
    way.clock.turn(30)
    parts: list[str | int] = ["acme", "run-0042", "deploy-prod", 1, document["planHash"], "approved"]
    first = await way.decide(document)
    expected = hashlib.sha256(rfc8785.dumps([*parts, "alice@acme.example"])).hexdigest()
    assert first == {
        "runId": "run-0042",
        "approvalId": "deploy-prod",
        "status": "pending",
        "decision": {
            "decisionHash": expected,
            "actor": "alice@acme.example",
            "decidedAt": rfc3339(way.clock()),
        },
        "approvals": {"required": 2, "received": 1},
        "resume": {"status": "none", "deliveryId": None, "token": None},
        "correlationId": "corr-ballot",
    }
    second = await way.decide(document, actor="bob@acme.example")
    assert (second["status"], second["approvals"]) == ("approved", {"required": 2, "received": 2})
    assert second["resume"]["status"] == "queued"
    assert second["resume"]["deliveryId"] == (await way.approval(document)).resume_delivery


async def test_the_token_in_the_answer_opens_with_the_posting_clients_secret_alone(way: Flow) -> None:
    document = await way.ask()
    sealed = (await way.decide(document))["resume"]["token"]
    key = derive_key(secret_bytes(RUNNER), "resume-token")
    assert decrypt(key, sealed).decode() == TOKEN.reveal()
    assert TOKEN.reveal() not in sealed


async def test_a_client_without_a_signing_secret_is_given_no_token(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"a token").hexdigest()
    other = f'[auth.clients.other]\ntoken_hashes = ["sha256:{digest}"]\nscopes = []\ntenants = ["acme"]\n'
    async with flow(tmp_path, RULES + other, start=False) as way:
        document = way.requested()
        await way.post(document, by=principal("other"))
        answer = await way.decide(document)
        assert (answer["resume"]["status"], answer["resume"]["token"]) == ("queued", None)


@pytest.mark.parametrize(("private", "plain"), [(True, True), (False, False)])
async def test_the_token_goes_in_clear_only_where_the_config_and_the_way_allow_it(
    tmp_path: Path, private: bool, plain: bool
) -> None:
    text = RULES + '[approvals]\nreturn_resume_token = "plain"\n'
    async with flow(tmp_path, text, start=False) as way:
        document = await way.ask()
        decide = way.app._services.decisions.decide
        answer = await decide(way.ballot(document), private=private)
        assert (orjson.loads(answer)["resume"]["token"] == TOKEN.reveal()) is plain
        assert await decide(way.ballot(document), private=private) == answer


async def test_by_default_the_token_goes_sealed_however_private_the_way(way: Flow) -> None:
    document = await way.ask()
    answer = await way.app._services.decisions.decide(way.ballot(document), private=True)
    assert TOKEN.reveal().encode() not in answer


# --- the same decision again -------------------------------------------------------------------------------


async def test_the_same_decision_is_answered_with_the_same_bytes_whatever_has_happened_since(
    way: Flow,
) -> None:
    document = await way.ask(requiredApprovals=3)
    first = await way.decide_raw(document)
    again = {"comment": "in other words", "correlation_id": "corr-other", "via": Via.JWT}
    assert await way.decide_raw(document, **again) == first
    await way.decide(document, actor="bob@acme.example")
    assert await way.decide_raw(document, **again) == first
    way.clock.turn(1)
    await way.ask(requiredApprovals=3, planHash=OTHER_PLAN)
    assert await way.decide_raw(document, **again) == first
    way.clock.turn(86401)
    assert await way.decide_raw(document, **again) == first
    await way.app._expiry.sweep()
    assert await way.decide_raw(document, **again) == first
    approval = await way.approval(document)
    assert approval.decisions == ()
    superseded = await way.store.superseded(approval.key, 10)
    assert [d.comment for d in superseded] == ["looks good", "looks good"]


async def test_the_deciding_decision_is_answered_with_the_same_bytes_after_the_end(way: Flow) -> None:
    document = await way.ask()
    first = await way.decide_raw(document)
    await way.app._effects.sweep()
    assert (await way.approval(document)).version > 2
    assert await way.decide_raw(document) == first


async def test_a_decision_is_answered_with_the_same_bytes_by_the_next_life(tmp_path: Path) -> None:
    clock = TurnableClock()
    async with flow(tmp_path, clock=clock, start=False) as way:
        document = await way.ask()
        first = await way.decide_raw(document)
    async with flow(tmp_path, clock=clock, start=False) as way:
        assert await way.decide_raw(document) == first


async def test_a_plan_that_comes_back_asks_anew(way: Flow) -> None:
    document = await way.ask(requiredApprovals=2)
    first = await way.decide(document)
    for plan in (OTHER_PLAN, document["planHash"]):
        way.clock.turn(1)
        await way.ask(requiredApprovals=2, planHash=plan)
    again = await way.decide(document, round=3)
    assert again["decision"]["decisionHash"] != first["decision"]["decisionHash"]
    assert again["approvals"] == {"required": 2, "received": 1}


# --- what stands in the way --------------------------------------------------------------------------------


async def test_each_check_comes_in_the_contracts_order(way: Flow) -> None:
    document = await way.ask(requiredApprovals=2, requiredGrants=["Packs.Approve", "prod"])
    full = {"grants": frozenset({"Packs.Approve", "prod"})}
    bare: dict[str, Any] = {"grants": frozenset({"Packs.Approve"})}
    unknown = document | {"approvalId": "other"}
    with pytest.raises(NotFoundError):
        await way.decide(unknown, **bare)
    with pytest.raises(GrantMissingError):
        await way.decide(document, plan_hash=OTHER_PLAN, actor="ci@acme.example", **bare)
    with pytest.raises(PlanChangedError):
        await way.decide(document, plan_hash=OTHER_PLAN, actor="ci@acme.example", **full)
    with pytest.raises(SelfApprovalError):
        await way.decide(document, actor="ci@acme.example", **full)
    await way.decide(document, **full)
    with pytest.raises(AlreadyVotedError):
        await way.decide(document, choice=Choice.REJECTED, **full)
    assert [d.actor for d in (await way.approval(document)).decisions] == ["alice@acme.example"]


async def test_another_tenant_has_no_such_approval(way: Flow) -> None:
    document = await way.ask()
    with pytest.raises(NotFoundError):
        await way.decide(document, tenant="globex")


@pytest.mark.parametrize("status", ["approved", "rejected", "cancelled"])
async def test_what_was_ended_elsewhere_is_decided_already(way: Flow, status: str) -> None:
    document = await way.ask()
    await way.post(events.updated(status, at=way.clock()))
    with pytest.raises(AlreadyDecidedError):
        await way.decide(document)


async def test_past_its_expiry_by_the_clock_nothing_is_recorded_though_the_timer_has_not_come(
    way: Flow,
) -> None:
    document = await way.ask(expiresAt=rfc3339(way.clock() + 60 * SECOND))
    way.clock.turn(60)
    with pytest.raises(ExpiredError):
        await way.decide(document)
    assert (await way.approval(document)).status is Status.PENDING
    await way.app._expiry.sweep()
    assert (await way.approval(document)).status is Status.EXPIRED
    with pytest.raises(ExpiredError):
        await way.decide(document)


async def test_a_moment_before_its_expiry_a_decision_counts(way: Flow) -> None:
    document = await way.ask(expiresAt=rfc3339(way.clock() + 60 * SECOND))
    way.clock.now += 60 * SECOND - 1
    assert (await way.decide(document))["status"] == "approved"
    assert await way.app._expiry.sweep() == 0


async def test_the_requester_decides_where_the_config_allows_it(tmp_path: Path) -> None:
    async with flow(tmp_path, RULES + "[approvals]\nallow_self_approval = true\n", start=False) as way:
        document = await way.ask()
        assert (await way.decide(document, actor="ci@acme.example"))["status"] == "approved"


async def test_the_requester_under_an_alias_that_a_reload_brought_does_not_decide(way: Flow) -> None:
    document = await way.ask(requiredApprovals=3)
    await way.decide(document, actor="u02bob")
    aliases = '[auth.actors]\n"ci@acme.example" = ["U02CI"]\n"bob@acme.example" = ["U02BOB"]\n'
    assert await way.reload(RULES + aliases)
    for actor in ("ci@acme.example", "u02ci"):
        with pytest.raises(SelfApprovalError):
            await way.decide(document, actor=actor)
    with pytest.raises(AlreadyVotedError):
        await way.decide(document, actor="bob@acme.example")
    assert (await way.decide(document))["approvals"]["received"] == 2


async def test_a_request_of_an_older_plan_that_comes_late_clears_no_decisions(way: Flow) -> None:
    """Though the present plan was first asked for before it: it was asked for again since."""
    document = await way.ask(requiredApprovals=2)
    await way.decide(document)
    older = way.requested(requiredApprovals=2, planHash=OTHER_PLAN, occurredAt=rfc3339(way.clock() + SECOND))
    way.clock.turn(2)
    again = way.requested(requiredApprovals=2)
    assert (await way.post(again)).answer["outcome"] == Outcome.RECORDED
    version = (await way.approval(document)).version
    assert (await way.post(older)).answer["outcome"] == Outcome.RECORDED
    assert not (await way.post(again)).fresh
    approval = await way.approval(document)
    assert (approval.round, progress(approval)["received"], approval.version) == (1, 1, version)
    assert (await way.decide(document, actor="bob@acme.example"))["status"] == "approved"


async def test_a_request_past_the_expiry_leaves_the_end_and_what_it_sets_off_to_the_timer(way: Flow) -> None:
    document = await way.ask(expiresAt=rfc3339(way.clock() + 60 * SECOND))
    way.clock.turn(60)
    late = way.requested(planHash=OTHER_PLAN)
    accepted = await way.post(late)
    assert (accepted.answer["outcome"], accepted.answer["round"]) == (Outcome.RECORDED, 1)
    with pytest.raises(ExpiredError):
        await way.decide(late)
    assert await way.app._expiry.sweep() == 1
    assert await way.app._expiry.sweep() == 0
    await way.sweep()
    approval = await way.approval(document)
    assert (approval.status, approval.round, approval.effects) == (Status.EXPIRED, 1, ())
    assert [line.name for line in await way.audit()].count(AuditName.EXPIRED) == 1
    assert way.metric("notifyd_approvals_outstanding", tenant="acme") == 0


async def test_a_link_of_an_earlier_round_does_not_decide_though_its_plan_has_come_back(way: Flow) -> None:
    document = await way.ask(requiredApprovals=2)
    for plan in (OTHER_PLAN, document["planHash"]):
        way.clock.turn(1)
        await way.ask(requiredApprovals=2, planHash=plan)
    with pytest.raises(PlanChangedError):
        await way.decide(document, via=Via.LINK, client="", round=1)
    assert (await way.decide(document, via=Via.LINK, client="", round=3))["approvals"]["received"] == 1


# --- at once -----------------------------------------------------------------------------------------------


async def outcomes(calls: list[Any]) -> list[str]:
    """What became of each of many decisions: its status, or its error's code."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    told = []
    for answer in answers:
        if isinstance(answer, NotifydError):
            told.append(answer.code)
        else:
            assert not isinstance(answer, BaseException), answer
            told.append(answer["status"])
    return told


async def test_of_twenty_who_approve_at_once_three_decide_and_the_rest_come_too_late(way: Flow) -> None:
    document = await way.ask(requiredApprovals=3)
    told = await outcomes([way.decide(document, actor=f"actor-{n}@acme.example") for n in range(20)])
    assert sorted(told) == ["already_decided"] * 17 + ["approved"] + ["pending"] * 2
    approval = await way.approval(document)
    assert (approval.status, progress(approval)["received"], len(approval.decisions)) == (
        Status.APPROVED,
        3,
        3,
    )
    assert approval.resume is ResumeStatus.QUEUED


async def test_decisions_by_two_nodes_on_one_store_count_as_if_by_one(way: Flow) -> None:
    document = await way.ask(requiredApprovals=12)
    other = Decisions(
        store=cast(Store, way.store),
        current=way.current,
        effect_queue=RecordingEffects(),
        metrics=way.metrics,
        clock=way.clock,
    )
    ballots = [way.ballot(document, actor=f"actor-{n}@acme.example") for n in range(16)]
    nodes = (way.app._services.decisions, other)
    answers = await asyncio.gather(
        *(nodes[n % 2].decide(one) for n, one in enumerate(ballots)), return_exceptions=True
    )
    assert sum(isinstance(answer, bytes) for answer in answers) == 12
    assert sum(isinstance(answer, AlreadyDecidedError) for answer in answers) == 4
    approval = await way.approval(document)
    assert (approval.status, progress(approval)["received"]) == (Status.APPROVED, 12)


async def test_a_quorum_of_a_hundred_who_all_come_at_once_is_reached(tmp_path: Path) -> None:
    async with flow(tmp_path, start=False) as way:
        way.start("effects")
        document = await way.ask(requiredApprovals=100)
        told = await outcomes([way.decide(document, actor=f"actor-{n}@acme.example") for n in range(100)])
        assert sorted(told) == ["approved"] + ["pending"] * 99
        assert progress(await way.approval(document))["received"] == 100


async def test_the_same_ballot_ten_times_at_once_is_recorded_once_and_answered_alike(way: Flow) -> None:
    document = await way.ask()
    answers = await asyncio.gather(*(way.decide_raw(document, correlation_id=f"c{n}") for n in range(10)))
    assert len(set(answers)) == 1
    approval = await way.approval(document)
    assert len(approval.decisions) == 1
    assert way.metric("notifyd_approval_ack_latency_seconds_count") == 1
    assert way.metric("notifyd_approvals_outstanding", tenant="acme") == 0


async def test_the_very_same_ballot_at_the_very_same_time_counts_once(way: Flow) -> None:
    document = await way.ask(requiredApprovals=2)
    answers = await asyncio.gather(*(way.decide_raw(document) for _ in range(10)))
    assert len(set(answers)) == 1
    assert len((await way.approval(document)).decisions) == 1


async def test_of_one_who_approves_and_rejects_at_once_one_choice_counts(way: Flow) -> None:
    document = await way.ask(requiredApprovals=2)
    told = await outcomes([way.decide(document, choice=choice) for choice in (*Choice, *Choice)])
    approval = await way.approval(document)
    assert len(approval.decisions) == 1
    recorded = "pending" if approval.decisions[0].choice is Choice.APPROVED else "rejected"
    refused = "already_voted" if recorded == "pending" else "already_decided"
    assert sorted(told) == sorted([recorded, recorded, refused, refused])


async def test_a_decision_and_an_update_that_race_leave_one_end(way: Flow) -> None:
    for number in range(10):
        document = await way.ask(runId=f"run-{number}")
        update = events.updated("cancelled", at=way.clock(), runId=document["runId"])
        accepted, told = await asyncio.gather(way.post(update), outcomes([way.decide(document)]))
        approval = await way.approval(document)
        if told == ["approved"]:
            assert approval.status is Status.APPROVED
            assert accepted.answer["outcome"] == Outcome.RECORDED
        else:
            assert (told, approval.status) == (["already_decided"], Status.CANCELLED)


async def test_a_decision_and_the_timer_that_race_leave_one_end(way: Flow) -> None:
    """The ballot was checked a moment before the expiry, the timer comes a moment after it."""
    document = await way.ask(expiresAt=rfc3339(way.clock() + 60 * SECOND))
    way.clock.now += 60 * SECOND - 1
    decision = asyncio.create_task(way.decide(document))
    await asyncio.sleep(0)
    way.clock.now += 1
    ended, told = await asyncio.gather(way.app._expiry.sweep(), outcomes([decision]))
    approval = await way.approval(document)
    if ended:
        assert (approval.status, told) == (Status.EXPIRED, ["expired"])
        assert approval.decisions == ()
    else:
        assert (approval.status, told) == (Status.APPROVED, ["approved"])
    assert way.metric("notifyd_approvals_outstanding", tenant="acme") == 0


async def test_a_decision_whose_answer_was_lost_is_found_recorded(way: Flow) -> None:
    document = await way.ask()
    way.store.fail("replace_approval", after=True)
    with pytest.raises(NotifydError) as caught:
        await way.decide(document)
    assert caught.value.code == "store_unavailable"
    assert (await way.decide(document))["status"] == "approved"
    assert len((await way.approval(document)).decisions) == 1
    await way.sweep()
    assert (await way.approval(document)).effects == ()


# --- what is left of it ------------------------------------------------------------------------------------


async def test_a_decision_is_on_record_with_its_actor_its_way_and_no_comment(way: Flow) -> None:
    document = await way.ask()
    await way.decide(document, via=Via.LINK, client="", round=1, comment="my private words")
    await way.sweep()
    (line,) = [one for one in await way.audit() if one.name is AuditName.ACKNOWLEDGED]
    assert (line.actor, line.correlation_id, line.tenant) == ("alice@acme.example", "corr-ballot", "acme")
    assert (line.data["via"], line.data["decision"], line.data["status"]) == ("link", "approved", "approved")
    assert "private words" not in repr(line)


async def test_a_decision_does_not_tell_the_resume_token(way: Flow) -> None:
    """Whoever has it may well paste it: it is sealed with the request, and so may stand nowhere in clear."""
    token = TOKEN.reveal()
    asked = [{"name": "note", "type": "text"}]
    document = await way.ask(inputs=asked, requiredApprovals=2)
    with pytest.raises(InvalidError) as caught:
        await way.decide(document, inputs={"note": f"it is {token}"})
    assert [fault.pointer for fault in caught.value.faults] == ["/inputs/note"]
    await way.decide(document, comment=f"resume with {token}, please")
    await way.sweep()
    approval = await way.approval(document)
    assert approval.decisions[0].comment == "resume with ***, please"
    assert token not in repr(await way.audit())


async def test_how_long_a_decision_took_counts_from_the_request(way: Flow) -> None:
    document = await way.ask()
    way.clock.turn(90)
    await way.decide(document)
    assert way.metric("notifyd_approval_ack_latency_seconds_sum") == 90
    assert way.metric("notifyd_approvals_outstanding", tenant="acme") == 0


async def test_an_end_that_a_late_event_makes_final_is_measured_as_any(tmp_path: Path) -> None:
    async with flow(tmp_path, RULES + '[approvals]\nundo = "10m"\n', start=False) as way:
        document = await way.ask()
        await way.decide(document)
        late = events.updated("cancelled", at=way.clock())
        for _ in range(2):
            await way.post(late | {"eventId": str(uuid.uuid4())})
        assert way.metric("notifyd_approvals_ended_total", status="approved") == 0
        await way.sweep()
        assert way.metric("notifyd_approvals_ended_total", status="approved") == 1
        assert way.metric("notifyd_approvals_outstanding", tenant="acme") == 0


async def test_what_is_decided_and_can_be_taken_back_is_counted_as_the_store_counts_it(
    tmp_path: Path,
) -> None:
    """A count in between had each of them subtracted once more, when its time to be taken back was over."""
    async with flow(tmp_path, RULES + '[approvals]\nundo = "10m"\n', start=False) as way:

        async def outstanding(expected: int) -> bool:
            told = way.metric("notifyd_approvals_outstanding", tenant="acme")
            await way.app._count()
            return told == way.metric("notifyd_approvals_outstanding", tenant="acme") == expected

        document = await way.ask()
        assert await outstanding(1)
        await way.decide(document, via=Via.LINK, round=1)
        assert await outstanding(0)
        await way.app._services.decisions.take_back(
            (await way.approval(document)).key, "alice@acme.example", correlation_id="c"
        )
        assert await outstanding(1)
        await way.decide(document, via=Via.LINK, round=1)
        way.clock.turn(600)
        await way.sweep()
        assert way.metric("notifyd_approvals_ended_total", status="approved") == 1
        assert await outstanding(0)
