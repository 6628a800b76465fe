"""What is counted of an approval that a decision, or the taking back of one, has changed."""

from __future__ import annotations

from notifyd.metrics import Metrics
from notifyd.model import SECOND, Approval


def measure_pending(metrics: Metrics, before: Approval, after: Approval) -> None:
    """`after` is stored in place of `before`. What has ended is not pending, even if that can be taken back."""
    metrics.outstanding.labels(after.tenant).inc(before.status.ended - after.status.ended)


def measure_end(metrics: Metrics, approval: Approval) -> None:
    """`approval` was ended by the last of its decisions, for good."""
    last = approval.decisions[-1]
    metrics.ack_latency.observe(max(0, last.decided_at - approval.requested_at) / SECOND)
    metrics.ended.labels(approval.status.value).inc()
    metrics.overridden.inc(last.break_glass)
