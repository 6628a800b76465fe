"""The function for rules: was an event in office hours?"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo


def in_office_hours(at: object, zone: object) -> bool:
    """Was it Monday to Friday, from 9 to 17, in `zone`? `at` is the event's time, so the answer never changes.

    What is no time, has no offset, or is no zone is in nobody's office hours.
    """
    if not isinstance(at, str) or not isinstance(zone, str):
        return False
    try:
        moment, place = datetime.fromisoformat(at), ZoneInfo(zone)
    except (ValueError, LookupError, OSError):
        return False
    if moment.tzinfo is None:
        return False
    local = moment.astimezone(place)
    return local.weekday() < 5 and 9 <= local.hour < 17
