"""SecantusDB as tests start it, with a fault of 0.7.0b3 mended: `python -m tests.secantus_server --port …`.

An update of many documents waits for one that an open transaction has written, as MongoDB's does, but with the
collection locked. So that transaction never gets to its end, and the server stands still. Here such an update
waits as that of one document does: without the lock.
"""

from __future__ import annotations

import sys
from typing import Any

from secantus.cli import main
from secantus.storage import Storage


def _update_many(self: Any, *args: Any, **options: Any) -> Any:
    return self._update_matching_single_txn(*args, multi=True, **options)


setattr(Storage, "_update_matching_chunked", _update_many)  # noqa: B010 - a method, which mypy lets nobody assign

if __name__ == "__main__":
    sys.exit(main())
