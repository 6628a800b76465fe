"""What operators do, in the audit trail: by whom, by whatever way it came in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from notifyd import correlation
from notifyd.model import AuditName, AuditRecord
from notifyd.web.auth import Caller
from notifyd.web.services import Services
from notifyd.wire.codec import derived_id


async def note_act(
    services: Services,
    caller: Caller,
    name: AuditName,
    tenant: str,
    data: Mapping[str, Any],
    about: tuple[str | None, str | None] = (None, None),
) -> None:
    """`tenant` is "" for what concerns all; `about` are a run and an approval. Raises `StoreError`."""
    now, cid = services.clock(), correlation.current.get()
    run_id, approval_id = about
    record = AuditRecord(
        id=derived_id("audit", tenant, name.value, *data.values(), cid, now),
        tenant=tenant,
        name=name,
        at=now,
        actor=caller.author,
        correlation_id=cid,
        run_id=run_id,
        approval_id=approval_id,
        data=data,
    )
    await services.store.write_audit([record])
