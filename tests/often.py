"""Looking for what is due many times a second, where a test turns the clock and would wait for a real second."""

from __future__ import annotations

from typing import Any, Final

import pytest

from notifyd.flow import dispatch
from notifyd.service.app import App

EVERY: Final = 0.05
"""Seconds between sweeps, and between looks of the dispatcher."""


def look_often(patch: pytest.MonkeyPatch) -> None:
    sweep: Any = App._sweep
    patch.setitem(sweep.__kwdefaults__, "every", EVERY)
    patch.setattr(dispatch, "_TICK", EVERY)
