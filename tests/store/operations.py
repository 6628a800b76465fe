"""All that a store is asked to do, once each."""

from __future__ import annotations

from notifyd.model import AuditSeal, Outcome, ResumeStatus, State
from notifyd.store import (
    Advance,
    Aged,
    ApprovalFilter,
    AuditFilter,
    ChannelState,
    CollectionName,
    DeliveryFilter,
    IncidentFilter,
    Job,
    LegalHold,
    Page,
    Store,
)
from tests.store.makers import (
    HOUR,
    MINUTE,
    NODE,
    NOW,
    TENANT,
    append_of,
    approval,
    audit_record,
    decision,
    delivery,
    effect,
    ended,
    event,
    incident,
    insert,
    leased,
    open_approval,
    open_incident,
    opening,
    own_deputy,
    planned,
    silence,
)


async def every_operation(store: Store) -> None:
    """Do each thing that a store can do, in a store that is empty."""
    await open_approval(store, approval(effects=(effect("x1"),)))
    await store.append(append_of(event(), opening(approval())))
    await store.fix_plans([planned(event(), leased("d1"), delivery("d2"))])
    await insert(
        store, delivery("w1", window="w", window_start=NOW, next_attempt_at=NOW + MINUTE, budget="b")
    )
    await store.renew_leases([leased("d1")], NOW + HOUR, sending=True)
    audit, raised = (audit_record("dead"),), event("failed")
    await store.record(ended(leased("d1"), State.DEAD, audit=audit, event=raised, resume=ResumeStatus.FAILED))
    await store.record(ended(leased("gone")))
    await store.release([leased("d1")])
    await store.revive(TENANT, "d1", NOW, NOW + HOUR)
    await store.claim_unplanned(NODE, NOW, NOW + MINUTE, 5)
    await store.claim_due("slack", NODE, NOW, NOW + MINUTE, 5, horizon=NOW + HOUR)
    await store.has_earlier(delivery("d3", seq=3))
    await store.spent(TENANT, "b", NOW - HOUR, 5)
    (window,) = await store.due_windows(NOW + MINUTE, 5)
    await store.window_rows(window, 5)
    await store.postpone(window, NOW + HOUR)
    await store.fold(window, delivery("digest"), {"w1"})
    await store.fold(window, delivery("digest"), None)
    await store.let_go(window)
    await store.close_windows(TENANT, "a", "z", NOW)
    held_back = silence()
    await store.add_silence(held_back, audit_record("added"), NOW)
    await store.live_silences(NOW)
    await store.silences(TENANT, Page(5))
    await store.end_silence(TENANT, held_back.id, NOW, audit_record("ended"))
    stands_in = own_deputy()
    await store.add_deputy(stands_in, audit_record("set"))
    await store.live_deputies(NOW)
    await store.end_deputy(TENANT, stands_in.id, NOW, audit_record("over"))
    await store.forget_deputies(NOW)
    await store.due_approvals(NOW, 5)
    await store.owing_approvals(NOW, 5)
    await store.timed_approvals(NOW, 5)
    await store.wake_timers()
    await store.approval_versions([approval().key])
    await store.complete_effect(approval().key, "x1")
    await store.replace_approval(approval(version=9))
    advance = Advance(approval(version=10), Outcome.NEW_ROUND, True, 10, 2, superseded=(decision(),))
    await store.append(append_of(event("round"), lambda _: advance))
    await store.superseded(approval().key, 5)
    await store.superseded_by(approval().key, "alice@acme.example", "sha256:00")
    await open_incident(store, incident(), "hold")
    await store.outstanding()
    await store.dead_letters()
    await store.backlog()
    await store.waits(NOW)
    await store.usage()
    for state in (None, State.DEAD):
        await store.deliveries(TENANT, DeliveryFilter(state), Page(5, 2**60))
    await store.approvals(TENANT, ApprovalFilter(), Page(5))
    await store.incidents(TENANT, IncidentFilter(), Page(5))
    await store.write_audit([audit_record()])
    await store.audit(TENANT, AuditFilter("run-1"), Page(5))
    await store.audit(TENANT, AuditFilter(), Page(5))
    await store.tenants_with_unsealed_audit()
    await store.add_audit_seal(AuditSeal(TENANT, 1, "{}"), await store.unsealed_audit(TENANT, 1))
    await store.newest_audit_seal(TENANT)
    await store.next_audit_seal(TENANT, 0)
    await store.stray_audit(TENANT, 5)
    await store.tenants_with_audit(NOW + HOUR)
    await store.drop_audit_seals(TENANT, 1)
    for collection in CollectionName:
        aged = Aged(collection, NOW + 2 * HOUR, LegalHold("case"))
        done = await store.purge(aged, 1, dry_run=True)
        await store.purge(aged, 1, done.after or "")
        await store.restore((await store.dump(collection, "", 5))[0])
    await store.answered("0" * 32)
    await store.copies(approval().key)
    await store.keep_channel_state(ChannelState("team", "offset", "a.b.c"))
    await store.keep_channel_state(ChannelState("team", "offset", "d.e.f"), before="a.b.c")
    await store.channel_state("team", "offset")
    await store.channel_states()
    await store.drop_channel_state("team", "offset")
    await store.claim_job(Job.RETENTION, NOW, NOW + MINUTE)
    await store.end_job(Job.RETENTION, NOW)
    await store.beat(NOW, NOW + MINUTE)
    await store.probe()
