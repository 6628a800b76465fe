"""Every built-in message by an example, to look at templates with: `notifyd render --all`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from attrs import frozen

from notifyd.errors import Fault, RenderError
from notifyd.model import APPROVAL_KIND, POLICY_KIND, SECOND, Level, Message, Status
from notifyd.render.bounds import TooMuchError
from notifyd.render.locales import parse_locale, tag_of
from notifyd.render.render import Digest, DigestItem, Rendered, TemplateSet

_REQUEST: Final[Mapping[str, Any]] = {
    "kind": APPROVAL_KIND,
    "tenant": {"id": "acme", "project": "payments"},
    "runId": "run-0042",
    "approvalId": "deploy-prod",
    "packId": "pkg:oci/acme/payments@v3",
    "planHash": "sha256:" + "3fa9" * 16,
    "requiredApprovals": 2,
    "steps": [{"id": "migrate", "name": "Migrate the ledger"}, {"id": "deploy"}],
    "requestedBy": "ci@acme.example",
    "occurredAt": "2026-11-04T09:30:00Z",
    "expiresAt": "2026-11-05T09:30:00Z",
    "message": {"title": "Deploy payments v3", "summary": "A rollback takes about ten minutes."},
    "labels": {"environment": "production", "team": "payments"},
    "parameters": {"replicas": 3, "region": "eu-central-1"},
    "policy": {"id": "prod-deploy", "version": "1.2.3", "messages": ["Production needs two approvals."]},
    "round": 1,
}
_VOTE: Final = {"actor": "bob@acme.example", "decidedAt": "2026-11-04T10:00:00Z", "comment": "Looks good."}


def _decided(choice: str, status: str, received: int) -> dict[str, Any]:
    return {"decision": {**_VOTE, "decision": choice}, "status": status, "approvals": _progress(received)}


def _progress(received: int) -> dict[str, int]:
    return {"received": received, "required": 2}


def _timed(step: str, waited: int) -> dict[str, Any]:
    since = _REQUEST["occurredAt"]
    return {
        "timer": {
            "rule": "approvals",
            "step": step,
            "since": since,
            "waited": waited,
            "left": 86_400 - waited,
        }
    }


def _about(action: str, **facts: Any) -> dict[str, Any]:
    return {**_REQUEST, "action": action, **facts}


_APPROVALS: Final[Mapping[str, Mapping[str, Any]]] = {
    "requested": _about("requested"),
    "requested again": _about("requested", round=2),
    "reminded": _about("reminded", **_timed("2h", 7200), status="pending", approvals=_progress(1)),
    "escalated": _about("escalated", **_timed("1h", 3600), status="pending", approvals=_progress(0)),
    "one vote of two": _about("acknowledged", **_decided("approved", "pending", 1)),
    "approved": _about("acknowledged", **_decided("approved", "approved", 2)),
    "rejected": _about("acknowledged", **_decided("rejected", "rejected", 0)),
    "expired": _about("expired", status="expired", approvals=_progress(0)),
    "cancelled": _about("updated", status="cancelled", decidedBy="ci@acme.example"),
    "resumed": _about("resumed", status="approved", resume={"status": "delivered"}),
    "not resumed": _about(
        "resume_failed",
        status="approved",
        resume={"status": "failed", "reason": "rejected", "answered": 400},
    ),
}
_POLICIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "held": _about("hold", kind=POLICY_KIND),
    "released": _about("released", kind=POLICY_KIND),
}
_EVENT: Final[Mapping[str, Any]] = {
    "kind": "task.done",
    "tenant": {"id": "acme"},
    "source": "/task-runner",
    "subject": "run-0042",
    "time": "2026-11-04T09:30:00Z",
    "data": {"title": "Nightly build", "message": "All 214 tests passed.", "seconds": 731},
}
_TEST: Final[Mapping[str, Any]] = {"channel": "team-chat", "occurredAt": "2026-11-04T09:30:00Z"}
_DIGEST: Final = Digest(
    3,
    tuple(DigestItem(f"Deploy service {n}", None, Level.INFO) for n in (1, 2)),
    1_793_779_200 * SECOND,
    1_793_779_290 * SECOND,
    "stages",
)


@frozen
class Sample:
    """A template in one locale over one example: the message, or why it cannot be rendered.

    `vendor` is the block that wrote its body, where that is one for a type of channel.
    """

    template: str
    locale: str
    example: str
    message: Message | None
    fault: str = ""
    vendor: str = ""


def events() -> Iterator[Mapping[str, Any]]:
    """An example of each event that rules see."""
    yield from _APPROVALS.values()
    yield from _POLICIES.values()
    yield _EVENT


def all_samples(
    templates: TemplateSet, link: str, mine: str, wished: tuple[str, ...] = ()
) -> Iterator[Sample]:
    """Each template in each locale that any template, or a reader (`wished`), has, over each example it is for.

    So is each of its blocks for one type of channel. `link` and `mine` are the addresses that messages lead to.
    """
    for name in templates.names:
        for locale, vendor in _variants(templates, name, _locales(templates, wished)):
            for example, event in _examples(name).items():
                rendered = _rendered(templates, name, locale, example, event, vendor, link, mine)
                if isinstance(rendered, RenderError):
                    yield Sample(name, locale, example, None, rendered.detail, vendor)
                else:
                    yield Sample(name, locale, example, rendered.message("", None, event), "", vendor)


def missing(templates: TemplateSet, wished: tuple[str, ...] = ()) -> list[str]:
    """Which template, or which of its blocks, is not written in which of the languages there are, a line each."""
    languages = {tag.partition("-")[0] for tag in _locales(templates, wished)}
    gaps = [
        f"{name} is not written in {language}: its readers get {templates.default_locale}"
        for name in templates.names
        for language in sorted(languages - {tag.partition("-")[0] for tag in templates.locales(name)})
    ]
    return [*gaps, *_missing_blocks(templates)]


def _missing_blocks(templates: TemplateSet) -> Iterator[str]:
    for name in templates.names:
        found = {locale: set(templates.vendors(name, locale)) for locale in templates.locales(name)}
        every = set().union(*found.values())
        for locale, own in found.items():
            for block in sorted(every - own):
                yield f"{name} has no block {block} in {locale}: its readers get the general body"


def _variants(templates: TemplateSet, name: str, locales: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each locale with each of the blocks that can write the body there; "" is the general one."""
    for locale in locales:
        yield locale, ""
        yield from ((locale, block) for block in templates.vendors(name, locale))


def costly(templates: TemplateSet) -> Iterator[Fault]:
    """The templates that ask for more than a message may cost over an example, each by its first."""
    for name in templates.names:
        samples = (
            _rendered(templates, name, locale, example, event, vendor)
            for locale, vendor in _variants(templates, name, templates.locales(name))
            for example, event in _examples(name).items()
        )
        failed = (one for one in samples if isinstance(one, RenderError))
        error = next((one for one in failed if isinstance(one.__cause__, TooMuchError)), None)
        if error is not None:
            yield Fault(f"{error.template}:{error.line}", f"costs too much: {error.__cause__}")


def _locales(templates: TemplateSet, wished: tuple[str, ...]) -> list[str]:
    written = {tag for name in templates.names for tag in templates.locales(name)}
    read = {tag_of(locale) for wish in wished if (locale := parse_locale(wish)) is not None}
    return sorted(written | read)


def _examples(template: str) -> Mapping[str, Mapping[str, Any]]:
    if template == "channel-test":
        return {"test": _TEST, "drill": {**_TEST, "drill": True}}
    if template == "event":
        return {"event": _EVENT}
    if template == "digest" or template.endswith("-digest"):
        return {"digest": _REQUEST}
    if template == "pack-policy":
        return _POLICIES
    return _APPROVALS if template == "pack-approval" else {**_APPROVALS, "event": _EVENT}


def _rendered(
    templates: TemplateSet,
    name: str,
    locale: str,
    example: str,
    event: Mapping[str, Any],
    vendor: str,
    link: str | None = None,
    mine: str | None = None,
) -> Rendered | RenderError:
    asked = event.get("action") == "requested" or event.get("status") == Status.PENDING
    digest = _DIGEST if example == "digest" else None
    approval = event.get("kind") == APPROVAL_KIND
    try:
        return templates.render(
            name,
            locale,
            event=event,
            link=link if approval and digest is None else None,
            mine=mine if approval else None,
            can_decide=asked,
            digest=digest,
            channel_type=vendor,
        )
    except RenderError as error:
        return error
