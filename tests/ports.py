"""Ports for servers that have to be told theirs before they start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of the loopback address that nobody has now. Whoever can be given port 0 should be."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
