"""`notifyd new-plugin`: a working, tested plugin project to begin with."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Final

import click

from notifyd import __version__
from notifyd.cli.common import Failure, needless_config_option

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST: Final = 40
_SUFFIX: Final = ".in"


def _checked(_: click.Context, __: click.Parameter, name: str) -> str:
    name = name.removeprefix("notifyd-")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise click.BadParameter(
            f"must be lower-case words with hyphens between them, {_LONGEST} characters at most"
        )
    return name


@click.command("new-plugin")
@needless_config_option
@click.option(
    "--into",
    "parent",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="The folder to make the project's folder in; by default this one.",
)
@click.argument("name", callback=_checked)
def new_plugin(parent: Path, name: str) -> None:
    """Write a plugin project with a channel of the type NAME: package, tests, README.

    It works as it is: install it beside notifyd-server, and `type = "NAME"` is there.
    """
    folder = parent / f"notifyd-{name}"
    _check_free(name, folder)
    words = _words(name)
    for path, text in _files(importlib.resources.files("notifyd.cli") / "scaffold"):
        target = folder / path.replace("module", words["module"])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(text).substitute(words), encoding="utf-8")
    click.echo(f"{folder} is ready. Next:\n")
    click.echo(f"    cd {folder}\n    pip install -e '.[dev]'\n    python -m pytest\n    notifyd plugins")


def _check_free(name: str, folder: Path) -> None:
    from notifyd.registry.discovery import discover

    if owner := discover().provider_of(name):
        raise Failure(f'the plugin "{owner.name}" ({owner.distribution}) brings a channel type "{name}"')
    if folder.exists():
        raise Failure(f"{folder} exists")


def _words(name: str) -> dict[str, str]:
    """What the project's files call it."""
    return {
        "name": name,
        "distribution": f"notifyd-{name}",
        "module": f"notifyd_{name.replace('-', '_')}",
        "cls": "".join(word.capitalize() for word in name.split("-")),
        "constant": name.replace("-", "_").upper(),
        "env": name.replace("-", "_").upper(),
        "version": ".".join(__version__.split(".")[:2]),
    }


def _files(folder: Traversable, path: str = "") -> Iterator[tuple[str, str]]:
    """Each file below `folder`, by the path it gets, and its text."""
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            yield from _files(item, f"{path}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            yield path + item.name.removesuffix(_SUFFIX), item.read_text(encoding="utf-8")
