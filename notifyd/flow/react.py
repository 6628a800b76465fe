"""What somebody answered to a message at a vendor's: whose it is, whether it counts, and what they are told.

A vendor vouches for an address, `[recipients]` for whose it is, and the rule by which the message was sent for
what that person may do. From there on it is a decision like any by a link.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import orjson
from attrs import evolve, frozen

from notifyd.approval.ballots import COMMENT_LIMIT, Ballot
from notifyd.config.settings import Rule
from notifyd.errors import (
    ConflictError,
    ForbiddenError,
    InputsDifferError,
    InvalidError,
    NotFoundError,
    StoreError,
    TransientError,
    WindowClosedError,
)
from notifyd.flow.standing import Right, Standing, ballot_by, look
from notifyd.metrics import Metrics
from notifyd.model import Choice, Clock, Delivery, Event, Via
from notifyd.plugin import Inbox, Reaction, ReactionReply
from notifyd.registry.channels import OpenChannel
from notifyd.registry.registry import Registry
from notifyd.render.replies import reply
from notifyd.security.links import Link
from notifyd.store import Store
from notifyd.text import clean, one_line
from notifyd.tracing import NO_TRACE, Trace

log = logging.getLogger(__name__)

_ADDRESS_LIMIT: Final = 200
_REF: Final = re.compile("[0-9a-f]{32}")


class Decide(Protocol):
    """Records a ballot, and answers, as `Decisions.decide` does."""

    async def __call__(self, ballot: Ballot, *, caller: Trace) -> bytes: ...


class Reactions:
    """What channels hand in becomes ballots for `decide`."""

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        decide: Decide,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._current = current
        self._decide = decide
        self._metrics = metrics
        self._clock = clock

    def inbox(self, channel: OpenChannel, caller: Trace = NO_TRACE) -> Inbox:
        """Where `channel` hands in what it is told, in a call of the trace `caller`. Raises as `Inbox` says."""

        async def hear(reaction: Reaction) -> ReactionReply:
            try:
                heard = await self._hear(channel, reaction, caller)
            except StoreError as error:
                raise TransientError(f"nothing can be recorded now: {error}") from error
            self._metrics.reactions.labels(heard.outcome).inc()
            return heard.reply

        return hear

    async def _hear(self, channel: OpenChannel, reaction: Reaction, caller: Trace) -> _Heard:
        registry = self._current()
        fault = _fault(reaction)
        if fault is not None:
            return _refused(fault, [None], limit=COMMENT_LIMIT)
        person = registry.person_at(channel.type, reaction.actor_ref)
        if person is None:
            log.warning("channel %s: an answer comes from an address of nobody in [recipients]", channel.name)
            address = one_line(reaction.actor_ref)[:_ADDRESS_LIMIT]
            default = registry.settings.templates.default_locale
            return _Heard("unknown", ReactionReply(reply("unknown", [default], address=address)))
        return await self._answer(channel, reaction, person, registry, caller)

    async def _answer(
        self, channel: OpenChannel, reaction: Reaction, person: str, registry: Registry, caller: Trace
    ) -> _Heard:
        # What is not a ref at all a store might not even take as a question.
        known = _REF.fullmatch(reaction.ref)
        delivery = await self._store.answered(reaction.ref) if known else None
        # What one channel was told says nothing about the messages of another, which may vouch for less.
        if delivery is None or delivery.channel != channel.name:
            return _refused("gone", _wishes(person, None, registry))
        wishes = _wishes(person, registry.rule(delivery.rule), registry)
        event, key = await self._store.event(delivery.tenant, delivery.event_key), delivery.approval_key
        approval = await self._store.approval(key) if key else None
        if event is None or approval is None:
            return _refused("gone", wishes)
        link = _link(delivery, event, person, registry, self._clock())
        if isinstance(link, str):
            return _refused(link, wishes)
        view = look(link, approval, registry, self._clock())
        if view.standing is not Standing.OPEN or view.right is None:
            return _refused(_WORDS[view.standing], wishes)
        if approval.inputs and reaction.action == Choice.APPROVED:
            return _refused("page", wishes)
        ballot = _ballot(channel, reaction, link, view.right, self._current())
        return await self._cast(ballot, link, wishes, caller)

    async def _cast(self, ballot: Ballot, link: Link, wishes: list[str | None], caller: Trace) -> _Heard:
        try:
            answer = await self._decide(ballot, caller=caller)
        except InvalidError as error:
            if [fault.pointer for fault in error.faults] == ["/comment"]:
                return _Heard("asked", ReactionReply(reply("reason", wishes), asks_reason=True))
            return _refused("page", wishes)
        except (ForbiddenError, ConflictError, NotFoundError) as error:
            return _refused(await self._why(error, link), wishes)
        return _Heard("recorded", ReactionReply(_recorded(ballot.choice, answer, wishes), recorded=True))

    async def _why(self, error: Exception, link: Link) -> str:
        """What stood in the way: an end that came meanwhile is told as what it is."""
        if isinstance(error, WindowClosedError):
            return "window"
        if isinstance(error, InputsDifferError):
            return "page"
        approval = await self._store.approval(link.key)
        standing = look(link, approval, self._current(), self._clock()).standing if approval else None
        return "refused" if standing in (None, Standing.OPEN) else _WORDS[standing]


@frozen
class _Heard:
    """`outcome` is what it is counted as."""

    outcome: str
    reply: ReactionReply


_WORDS: Final = {
    Standing.VIEW_ONLY: "page",
    Standing.SIGN_IN: "page",
    Standing.OTHER_PERSON: "page",
    Standing.NOT_CONFERRED: "not_conferred",
    Standing.OWN_REQUEST: "own_request",
    Standing.VOTED: "voted",
    Standing.REPRESENTED: "represented",
    Standing.SUPERSEDED: "superseded",
    Standing.APPROVED: "ended_approved",
    Standing.REJECTED: "ended_rejected",
    Standing.CANCELLED: "ended_cancelled",
    Standing.EXPIRED: "ended_expired",
}
"""The name of the text for each standing in which nothing can be decided."""


def _fault(reaction: object) -> str | None:
    """The name of the text that says what is wrong with what a plugin hands in, None where nothing is."""
    if not isinstance(reaction, Reaction):
        return "unclear"
    texts = (reaction.actor_ref, reaction.action, reaction.ref, reaction.text)
    if not all(isinstance(text, str) for text in texts) or reaction.action not in tuple(Choice):
        return "unclear"
    if not one_line(reaction.actor_ref):
        return "unclear"
    return "too_long" if len(clean(reaction.text)) > COMMENT_LIMIT else None


def _refused(name: str, wishes: list[str | None], **values: Any) -> _Heard:
    return _Heard("refused", ReactionReply(reply(name, wishes, **values)))


def _wishes(person: str, rule: Rule | None, registry: Registry) -> list[str | None]:
    """In which locales a person likes to be answered."""
    of_rule = rule.locale if rule else None
    return [registry.recipient(person).locale, of_rule, registry.settings.templates.default_locale]


def _link(delivery: Delivery, event: Event, person: str, registry: Registry, now: int) -> Link | str:
    """The link that `person` would have for what the message asked, or the name of the text that says why not."""
    seen, key = orjson.loads(event.body), delivery.approval_key
    if key is None or "planHash" not in seen:
        return "gone"
    on_behalf_of = _on_behalf_of(delivery, event, person, registry, now)
    if on_behalf_of is None:
        return "not_asked" if delivery.recipient is None else "other_person"
    return Link(
        tenant=key.tenant,
        run_id=key.run_id,
        approval_id=key.approval_id,
        round=event.round,
        plan_hash=seen["planHash"],
        recipient=person,
        rule=delivery.rule,
        expires_at=0,  # an approval that has ended cannot be decided, and one that has not is still asked for
        on_behalf_of=on_behalf_of or None,
    )


def _on_behalf_of(delivery: Delivery, event: Event, person: str, registry: Registry, now: int) -> str | None:
    """For whom `person` answers this message: "" for themselves, None where the message does not ask them."""
    canonical = registry.actors.canonical
    if delivery.recipient is not None:
        entry = next((one for one in event.plan or () if one.delivery_id == delivery.id), None)
        if entry is None or not entry.personal or canonical(delivery.recipient) != person:
            return None
        return entry.on_behalf_of or ""
    rule = registry.rule(delivery.rule)
    asked = rule.people if rule is not None else ()
    if person in map(canonical, asked):
        return ""
    return next((name for name in asked if registry.is_deputy(event.tenant, person, name, now)), None)


def _ballot(channel: OpenChannel, reaction: Reaction, link: Link, right: Right, registry: Registry) -> Ballot:
    return ballot_by(
        link,
        evolve(right, via=Via.CHANNEL),
        registry,
        Choice(reaction.action),
        reaction.text,
        correlation_id=os.urandom(16).hex(),
        client=f"channel:{channel.name}",
    )


def _recorded(choice: Choice, answer: bytes, wishes: list[str | None]) -> str:
    document = orjson.loads(answer)
    text = reply(choice.value, wishes)
    if document["status"] != "pending":
        return text
    progress = document["approvals"]
    return f"{text} " + reply("waiting", wishes, received=progress["received"], required=progress["required"])
