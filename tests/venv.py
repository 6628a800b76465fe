"""A fresh virtual environment that has all that this one has, and takes more plugins, with no network."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from attrs import frozen


@frozen
class Venv:
    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def run(self, *args: str, cwd: Path | None = None) -> str:
        """What `python ARGS` prints. AssertionError with all of it where that fails."""
        done = subprocess.run(
            [self.python, *args],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install(self, project: Path) -> None:
        """Build and install a project with pip; what it depends on is there already."""
        self.run(
            "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", str(project)
        )


def fresh_venv(folder: Path) -> Venv:
    venv.create(folder, with_pip=False)
    made = Venv(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # As a folder of its own, so that the editable installs in it count too.
    here = sysconfig.get_path("purelib", scheme=sysconfig.get_default_scheme(), vars={"base": sys.prefix})
    (packages / "beside.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return made
