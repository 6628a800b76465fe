"""What members mean, for readers of the contract: all that comes in, and what else its name leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

TEXTS: Final[Mapping[str, str]] = {
    # --- events
    "PackEvent.type": "Which of the four events it is.",
    "PackEvent.eventId": (
        "The event's own id. Sent again with the same content it is a duplicate, with other content a conflict."
    ),
    "PackEvent.occurredAt": (
        "When it happened. It orders rounds, and Hold against Released; it may be neither far ahead nor too old."
    ),
    "PackEvent.tenant": "One of the tenants of the client that signs.",
    "PackEvent.runId": "The run that waits.",
    "PackEvent.approvalId": "The approval, one of its run.",
    "PackEvent.planHash": "What people approve: a request with another one asks them anew.",
    "PackEvent.packId": "The pack that the run is of.",
    "PackEvent.requiredGrants": "Every one of them must be held by whoever decides.",
    "PackEvent.requiredApprovals": "How many distinct people have to approve; one rejection rejects.",
    "PackEvent.approvalGroups": (
        "Groups of which so many distinct people have to approve, each counting in one group; at most 20, each "
        "with a name of its own, for at most 100 people together. Whoever holds no group's grant does not decide. "
        "`requiredApprovals` is then the least number in all."
    ),
    "PackEvent.inputs": (
        "What people are asked to fill in as they approve: at most 20, each with a name of its own, at most 10 "
        "with a pattern."
    ),
    "ApprovalInput.name": "By what it is called in `inputs` of a decision and of the callback.",
    "ApprovalInput.type": "What is filled in: one line of text, a number, one of the choices, or true or false.",
    "ApprovalInput.label": "What readers are shown; by default the name.",
    "ApprovalInput.required": "Nobody approves without it.",
    "ApprovalInput.pattern": (
        "For `text`: what all of the text must match, in RE2's syntax, without look-around and back-references."
    ),
    "ApprovalInput.choices": "For `choice`: what can be chosen, 1 to 50 items.",
    "ApprovalInput.default": "What is proposed, and stands in where a decision leaves it out.",
    "ApprovalGroup.name": "What readers are shown.",
    "ApprovalGroup.grant": "Held by whoever counts in the group.",
    "ApprovalGroup.required": "How many people.",
    "PackEvent.links": "Addresses that readers may want, up to 10: links on the page and in messages.",
    "EventLink.rel": "What it leads to; `run` is the run.",
    "EventLink.href": "An https address without a user's name.",
    "EventLink.title": "What readers are shown; by default the address.",
    "PackEvent.steps": "What the plan would do, in order.",
    "PackEvent.requestedBy": "Who asked, and so does not decide; the client that posts it, if left out.",
    "PackEvent.expiresAt": "From when on nobody can decide any more; by the service's configuration, if left out.",
    "PackEvent.message": "What people are told, beside what the templates say.",
    "PackEvent.labels": "For rules to choose by.",
    "PackEvent.parameters": "What the run was started with; shown with secrets taken out.",
    "PackEvent.policy": "The policy behind it.",
    "PackEvent.resume": "Where the decision goes.",
    "PackApprovalUpdated.status": "How the approval ended.",
    "PackApprovalUpdated.decidedBy": "Who ended it.",
    "Tenant.id": "The tenant's id.",
    "Tenant.project": "A part of the tenant.",
    "Step.id": "The step's id.",
    "Step.name": "What readers are shown.",
    "MessageWish.template": "A template's name; one that is not there falls back to the rule's.",
    "MessageWish.locale": "The language to write in, where neither the reader nor the rule has one.",
    "MessageWish.title": "The headline.",
    "MessageWish.summary": "A few sentences.",
    "Policy.id": "The policy's id. Hold and Released of one policy belong together.",
    "Policy.version": "The policy's version.",
    "Policy.messages": "What the policy says about this run.",
    "Resume.callbackUrl": "Where the decision is posted. Its origin must be one that the service allows.",
    "Resume.token": "Handed back with the decision. It is sealed at rest and shown to nobody.",
    "CloudEvent.specversion": "The version of CloudEvents.",
    "CloudEvent.id": "Unique for its source. Sent again with the same content it is a duplicate.",
    "CloudEvent.source": "Where it comes from.",
    "CloudEvent.type": "What rules see as the event's kind.",
    "CloudEvent.subject": "What it is about.",
    "CloudEvent.time": "When it happened; when it came, if left out.",
    "CloudEvent.datacontenttype": "The media type of the data.",
    "CloudEvent.dataschema": "Where the data's schema is.",
    "CloudEvent.data": "The event's data; `level` and `title` in it are those of the message.",
    "CloudEvent.data_base64": "The data as bytes, in place of `data`.",
    "CloudEvent.tenant": "The tenant. Required in a signed body, and of a client that has several.",
    # --- requests
    "AckRequest.decision": "What is decided.",
    "AckRequest.planHash": "The plan that was looked at; refused where it is not the present one.",
    "AckRequest.round": "The round that was looked at; required once there was more than one.",
    "AckRequest.actor": (
        "Who decides: the client itself, if left out, else a name that it may act as. A JWT is its person's."
    ),
    "AckRequest.onBehalfOf": "For whom the actor stands in, where the configuration makes them a deputy today.",
    "AckRequest.comment": "Why. The first comment on a decision stays.",
    "AckRequest.inputs": (
        "What is filled in, by name: a default stands in for what is left out, and null is no value. It goes with "
        "approving only."
    ),
    "AckRequest.breakGlass": (
        "Ends the approval as approved, whatever its quorum. It takes the grant `Packs.BreakGlass` and a comment."
    ),
    "AckRequest.tenant": "As the header names it.",
    "AckRequest.runId": "As the path says.",
    "AckRequest.approvalId": "As the path says.",
    "SilenceRequest.when": "CEL over `event`, as a rule's `when`: compiled and bounded in cost as that is.",
    "SilenceRequest.reason": "Why, for those who read it later: 1 to 500 characters.",
    "SilenceRequest.endsAt": "After `startsAt`, and within 366 days: an RFC 3339 time.",
    "SilenceRequest.startsAt": "An RFC 3339 time; at once, where it is left out or over.",
    "SilenceRequest.approvals": "Hold what is about an approval too; else all of that is told as ever.",
    "TrialRequest.recipient": "Required for a personal channel, refused for any other.",
    "PurgeRequest.dryRun": "Only count.",
    "PurgeRequest.cursor": "The `nextCursor` of the answer before: go on there.",
    "LogLevelRequest.level": "What is wanted.",
    "ResealRequest.cursor": "The `nextCursor` of the answer before: go on there.",
    # --- answers
    "Accepted.outcome": "What the event did.",
    "Accepted.round": "The approval's round that it belongs to; 0 for a hold.",
    "AckAnswer.status": "The approval's status after this decision.",
    "AckResume.deliveryId": "The callback's line of the ledger; null before the end.",
    "AckResume.token": (
        "A compact JWE (`dir`, `A256GCM`); null before the end, and where the client has no signing secret."
    ),
    "Decided.decisionHash": (
        "Identifies the decision: SHA-256, in hexadecimal digits, of the canonical JSON (RFC 8785) of [tenant,"
        " runId, approvalId, round, planHash, decision, actor]."
    ),
    "DecisionData.decision": "`expired` where nobody decided in time: nothing is approved by silence.",
    "DecisionData.decisionHash": (
        "Identifies the end, as in the answer to the ack; of an expiry, with `expired` for the decision and an"
        " empty actor."
    ),
    "DecisionData.comment": "That of the last decision; empty where it expired.",
    "DecisionData.decidedAt": (
        "When the last decision came; of an expiry, `expiresAt` or, where the request came later, when it came."
    ),
    "DecisionData.correlationId": "That of the request.",
    "DecisionData.resumeToken": "The request's `resume.token`.",
    "Approval.round": "Counted from 1; a request with another plan opens the next.",
    "Approval.expiresAt": "From when on nobody can decide any more.",
    "Approval.endedBy": "The actor, or `notifyd` for an expiry.",
    "ApprovalResume.reason": "Why it waits, or has failed; null in a list, which looks up no callbacks.",
    "Approval.decisions": (
        "In order. Only those of the present round count; before them stand, where one approval is shown, the"
        " newest 200 of earlier rounds."
    ),
    "RecordedDecision.via": "The way it came in.",
    "Delivery.channel": "The channel's name; `resume` for a callback.",
    "Delivery.rule": "The rule that chose the channel; empty for a callback.",
    "Delivery.seq": "The approval's version: of one approval, channel and recipient a smaller one goes first.",
    "Delivery.tries": "Attempts since the plan, or since the last retry by hand.",
    "Delivery.createdAt": "When it was planned or, where it was held and left as itself, let go.",
    "Delivery.nextAttemptAt": "Null once it has ended.",
    "Delivery.reason": "Why it is dead, or the fault of its last attempt.",
    "Delivery.waitsFor": "What holds it while it is pending, as far as the answering node can tell.",
    "Delivery.foldedInto": "The delivery of the digest that tells of it.",
    "Dead.name": "Of an effect `resume`, `notice` or `audit`; of a delivery its channel.",
    "Dead.fault": "What went wrong the last time.",
    "Attempt.status": "The HTTP status the receiver answered, where it speaks HTTP.",
    "Channel.rateLimit": "Such as `1/s`; null for none.",
    "Channel.timeout": "Such as `10s`.",
    "JsonWebKey.kty": "`OKP`.",
    "JsonWebKey.crv": "`Ed25519`.",
    "JsonWebKey.x": "The key in base64url. In standard base64, behind `whpk_`, it is Standard Webhooks'.",
    "JsonWebKey.kid": "The key's thumbprint (RFC 7638).",
    "JsonWebKey.use": "`sig`.",
    "JsonWebKey.alg": "`EdDSA`.",
    "Problem.type": "`urn:notifyd:problem:` and the code.",
    "Problem.code": "Stable: what a program goes by.",
    "Problem.detail": "For people.",
    "Notification.timestamp": "The event's `occurredAt`; null where the message is about no event in time.",
}
"""By record and member. What is said of a record holds for those made after it."""


def member_text(cls: type[Any] | None, member: str) -> str:
    """What the member of a record means, "" where its name says it all."""
    bases = cls.__mro__ if cls is not None else ()
    return next((TEXTS[key] for base in bases if (key := f"{base.__name__}.{member}") in TEXTS), "")
