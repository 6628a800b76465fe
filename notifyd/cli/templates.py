"""`notifyd templates`: which templates the service has, and the text of each as it would use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from notifyd.cli.common import Failure, config_failure, config_option, json_option, load_config, print_json
from notifyd.cli.output import print_table
from notifyd.errors import ConfigError

if TYPE_CHECKING:
    from notifyd.render.render import TemplateSet
    from notifyd.render.templating import TemplateFile


@click.group()
def templates() -> None:
    """List templates, or print one."""


@templates.command("list")
@config_option
@json_option
def list_templates(config_path: Path, as_json: bool) -> None:
    """List each template in each of its languages, and the file it is from: yours, a plugin's or a built-in."""
    known = _load(config_path)
    rows = [(name, tag, known.written_in(name, tag)) for name in known.names for tag in known.locales(name)]
    if as_json:
        print_json([{"template": name, "locale": tag, "file": file.path} for name, tag, file in rows])
    else:
        print_table(("template", "locale", "file"), [(name, tag, file.path) for name, tag, file in rows])


@templates.command("show")
@config_option
@json_option
@click.option("--locale", help="The reader's language; by default that of the configuration.")
@click.option("--html", "as_html", is_flag=True, help="Print the page of its mails instead of the text.")
@click.argument("name")
def show_template(config_path: Path, as_json: bool, locale: str | None, as_html: bool, name: str) -> None:
    """Print the template NAME as the service would use it for a reader of that language.

    NAME may also be a file's, such as _pack-approval.txt, which others extend. Only the text goes to standard
    output, so that a copy can be changed; the file that it is from goes to standard error.
    """
    known = _load(config_path)
    file = known.file(name) or _of_template(known, name, locale, as_html)
    if as_json:
        extended = [one.path for one in known.extended(file)]
        print_json({"name": name, "file": file.path, "extends": extended, "text": file.text})
        return
    click.echo(" extends ".join([file.path, *(one.path for one in known.extended(file))]), err=True)
    click.echo(file.text, nl=False)


def _of_template(known: TemplateSet, name: str, locale: str | None, as_html: bool) -> TemplateFile:
    from notifyd.config.structure import did_you_mean

    if not known.knows(name):
        near = did_you_mean(name, known.names) or f"; there are: {', '.join(known.names)}"
        raise Failure(f"there is no template {name!r}{near}")
    tag = known.locale([locale], name)
    return known.page_of(name, tag) if as_html else known.written_in(name, tag)


def _load(path: Path) -> TemplateSet:
    from notifyd.registry.registry import load_templates

    try:
        return load_templates(*load_config(path))
    except ConfigError as error:
        raise config_failure(path, error) from None
