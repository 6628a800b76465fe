"""`notifyd contract`: what callers are promised, as OpenAPI and as models in Go and C#.

The files come with the package as they were released; `make contract` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import click

from notifyd.cli.common import Failure, json_option, needless_config_option, print_json

FORMATS: Final[Mapping[str, str]] = {"openapi": "openapi.yaml", "go": "models.go", "csharp": "Models.cs"}
"""The file of each format."""


def _text(file: str) -> str:
    return (resources.files("notifyd") / "contract" / file).read_text("utf-8")


@click.command()
@click.option(
    "--format", "chosen", type=click.Choice(list(FORMATS)), help="One of them; with --out, all three."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write files into this folder; print none.",
)
@needless_config_option
@json_option
def contract(chosen: str | None, out: Path | None, as_json: bool) -> None:
    """Print the contract: OpenAPI 3.1, or models in Go or C#. With --json, the OpenAPI document as JSON."""
    if as_json and (out is not None or chosen not in (None, "openapi")):
        raise click.UsageError(
            "--json prints the OpenAPI document: it goes with no --out and no other --format"
        )
    if as_json:
        print_json(json.loads(_text("openapi.json")))
    elif out is None:
        click.echo(_text(FORMATS[chosen or "openapi"]), nl=False)
    else:
        _write(out, [chosen] if chosen else list(FORMATS))


def _write(folder: Path, names: list[str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            target = folder / FORMATS[name]
            target.write_text(_text(FORMATS[name]), encoding="utf-8")
            click.echo(target)
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from None
