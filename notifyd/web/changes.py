"""Reading an approval once it has changed: what a change is, and waiting for one."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import ETag, web

from notifyd.config.units import SECOND, Duration, parse_duration, show_duration
from notifyd.errors import NotFoundError
from notifyd.flow.watch import Watch
from notifyd.model import Approval, ApprovalKey
from notifyd.web.lists import read_query
from notifyd.web.services import SERVICES
from notifyd.wire.codec import derived_id

LONGEST_WAIT: Final = Duration(60 * SECOND)
"""Of one request, in microseconds."""

_PRESENCE: Final = 1.0
"""Seconds between looks whether the caller is still there."""


def state_tag(approval: Approval) -> str:
    """Names what a caller waits for: another tag is a change.

    These are status, round, plan, votes, whether these can be taken back, and how the callback stands.
    Effects that are completed behind the scenes give an approval a new version, and no new tag.
    """
    votes = [decision.decision_hash for decision in approval.decisions]
    key = approval.tenant, approval.run_id, approval.approval_id
    state = approval.round, approval.plan_hash, approval.status.value
    callback = approval.resume.value, approval.resume_delivery or ""
    return derived_id("approval-state", *key, *state, *callback, len(approval.undoable), *votes)[:32]


def wait_of(request: web.Request) -> float:
    """The seconds that `wait` asks for. Raises `InvalidQueryError`."""
    return float(read_query(request.query, {"wait": _wait}).get("wait", 0) / SECOND)


def _wait(text: str) -> int:
    wait = parse_duration(text)
    if wait > LONGEST_WAIT:
        raise ValueError(f"must be at most {show_duration(LONGEST_WAIT)}; ask again to wait longer")
    return wait


async def find(request: web.Request, key: ApprovalKey) -> Approval:
    """Raises `NotFoundError`."""
    approval = await request.app[SERVICES].store.approval(key)
    if approval is None:
        raise NotFoundError("no such approval")
    return approval


async def find_changed(request: web.Request, key: ApprovalKey, client: str, seconds: float) -> Approval:
    """The approval once it is not what the caller knows, or as it is after `seconds`.

    A caller knows what `If-None-Match` names. One that names nothing waits for a change from now on, of an
    approval that is pending: of one that has ended it is told at once.

    Raises `NotFoundError`, `TooManyWaitingError`.
    """
    if not seconds:
        return await find(request, key)
    # The place is taken before the approval is read: what changes in between wakes it.
    with request.app[SERVICES].watches.place(key, client) as watch:
        approval = await find(request, key)
        known = known_tags(request)
        if not known and approval.status.ended and not approval.undoable:
            return approval
        return await _next(request, approval, known or frozenset([state_tag(approval)]), watch, seconds)


async def _next(
    request: web.Request, approval: Approval, known: frozenset[str], watch: Watch, seconds: float
) -> Approval:
    services, time = request.app[SERVICES], asyncio.get_running_loop().time
    until = time() + seconds
    while _knows(known, approval) and (left := until - time()) > 0:
        if services.draining() or request.transport is None:  # the caller has gone
            break
        if await watch.woken(min(left, _PRESENCE)):
            approval = await find(request, approval.key)
    return approval


def known_tags(request: web.Request) -> frozenset[str]:
    """What `If-None-Match` names, by RFC 9110, section 13.1.2: compared weakly."""
    return frozenset(tag.value for tag in request.if_none_match or ())


def _knows(known: frozenset[str], approval: Approval) -> bool:
    return "*" in known or state_tag(approval) in known


def not_modified(request: web.Request, approval: Approval) -> bool:
    """Does the caller know the approval as it is?"""
    return _knows(known_tags(request), approval)


def tagged(response: web.Response, approval: Approval) -> web.Response:
    """`response` with the tag of what it shows. Weak: the history beside it may have become longer."""
    response.etag = ETag(state_tag(approval), is_weak=True)
    return response
