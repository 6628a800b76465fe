"""`python -m notifyd`, and the command `notifyd`."""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line. Until it is there, Ctrl-C ends the process at once and without a traceback."""
    interrupted = signal.getsignal(signal.SIGINT)
    if interrupted is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from notifyd.cli import main as run

    signal.signal(signal.SIGINT, interrupted)
    run()


if __name__ == "__main__":
    main()
