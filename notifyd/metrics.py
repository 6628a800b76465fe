"""The numbers notifyd exports: one class that takes a registry. Labels are bounded, never an id or a URL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from functools import cache
from math import inf, nan
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from notifyd import __version__
from notifyd.errors import ATTEMPT_REASONS, BacklogFullError, OverloadedError, StoreError
from notifyd.model import APPROVAL_KIND, POLICY_KIND, AttemptOutcome, Outcome, State, Status, Wait

_FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SLOW: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_HUMAN: Final = (1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 3 * 86400, 7 * 86400)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

OTHER: Final = "other"

_DRILLED: Final = {True: "sent", False: "failed"}
"""How a fire drill ends, by whether its message arrived."""

EVENT_REFUSALS: Final = (OverloadedError, BacklogFullError, StoreError)
"""Why a known caller's event is not taken: the problem's code is the outcome in `notifyd_events_total`."""

_SEEN_BEFORE: Final = ("duplicate", "conflict")
"""What becomes of an event whose id is known."""

_OF_PACKS: Final = tuple(one.value for one in Outcome if one is not Outcome.ACCEPTED)
_OF_OTHERS: Final = (Outcome.ACCEPTED.value,)
"""What becomes of an event that is taken, by whether it is about an approval or a hold."""


class Metrics:
    """Every metric, named as in the design, on one registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._kinds: frozenset[str] = frozenset()
        self._tenants: frozenset[str] = frozenset()
        self._channels: set[str] = set()  # those whose series have begun

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        self.events = counter("notifyd_events_total", "Events by what became of them", "kind", "outcome")
        self.event = cache(self.events.labels)  # what `events` keeps for a kind and an outcome
        self.ingest_seconds = histogram("notifyd_ingest_seconds", "From request to durable answer", _FAST)
        self.outstanding = gauge("notifyd_approvals_outstanding", "Pending approvals", "tenant")
        self.ended = counter("notifyd_approvals_ended_total", "Approvals that ended, by how", "status")
        self.overridden = counter(
            "notifyd_approvals_overridden_total", "Approvals that were ended by break-glass"
        )
        for status in Status:
            if status.ended:
                self.ended.labels(status.value)
        self.timer_steps = counter(
            "notifyd_approval_timer_steps_total", "Reminders and escalations that came due", "action"
        )
        for action in ("reminded", "escalated"):
            self.timer_steps.labels(action)
        self.approvals_queued = counter(
            "notifyd_approval_notifications_queued_total", "Messages about approvals made durable"
        )
        self.approvals_sent = counter(
            "notifyd_approval_notifications_sent_total", "Messages about approvals that were sent"
        )
        self.ack_latency = histogram(
            "notifyd_approval_ack_latency_seconds", "From an approval's request to its decision", _HUMAN
        )
        self.deliveries = counter(
            "notifyd_deliveries_total", "Deliveries that ended, by how", "channel", "outcome"
        )
        self.delivery_seconds = histogram("notifyd_delivery_seconds", "Planned to sent", _SLOW, "channel")
        self.attempts = counter(
            "notifyd_delivery_attempts_total", "Attempts, by how they ended", "channel", "outcome"
        )
        # Labels are bounded, and to look a series up takes as long as to count in it.
        self.delivery = cache(self.deliveries.labels)
        self.attempt = cache(self.attempts.labels)
        self.seconds = cache(self.delivery_seconds.labels)
        self.last_success = gauge(
            "notifyd_last_success_timestamp_seconds",
            "When a channel last took a message in this life of the process, 0 where it has not",
            "channel",
        )
        self.succeeded = cache(self.last_success.labels)
        self.drills = counter(
            "notifyd_drills_total", "Fire drills of a channel, by how they ended", "channel", "outcome"
        )
        self.drill_seconds = histogram(
            "notifyd_drill_seconds", "How long a channel took for a drill's message", _SLOW, "channel"
        )
        self.drill_interval = gauge(
            "notifyd_drill_interval_seconds", "How often a channel is drilled", "channel"
        )
        self.last_drill = gauge(
            "notifyd_drill_last_timestamp_seconds",
            "When a channel was last drilled, by any node, 0 for never",
            "channel",
        )
        self.last_good_drill = gauge(
            "notifyd_drill_last_success_timestamp_seconds",
            "When a channel last took a drill's message, by any node, 0 for never",
            "channel",
        )
        self.backlog = gauge("notifyd_backlog", "Deliveries waiting or being sent", "channel")
        self.oldest_pending = gauge(
            "notifyd_oldest_pending_seconds",
            "Age of the oldest open delivery, 0 where there is none",
            "channel",
        )
        self.held = gauge("notifyd_held", "Deliveries that wait, by why they do", "channel", "why")
        self.silences = gauge("notifyd_silences", "Silences in force, of all tenants")
        self.unplanned = gauge("notifyd_unplanned_events", "Accepted events that this node has yet to plan")
        self.ready = gauge("notifyd_ready", "1 where /readyz would answer 200")
        self.http_requests = counter(
            "notifyd_http_requests_total",
            "Requests, by the path as declared and the status",
            "route",
            "status",
        )
        self.http_request = cache(self.http_requests.labels)  # what `http_requests` keeps for the two
        self.dead_letters = gauge("notifyd_dead_letters", "Dead deliveries kept", "channel")
        self.owing_approvals = gauge(
            "notifyd_approvals_owing_effects",
            "Approvals whose callback, notice or audit line is not made yet",
        )
        self.dead_effects = gauge(
            "notifyd_approvals_with_dead_effects", "Approvals with a callback, notice or audit line given up"
        )
        self.breaker_open = gauge("notifyd_breaker_open", "1 while a channel's breaker is open", "channel")
        self.commit_seconds = histogram("notifyd_store_commit_seconds", "One commit to disk", _FAST)
        self.batch_size = histogram("notifyd_store_batch_size", "Writes in one commit", _ROWS)
        self.store_errors = counter(
            "notifyd_store_errors_total", "Steps that the store did not do, or whose answer was lost", "step"
        )
        self.store_bytes = gauge("notifyd_store_bytes", "Bytes that the store takes, by what for", "part")
        self.disk_free = gauge(
            "notifyd_disk_free_bytes", "Bytes free on the store's disk, NaN where nobody can tell"
        )
        self.disk_free.set(nan)
        self.log_lines_dropped = counter(
            "notifyd_log_lines_dropped_total", "Lines of the log that nobody will read"
        )
        self.undecodable_rows = gauge(
            "notifyd_undecodable_rows", "Stored rows set aside, since they cannot be read", "table"
        )
        self.rule_errors = counter(
            "notifyd_rule_errors_total", "Rules that an event could not be tried on", "rule"
        )
        self.template_fallbacks = counter(
            "notifyd_template_fallbacks_total", "Messages rendered with another template than wished for"
        )
        self.reactions = counter(
            "notifyd_reactions_total",
            "Answers to messages that channels handed in, by what became of them",
            "outcome",
        )
        for outcome in ("recorded", "asked", "refused", "unknown"):
            self.reactions.labels(outcome)
        self.listening = gauge("notifyd_listening", "1 where this node listens with a channel", "channel")
        self.listen_ends = counter(
            "notifyd_listen_ends_total", "Times a channel stopped listening by itself", "channel"
        )
        self.refused = counter("notifyd_auth_refused_total", "Calls refused, by the problem's code", "code")
        self.connections = gauge("notifyd_connections", "Open connections of callers")
        self.connections_refused = counter(
            "notifyd_connections_refused_total", "Connections for which there was no room, by why", "why"
        )
        for why in ("client", "server", "closed"):
            self.connections_refused.labels(why)
        self.loop_blocked = counter(
            "notifyd_loop_blocked_total", "Times the event loop stood still for a second", "channel"
        )
        self.loop_blocked.labels(OTHER)
        self.reload_ok = gauge(
            "notifyd_config_last_reload_successful", "1 where the last load of the config took"
        )
        self.reload_time = gauge(
            "notifyd_config_last_reload_success_timestamp_seconds", "When a config last took"
        )
        self.purged = counter("notifyd_purged_total", "Rows removed by age", "collection")
        build = gauge("notifyd_build_info", "Always 1; the version is the label", "version")
        build.labels(__version__).set(1)

    def values(self, name: str, label: str = "") -> dict[str, float]:
        """What a gauge tells now, by one of its labels; under "" where it has none."""
        found = self.registry.restricted_registry([name]).collect()
        return {one.labels.get(label, ""): one.value for metric in found for one in metric.samples}

    def name_kinds(self, kinds: Iterable[str]) -> None:
        """The kinds that may be a label's value: notifyd's own and those the config names."""
        self._kinds = frozenset({APPROVAL_KIND, POLICY_KIND, *kinds})
        for kind in (*self._kinds, OTHER):
            taken = _OF_PACKS if kind in (APPROVAL_KIND, POLICY_KIND) else _OF_OTHERS
            for outcome in (*taken, *_SEEN_BEFORE, *(refused.code for refused in EVENT_REFUSALS)):
                self.event(kind, outcome)

    def name_tenants(self, tenants: Iterable[str]) -> None:
        """Begin the series of the tenants that the config names."""
        self._tenants = frozenset(tenants)
        for tenant in self._tenants:
            self.outstanding.labels(tenant)

    def name_rules(self, rules: Collection[str]) -> None:
        """Begin a series for each rule there is, and forget those of rules that are not configured any more."""
        named, known = {(rule,) for rule in rules}, _series(self.rule_errors)
        for (rule,) in named - known:
            self.rule_errors.labels(rule)
        _remove(self.rule_errors, known - named)

    def name_refusals(self, codes: Iterable[str]) -> None:
        """Begin a series for each code that a call may be refused with."""
        for code in codes:
            self.refused.labels(code)

    def name_channels(self, channels: Iterable[str]) -> None:
        """Begin every series of these channels at zero, so that a first failure is a change one can alert on."""
        for channel in set(channels) - self._channels:
            self._channels.add(channel)
            for outcome in (AttemptOutcome.SENT, *ATTEMPT_REASONS):
                self.attempts.labels(channel, outcome.value)
            for state in (State.SENT, State.DEAD):
                self.deliveries.labels(channel, state.value)
            for gauge in (
                self.backlog,
                self.oldest_pending,
                self.dead_letters,
                self.breaker_open,
                self.last_success,
            ):
                gauge.labels(channel)
            for why in Wait:
                self.held.labels(channel, why.value)
            self.delivery_seconds.labels(channel)
            self.loop_blocked.labels(channel)

    def keep_channels(self, kept: Collection[str]) -> None:
        """Forget the series of other channels: those that are not configured any more, and that nothing waits for.

        The dead letters of such a channel stay while there are any.
        """
        known = (*_series(self.backlog), *_series(self.deliveries), *_series(self.dead_letters))
        gone = {channel for channel, *_ in known} - set(kept)
        if not gone:
            return
        self._channels -= gone
        for metric in (
            *(self.attempts, self.deliveries, self.delivery_seconds, self.last_success, self.held),
            *(self.backlog, self.oldest_pending, self.loop_blocked),
        ):
            _remove(metric, {one for one in _series(metric) if one[0] in gone})
        _remove(self.dead_letters, {(channel,) for channel in gone} - _series(self.dead_letters, above=0))
        for by_labels in (self.delivery, self.attempt, self.seconds, self.succeeded):
            by_labels.cache_clear()

    def keep_breakers(self, channels: Collection[str]) -> None:
        """Forget the breakers of channels that are gone: nothing is tried there, whatever waits."""
        _remove(self.breaker_open, {one for one in _series(self.breaker_open) if one[0] not in channels})

    def name_listeners(self, channels: Collection[str]) -> None:
        """Begin the series of channels that listen, here or on another node, and forget those of all others."""
        for metric in (self.listening, self.listen_ends):
            for channel in channels:
                metric.labels(channel)
            _remove(metric, {one for one in _series(metric) if one[0] not in channels})

    def set_drills(self, drilled: Mapping[str, tuple[float, float]], interval: float) -> None:
        """When each channel that is drilled once in `interval` was last, and when with success; seconds all.

        The series of other channels go.
        """
        every = (self.drills, self.drill_seconds, self.drill_interval, self.last_drill, self.last_good_drill)
        if _values(self.last_drill) - drilled.keys():
            for metric in every:
                _remove(metric, {one for one in _series(metric) if one[0] not in drilled})
        for channel, (tried, succeeded) in drilled.items():
            for outcome in _DRILLED.values():
                self.drills.labels(channel, outcome)
            self.drill_seconds.labels(channel)
            self.drill_interval.labels(channel).set(interval)
            self.last_drill.labels(channel).set(tried)
            self.last_good_drill.labels(channel).set(succeeded)

    def drilled(self, channel: str, arrived: bool) -> None:
        self.drills.labels(channel, _DRILLED[arrived]).inc()

    def name_steps(self, steps: Iterable[str]) -> None:
        """Begin a series for each thing that may be asked of the store."""
        for step in steps:
            self.store_errors.labels(step)

    def store_error(self, step: str) -> None:
        self.store_errors.labels(step).inc()

    def set_usage(self, parts: Mapping[str, int], disk_free: int | None) -> None:
        """What the store takes, in bytes, and what is left to it."""
        for part, size in parts.items():
            self.store_bytes.labels(part).set(size)
        self.disk_free.set(nan if disk_free is None else disk_free)

    def kind(self, kind: str) -> str:
        return kind if kind in self._kinds else OTHER

    def set_outstanding(self, pending: Mapping[str, int]) -> None:
        """Pending approvals by tenant, as the store counts them; a tenant that is not in `pending` has none.

        The series of one that has none and that the config does not name goes: an issuer may name any number.
        """
        for tenant in self._tenants | pending.keys():
            self.outstanding.labels(tenant).set(pending.get(tenant, 0))
        _remove(
            self.outstanding, _series(self.outstanding) - {(one,) for one in self._tenants | pending.keys()}
        )

    def set_dead_letters(self, dead: Mapping[str, int]) -> None:
        """Dead deliveries by channel, as the store counts them; a channel that is not in `dead` has none.

        The series of such a channel that the config has no more goes.
        """
        for channel in _values(self.dead_letters) | dead.keys():
            self.dead_letters.labels(channel).set(dead.get(channel, 0))
        gone = _values(self.dead_letters) - self._channels - dead.keys()
        _remove(self.dead_letters, {(channel,) for channel in gone})

    def commit(self, seconds: float, rows: int) -> None:
        """One commit of the store: what `CommitObserver` asks for."""
        self.commit_seconds.observe(seconds)
        self.batch_size.observe(rows)

    def undecodable(self, table: str, rows: int) -> None:
        """So many rows of a collection are set aside: what `CommitObserver` asks for too."""
        self.undecodable_rows.labels(table).set(rows)


def _series(metric: Counter | Gauge | Histogram, above: float = -inf) -> set[tuple[str, ...]]:
    """The values of the labels of a metric's series, in their order; of a gauge, those of more than `above`."""
    return {
        tuple(value for label, value in sample.labels.items() if label != "le")
        for family in metric.collect()
        for sample in family.samples
        if sample.value > above
    }


def _values(gauge: Gauge) -> set[str]:
    """What the only label of a gauge has stood for so far."""
    return {value for (value,) in _series(gauge)}


def _remove(metric: Counter | Gauge | Histogram, series: Set[tuple[str, ...]]) -> None:
    for labels in series & _series(metric) if series else ():
        metric.remove(*labels)
