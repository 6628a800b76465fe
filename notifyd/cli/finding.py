"""What `notifyd doctor` tells: one thing that was looked at, how it stands, and what to do."""

from __future__ import annotations

from typing import Final

from attrs import frozen

OK: Final = "ok"
WARNING: Final = "warning"
ERROR: Final = "error"


@frozen
class Finding:
    """What was looked at, how it stands, and what to do where it does not stand well."""

    check: str
    level: str
    detail: str
    todo: str = ""
