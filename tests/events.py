"""The events of `tests/data/`, and fresh ones made after them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from notifyd.model import SECOND, Instant
from notifyd.wire.codec import rfc3339

DATA = Path(__file__).parent / "data"

NAMES = tuple(sorted(path.stem for path in DATA.glob("*.json")))
"""Every event there is, such as `requested-en`."""

PACK_EVENTS = tuple(name for name in NAMES if not name.startswith("cloudevent-"))
CLOUD_EVENTS = tuple(name for name in NAMES if name.startswith("cloudevent-"))


def raw(name: str) -> bytes:
    """The file's bytes."""
    return (DATA / f"{name}.json").read_bytes()


def load(name: str) -> dict[str, Any]:
    """The event as a document, anew at each call."""
    document: dict[str, Any] = json.loads(raw(name))
    return document


def fresh(name: str, *, at: Instant, **overrides: Any) -> dict[str, Any]:
    """The event with an `eventId` of its own, occurred at `at`, and expiring a day later where it expires.

    `overrides` replace members by their names on the wire; None leaves one out.
    """
    document = load(name) | {"eventId": str(uuid.uuid4()), "occurredAt": rfc3339(at)}
    if "expiresAt" in document:
        document["expiresAt"] = rfc3339(at + 24 * 3600 * SECOND)
    document |= overrides
    return {member: value for member, value in document.items() if value is not None}


def requested(*, at: Instant, **overrides: Any) -> dict[str, Any]:
    """A `PackApprovalRequested` after `requested-en`, see `fresh`."""
    return fresh("requested-en", at=at, **overrides)


def updated(status: str = "approved", *, at: Instant, **overrides: Any) -> dict[str, Any]:
    """A `PackApprovalUpdated` of the approval that `requested` asks for, see `fresh`."""
    same = {member: load("requested-en")[member] for member in ("runId", "approvalId", "planHash", "tenant")}
    return fresh(f"updated-{status}", at=at, **same | overrides)


def held(*, at: Instant, **overrides: Any) -> dict[str, Any]:
    """A `PackPolicyHold` after `hold-en`, see `fresh`."""
    return fresh("hold-en", at=at, **overrides)


def released(*, at: Instant, **overrides: Any) -> dict[str, Any]:
    """The `PackPolicyReleased` of the same hold, see `fresh`."""
    return fresh("released-en", at=at, **overrides)


def cloud_event(*, at: Instant, **overrides: Any) -> dict[str, Any]:
    """A CloudEvent of type `task.done`, with an `id` of its own."""
    return load("cloudevent-task-done") | {"id": str(uuid.uuid4()), "time": rfc3339(at)} | overrides
