"""`notifyd contract`: what callers are promised, as OpenAPI and as models in Go and C#."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click
from attrs import frozen

from notifyd.cli.common import Failure, json_option, needless_config_option, print_json


@frozen
class _Format:
    file: str
    make: Callable[[], str]


def _openapi() -> str:
    from notifyd.web.contract.document import document
    from notifyd.web.contract.yaml_text import to_yaml

    return to_yaml(document())


def _go() -> str:
    from notifyd.web.contract.document import types
    from notifyd.web.contract.golang import go_models

    return go_models(types())


def _csharp() -> str:
    from notifyd.web.contract.csharp import csharp_models
    from notifyd.web.contract.document import types

    return csharp_models(types())


FORMATS: Final[Mapping[str, _Format]] = {
    "openapi": _Format("openapi.yaml", _openapi),
    "go": _Format("models.go", _go),
    "csharp": _Format("Models.cs", _csharp),
}


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
        from notifyd.web.contract.document import document

        print_json(document())
    elif out is None:
        click.echo(FORMATS[chosen or "openapi"].make(), nl=False)
    else:
        _write(out, [chosen] if chosen else list(FORMATS))


def _write(folder: Path, names: list[str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            target = folder / FORMATS[name].file
            target.write_text(FORMATS[name].make(), encoding="utf-8")
            click.echo(target)
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from None
