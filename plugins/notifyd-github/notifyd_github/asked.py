"""What GitHub asks, and what it is told: pure functions of a payload, and of an end.

Vendor's rules: https://docs.github.com/en/webhooks/webhook-events-and-payloads#deployment_protection_rule,
https://docs.github.com/en/rest/actions/workflow-runs#review-custom-deployment-protection-rules-for-a-workflow-run
(the answer: `environment_name`, `state`, `comment`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from attrs import frozen

from notifyd.plugin import fit, one_line

COMMENT_LIMIT: Final = 1024
_NAME_LIMIT: Final = 255
_REPOSITORY: Final = re.compile(r"(?!\.+/)[A-Za-z0-9._-]{1,100}/(?!\.+$)[A-Za-z0-9._-]{1,100}")
_CALLBACK: Final = re.compile(r"/repos/([^/]+/[^/]+)/actions/runs/([0-9]{1,19})/deployment_protection_rule$")
_MEANING: Final = re.compile(r"[\\`*_~\[\]<>|&$]")
_REFERENCE: Final = re.compile(r"[@#](?=\w)")
_JOINER: Final = "\u2060"
"""Not seen, and no part of a name or number: a mention and a reference cannot be escaped."""


@frozen
class Waiting:
    """What waits at GitHub, as far as it takes to answer: kept sealed until the end."""

    repository: str
    run: int
    environment: str
    installation: int

    @property
    def path(self) -> str:
        return f"/repos/{self.repository}/actions/runs/{self.run}/deployment_protection_rule"

    @property
    def reviews(self) -> str:
        return f"/repos/{self.repository}/actions/runs/{self.run}/approvals"

    def kept(self) -> str:
        return json.dumps(attrs.asdict(self))

    @classmethod
    def read(cls, kept: str) -> Waiting:
        """Raises ValueError or TypeError."""
        return cls(**json.loads(kept))


def waiting(payload: Mapping[str, Any]) -> Waiting:
    """Who asks. The address to answer is made from it, and never taken from a payload. Raises ValueError."""
    repository = _text(payload, "repository", "full_name")
    called = _CALLBACK.search(_text(payload, "deployment_callback_url"))
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError("repository.full_name is not OWNER/NAME")
    if called is None or called[1].lower() != repository.lower():
        raise ValueError("deployment_callback_url is not that of a run of this repository")
    environment = _text(payload, "environment")
    if len(environment) > _NAME_LIMIT:
        raise ValueError("environment is longer than GitHub's names are")
    return Waiting(repository, int(called[2]), environment, _number(payload, "installation", "id"))


def event(payload: Mapping[str, Any], body: bytes, gate: str) -> dict[str, Any]:
    """The request for an approval. `body` is what the signature covers, `gate` the gate's name.

    The delivery's id stands in a header that nothing signs, so the event's id is made from the body: what is
    delivered again, by GitHub or by somebody who has seen it, is the same event. Raises ValueError.
    """
    asks, deployment = waiting(payload), _number(payload, "deployment", "id")
    sha, ref = _text(payload, "deployment", "sha"), _text(payload, "deployment", "ref")
    plan = [asks.repository, asks.run, asks.environment, deployment, sha]
    return {
        "type": "PackApprovalRequested",
        "eventId": f"github:{hashlib.sha256(body).hexdigest()}",
        "occurredAt": _text(payload, "deployment", "created_at"),
        "runId": f"{gate}:{asks.run}",
        "approvalId": f"deployment:{deployment}",
        "planHash": f"sha256:{hashlib.sha256(json.dumps(plan).encode()).hexdigest()}",
        "packId": asks.repository,
        "requestedBy": f"github:{_text(payload, 'sender', 'login')}",
        "message": {"title": f"Deploy {asks.repository} to {one_line(asks.environment)}"},
        "labels": {"environment": asks.environment, "repository": asks.repository, "ref": ref},
        "parameters": {"commit": sha, "ref": ref} | _trigger(payload),
        "links": _links(payload, asks.run),
        "resume": {"token": asks.kept()},
    }


def _trigger(payload: Mapping[str, Any]) -> dict[str, str]:
    """What began the workflow, such as `push`; it is null for some."""
    trigger = payload.get("event")
    return {"trigger": trigger} if isinstance(trigger, str) and trigger else {}


def _links(payload: Mapping[str, Any], run: int) -> list[dict[str, str]]:
    """The run's page. Readers are shown https only."""
    page = _text(payload, "repository", "html_url")
    return [{"rel": "run", "href": f"{page}/actions/runs/{run}"}] if page.startswith("https://") else []


def answer(data: Mapping[str, Any], asks: Waiting) -> dict[str, str]:
    """The request's body for an end, `data` of `pack.approval.decided`. Silence rejects."""
    approved = data["decision"] == "approved"
    return {
        "environment_name": asks.environment,
        "state": "approved" if approved else "rejected",
        "comment": _comment(data, approved),
    }


def is_told(reviews: Sequence[Any], told: Mapping[str, str]) -> bool:
    """Is this answer, word for word, in a run's history?"""
    return any(
        isinstance(one, Mapping)
        and (one.get("state"), one.get("comment")) == (told["state"], told["comment"])
        and told["environment_name"] in _names(one.get("environments"))
        for one in reviews
    )


def _names(environments: object) -> list[object]:
    found = environments if isinstance(environments, list) else []
    return [one.get("name") for one in found if isinstance(one, Mapping)]


def _comment(data: Mapping[str, Any], approved: bool) -> str:
    if data["decision"] == "expired":
        return f"Rejected: nobody decided until {data['decidedAt']}, when the request expired."
    people = ", ".join(_person(actor, data) for actor in data["actors"])
    alone = ", past all others (break-glass)" if data.get("breakGlass") else ""
    said = f": {one_line(data['comment'])}" if data.get("comment") else ""
    return fit(
        f"{'Approved' if approved else 'Rejected'} by {people}{alone}{said}", COMMENT_LIMIT, escape=escape
    )


def _person(actor: str, data: Mapping[str, Any]) -> str:
    stands_for = data.get("onBehalfOf", {}).get(actor)
    return f"{actor} for {stands_for}" if stands_for else actor


def escape(text: str) -> str:
    """Plain text as GitHub's Markdown: nothing in it is formatted, nobody is mentioned."""
    return _REFERENCE.sub(lambda found: found[0] + _JOINER, _MEANING.sub(r"\\\g<0>", text))


def _text(payload: Mapping[str, Any], *path: str) -> str:
    value = _at(payload, path)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{'.'.join(path)} is not a text")
    return value


def _number(payload: Mapping[str, Any], *path: str) -> int:
    value = _at(payload, path)
    if type(value) is not int or value <= 0:
        raise ValueError(f"{'.'.join(path)} is not a number")
    return value


def _at(payload: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: Any = payload
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
