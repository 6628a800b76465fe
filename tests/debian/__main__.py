"""`make deb` and `make man`: the package for Debian, or its manual pages alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.debian import manual, package


def main(what: str, target: Path) -> None:
    """Write the package, or the pages, into the folder `target`."""
    at = package.epoch(dict(os.environ))
    if what == "man":
        target.mkdir(parents=True, exist_ok=True)
        for name, said in manual.pages(at):
            (target / name).write_text(said, encoding="utf-8")
        return
    build = package.Build(
        folder=package.ROOT / "build" / "deb",
        python=Path(os.environ.get("DEB_PYTHON", "/usr/bin/python3")),
        at=at,
        maintainer=os.environ.get("DEB_MAINTAINER", "The maintainers of notifyd <notifyd@localhost>"),
    )
    print(build.package(target))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
