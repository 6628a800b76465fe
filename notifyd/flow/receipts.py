"""The receipt of an end: made once, when it is first needed, and stored with its approval."""

from __future__ import annotations

from attrs import evolve

from notifyd.approval.receipts import PAYLOAD_TYPE, statement
from notifyd.errors import NoSigningKeyError, NotFoundError
from notifyd.model import Approval, ApprovalKey
from notifyd.registry.registry import Registry
from notifyd.security.dsse import sealed
from notifyd.store import Store
from notifyd.wire.audit import Seal, read_seal


async def receipt_of(key: ApprovalKey, store: Store, registry: Registry) -> str:
    """The envelope, as JSON text. Of two who need it at once one makes it, and both have the same bytes.

    Raises `NotFoundError` until the approval has ended, `NoSigningKeyError`, `UndecodableRowError`, `StoreError`.
    """
    while True:
        approval = await store.approval(key)
        if approval is None:
            raise NotFoundError(f"no approval {key.approval_id!r} in run {key.run_id!r}")
        if not approval.status.ended or approval.undoable:
            raise NotFoundError("there is no receipt until the approval has ended")
        if approval.receipt:
            return approval.receipt
        newest = await store.newest_audit_seal(key.tenant)
        receipt = _made(approval, read_seal(newest) if newest else None, registry)
        made = evolve(approval, version=approval.version + 1, receipt=receipt)
        if await store.replace_approval(made):
            return made.receipt


def _made(approval: Approval, head: Seal | None, registry: Registry) -> str:
    if not registry.signing:
        raise NoSigningKeyError("keys.sign is empty: nothing signs a receipt")
    return sealed(registry.signing, PAYLOAD_TYPE, statement(approval, head))
