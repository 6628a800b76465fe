"""notifyd: durable notifications and approvals."""

__version__ = "0.1.0"
