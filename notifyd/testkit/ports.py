"""Ports for servers that have to be told theirs before they start."""

from __future__ import annotations

import secrets
import socket
from typing import Final

_GIVEN_OUT: Final = range(15_000, 32_000)
"""Below the ports that the system gives to whoever connects, who may have one before its server starts."""


def free_port() -> int:
    """A port of the loopback address that nobody has now. Whoever can be given port 0 should be."""
    while True:
        try:
            # Not by `random`, which Hypothesis seeds: runs beside one another would ask for the same.
            with socket.create_server(("127.0.0.1", secrets.choice(_GIVEN_OUT))) as server:
                return int(server.getsockname()[1])
        except OSError:  # somebody has it
            continue
