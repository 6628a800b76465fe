"""Lets notifyd's own tests run this plugin's, which is not installed there."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
