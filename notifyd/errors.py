"""Every fault notifyd raises on purpose: one base class, a stable `code` on each, data on the exception.

`web/problems.py` is the one place that turns these into HTTP; each command of `cli/` turns them into an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import ClassVar, Final

from attrs import frozen


class NotifydError(Exception):
    """Base of all faults raised on purpose. `code` is part of the interface and never changes."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


# --- what a reader of input found -------------------------------------------------------------------------


@frozen
class Fault:
    """One thing wrong with an input. `pointer` is a JSON pointer (RFC 6901) or a dotted config path."""

    pointer: str
    message: str

    def __str__(self) -> str:
        return f"{self.pointer or '(document)'}: {self.message}"


class FaultsError(NotifydError):
    """An input with one or more faults, all of them reported at once."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, self.faults)))


class ConfigError(FaultsError):
    """The configuration cannot be used. `faults[].pointer` is a dotted path such as `channels.mail.host`."""

    code = "config_invalid"


class MalformedError(NotifydError):
    """The body is not JSON at all, no form where one is expected, or breaks off (HTTP 400)."""

    code = "malformed_json"


class InvalidError(FaultsError):
    """The body is JSON and breaks the contract (HTTP 422)."""

    code = "invalid_event"


class TooOldError(FaultsError):
    """`occurredAt` is older than what is kept, so a duplicate could not be told from a new event (HTTP 422)."""

    code = "too_old"


# --- who is calling, and may they -------------------------------------------------------------------------


class UnauthenticatedError(NotifydError):
    """The caller is not known (HTTP 401)."""

    code = "unauthenticated"


class SignatureRequiredError(UnauthenticatedError):
    """This endpoint takes a signature or a client certificate; a bearer alone is not enough (HTTP 401)."""

    code = "signature_required"


class SignatureInvalidError(UnauthenticatedError):
    """The signature does not match, or its timestamp is outside the tolerance (HTTP 401)."""

    code = "signature_invalid"


class CertificateInvalidError(UnauthenticatedError):
    """The caller's certificate proves no client, or no longer does (HTTP 401)."""

    code = "certificate_invalid"


class ForbiddenError(NotifydError):
    """The caller is known and may not do this (HTTP 403)."""

    code = "forbidden"


class ScopeMissingError(ForbiddenError):
    code = "scope_missing"


class TenantMismatchError(ForbiddenError):
    code = "tenant_mismatch"


class ActorNotAllowedError(ForbiddenError):
    code = "actor_not_allowed"


class GrantMissingError(ForbiddenError):
    code = "grant_missing"


class SelfApprovalError(ForbiddenError):
    code = "self_approval"


# --- what stands in the way -------------------------------------------------------------------------------


class NotFoundError(NotifydError):
    """No such thing for this tenant (HTTP 404)."""

    code = "not_found"


class ConflictError(NotifydError):
    """The request contradicts what is stored (HTTP 409)."""

    code = "conflict"


class EventIdConflictError(ConflictError):
    """An event's id is known with another content. `faults` names each such event of a batch."""

    code = "event_id_conflict"

    def __init__(self, detail: str, faults: Iterable[Fault] = ()) -> None:
        super().__init__(detail)
        self.faults = tuple(faults)


class AlreadyDecidedError(ConflictError):
    code = "already_decided"


class ExpiredError(ConflictError):
    code = "expired"


class PlanChangedError(ConflictError):
    code = "plan_changed"


class AlreadyVotedError(ConflictError):
    code = "already_voted"


class WindowClosedError(ConflictError):
    """Approving is possible at other hours only; `detail` says from when on."""

    code = "window_closed"


class InputsDifferError(ConflictError):
    """Whoever approved first filled in something else."""

    code = "inputs_differ"


class NoSigningKeyError(ConflictError):
    """What is asked for is signed, and `keys.sign` is empty."""

    code = "no_signing_key"


class TooManySilencesError(ConflictError):
    """A tenant has as many silences as it may have that are not over."""

    code = "too_many_silences"


class NotRetryableError(ConflictError):
    """A delivery that is not dead, or has no message and can be given none, cannot be retried by hand."""

    code = "not_retryable"


class ChannelFailedError(NotifydError):
    """A channel did not take a test message; `detail` is its own reason (HTTP 502)."""

    code = "channel_failed"


class TooLargeError(NotifydError):
    """HTTP 413."""

    code = "too_large"


class UnsupportedMediaError(NotifydError):
    """HTTP 415."""

    code = "unsupported_media_type"


class UnavailableError(NotifydError):
    """Not now; try again after `retry_after` seconds (HTTP 503)."""

    code = "unavailable"

    def __init__(self, detail: str, *, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class StoppingError(UnavailableError):
    """The daemon is being stopped and takes on nothing new (HTTP 503)."""

    def __init__(self) -> None:
        super().__init__("notifyd is being stopped", retry_after=5.0)


class StoreError(UnavailableError):
    """The store could not take or give data: full disk, locked or corrupt file, lost connection (HTTP 503)."""

    code = "store_unavailable"


class StoreUnusableError(StoreError):
    """The store's file is corrupt, not in its place, or not one of this notifyd's: only an operator can help."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after=30.0)


class ListTimeoutError(UnavailableError):
    """A list was not there in its time, or waited for others for so long (HTTP 503)."""

    code = "list_timeout"

    def __init__(self) -> None:
        super().__init__("the list took too long: ask again later, or narrow it by a filter", retry_after=5.0)


class JobTakenError(UnavailableError):
    """Another node of the service does this for all of them at the moment (HTTP 503)."""

    code = "job_taken"


class OverloadedError(UnavailableError):
    """The caller's tenant has its share of the backlog waiting already (HTTP 429)."""

    code = "overloaded"


class TooManyWaitingError(UnavailableError):
    """The client has as many requests waiting for a change as it may have (HTTP 429)."""

    code = "too_many_waiting"


class BacklogFullError(UnavailableError):
    """The backlog is full, whoever has filled it (HTTP 503)."""

    code = "backlog_full"


class StoreInUseError(NotifydError):
    """Another process owns the store (start-up)."""

    code = "store_in_use"


class StoreMissingError(NotifydError):
    """There is no store where `store.url` names one, and none may be made (start-up, commands)."""

    code = "store_missing"

    def __init__(self, place: object) -> None:
        super().__init__(f"{place}: no store is there: restore it, or correct store.url")


class StoreOutdatedError(NotifydError):
    """The store has the schema of an earlier notifyd, and whoever opens it may not change that (commands)."""

    code = "store_outdated"

    def __init__(self, place: object, found: int, known: int) -> None:
        super().__init__(
            f"{place}: has schema {found}, and the service of this version changes it to {known} at its start. "
            "Nothing changes it back: make a backup first"
        )


class UndecodableRowError(NotifydError):
    """A stored row that this notifyd cannot read, which is left as it is (HTTP 500).

    `detail` names the row, and what is wrong with it, without what it holds.
    """

    code = "undecodable_row"


class ArchiveError(NotifydError):
    """A file of exported rows that is not whole, not one, or needs keys that are not configured."""

    code = "archive_broken"


class SealError(NotifydError):
    """A sealed value does not open under any configured key, or was changed."""

    code = "seal_broken"


class PluginError(NotifydError):
    """A plugin does not load or breaks a hook's shape. `plugin` names it."""

    code = "plugin_broken"

    def __init__(self, plugin: str, detail: str) -> None:
        super().__init__(f"plugin {plugin!r}: {detail}")
        self.plugin = plugin


class RenderError(NotifydError):
    """A template failed on an event. `template` is its file, `line` where in it (0: not known)."""

    code = "render_failed"

    def __init__(self, template: str, line: int, locale: str, detail: str) -> None:
        place = f"{template}:{line}" if line else template
        super().__init__(f"template {place}, locale {locale}: {detail}")
        self.template = template
        self.line = line
        self.locale = locale


# --- how an attempt to deliver failed ----------------------------------------------------------------------


class Reason(StrEnum):
    """Why an attempt failed: a closed set, used as the `outcome` label of the attempt metrics.

    The first block is transient, the second permanent, the third notifyd's own verdict on a delivery.
    """

    NETWORK = "network"
    TIMEOUT = "timeout"
    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    CHANNEL_FAULT = "channel_fault"
    MAILBOX_FULL = "mailbox_full"
    EGRESS_REFUSED = "egress_refused"

    REJECTED = "rejected"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    TOO_LARGE = "too_large"
    POLICY = "policy"
    UNSUPPORTED = "unsupported"

    MAX_ATTEMPTS = "max_attempts"
    MAX_AGE = "max_age"
    CHANNEL_MISSING = "channel_missing"
    NOT_ALLOWED = "not_allowed"
    SECRET_MISSING = "secret_missing"  # nosec B105 # noqa: S105 - a reason
    RENDER_FAILED = "render_failed"


ATTEMPT_REASONS: Final = tuple(Reason)[: list(Reason).index(Reason.MAX_ATTEMPTS)]
"""Those that an attempt can end with."""


class DeliveryError(NotifydError):
    """Base of the two verdicts an attempt can end with when it did not succeed."""

    def __init__(self, detail: str, *, reason: Reason, status: int | None = None, excerpt: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.status = status
        self.excerpt = excerpt


class TransientError(DeliveryError):
    """Try again later: network faults, 408, 425, 429, 5xx. `retry_after` is seconds the receiver asked for."""

    code = "transient"

    def __init__(
        self,
        detail: str,
        *,
        reason: Reason = Reason.NETWORK,
        retry_after: float | None = None,
        status: int | None = None,
        excerpt: str = "",
    ) -> None:
        super().__init__(detail, reason=reason, status=status, excerpt=excerpt)
        self.retry_after = retry_after


class PermanentError(DeliveryError):
    """Trying again cannot help: the delivery is dead at once, with the reason."""

    code = "permanent"

    def __init__(
        self, detail: str, *, reason: Reason = Reason.REJECTED, status: int | None = None, excerpt: str = ""
    ) -> None:
        super().__init__(detail, reason=reason, status=status, excerpt=excerpt)
