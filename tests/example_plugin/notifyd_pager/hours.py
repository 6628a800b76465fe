"""The function for rules: was an event in office hours?"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo


def in_office_hours(at: str, zone: str) -> bool:
    """Was it Monday to Friday, from 9 to 17, in `zone`? `at` is the event's time, so the answer never changes."""
    local = datetime.fromisoformat(at).astimezone(ZoneInfo(zone))
    return local.weekday() < 5 and 9 <= local.hour < 17
