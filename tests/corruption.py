"""Pages of an SQLite file made unreadable, as a bad disk or a stray program does."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def corrupt_tree(path: Path, name: str) -> None:
    """Overwrite the root page of a table or an index, in a file that nobody has open."""
    db = sqlite3.connect(path)
    (size,) = db.execute("PRAGMA page_size").fetchone()
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
