"""What is counted when a decision has ended an approval for good."""

from __future__ import annotations

from notifyd.metrics import Metrics
from notifyd.model import SECOND, Approval


def measure_end(metrics: Metrics, approval: Approval) -> None:
    """`approval` was ended by the last of its decisions."""
    last = approval.decisions[-1]
    metrics.ack_latency.observe(max(0, last.decided_at - approval.requested_at) / SECOND)
    metrics.outstanding.labels(approval.tenant).dec()
    metrics.ended.labels(approval.status.value).inc()
    metrics.overridden.inc(last.break_glass)
