"""`python -m notifyd`, and the command `notifyd`."""

from __future__ import annotations

from notifyd.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
