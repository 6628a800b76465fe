"""`notifyd route` and `notifyd render`: what an event would set off, and how a template reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from attrs import frozen

from notifyd.cli.common import (
    Failure,
    Unfit,
    config_failure,
    config_option,
    json_option,
    load_config,
    not_ok,
    parse_event,
    print_json,
)
from notifyd.cli.messages import (
    message_json,
    print_message,
    print_route,
    print_samples,
    route_json,
    sample_json,
    samples_page,
)
from notifyd.errors import ConfigError, InvalidError, MalformedError, RenderError
from notifyd.model import wall_clock

if TYPE_CHECKING:
    from notifyd.cli.expect import Compared, Expected
    from notifyd.model import Message
    from notifyd.preview import Route
    from notifyd.registry.registry import Registry
    from notifyd.samples import Sample

tenant_option = click.option("--tenant", default="", help="The tenant of a CloudEvent that names none.")


@click.command()
@config_option
@json_option
@tenant_option
@click.option(
    "--expect",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file of events with the channels and persons they must reach: tell what differs.",
)
@click.argument("event", type=click.File("rb"), required=False)
def route(
    config_path: Path, as_json: bool, tenant: str, expect: Path | None, event: IO[bytes] | None
) -> None:
    """Show what EVENT would set off: a file, or - for standard input. Nothing is sent or stored.

    Each rule, whether it matches and why not; to whom messages go; and each message as its reader sees it, once
    for each channel and locale. Exits with 1 where the event is not valid, or a message cannot be rendered.

    With --expect, exits with 1 where an event reaches others than it must, and with 2 where FILE is faulty itself.
    """
    if (event is None) == (expect is None):
        raise click.UsageError("give either EVENT or --expect FILE")
    if expect is not None:
        _compare(config_path, expect, as_json=as_json)
    elif event is not None:
        _show_route(config_path, event, tenant, as_json=as_json)


def _show_route(config_path: Path, event: IO[bytes], tenant: str, *, as_json: bool) -> None:
    document = _read(event)
    found = asyncio.run(_route(config_path, document, tenant, _name(event)))
    if as_json:
        print_json(route_json(found))
    else:
        print_route(found)
    if any(preview.fault for preview in found.previews):
        raise not_ok()


def _compare(config_path: Path, path: Path, *, as_json: bool) -> None:
    from notifyd.cli import expect

    try:
        expected = expect.read_expectations(path)
    except ConfigError as error:
        raise Unfit(*config_failure(path, error).lines) from None
    compared = asyncio.run(_compared(config_path, expected))
    if as_json:
        print_json([expect.compared_json(one) for one in compared])
    else:
        expect.print_compared(compared)
    if any(one.differences for one in compared):
        raise not_ok()


async def _compared(path: Path, expected: Iterable[Expected]) -> list[Compared]:
    from notifyd.cli.expect import compare

    registry = await _open(path)
    try:
        return [compare(one, registry, wall_clock()) for one in expected]
    finally:
        await registry.aclose()


async def _route(path: Path, document: Any, tenant: str, name: str) -> Route:
    from notifyd import preview

    registry = await _open(path)
    try:
        return preview.route(preview.read_event(document, registry, tenant, wall_clock()), registry)
    except InvalidError as error:
        raise _invalid(name, error) from None
    finally:
        await registry.aclose()


def _zone(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    from notifyd.config.units import parse_zone

    try:
        return parse_zone(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@config_option
@json_option
@tenant_option
@click.option("--locale", help="The language to write in; by default what the event wishes for.")
@click.option("--type", "type_", default="", help="The type of the channel to write for, such as slack.")
@click.option(
    "--zone", default="UTC", show_default=True, callback=_zone, help="The time zone to tell times in."
)
@click.option("--html", "as_html", is_flag=True, help="Print the HTML of a mail instead of the text.")
@click.option("--all", "everything", is_flag=True, help="Every template in every locale, over examples.")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="With --all: a page to write.")
@click.argument("template", required=False)
@click.argument("event", type=click.File("rb"), required=False)
def render(
    config_path: Path,
    as_json: bool,
    tenant: str,
    locale: str | None,
    type_: str,
    zone: str,
    as_html: bool,
    everything: bool,
    page: Path | None,
    template: str | None,
    event: IO[bytes] | None,
) -> None:
    """Write EVENT with TEMPLATE: a file, or - for standard input.

    An object that is neither one of Task Runner's events nor a CloudEvent is given to the template as it is.

    With --all every template is shown in every locale, and what is missing is named; exits with 1 where a template
    fails on its example.
    """
    if everything:
        _show_all(config_path, page, as_json=as_json)
        return
    if template is None or event is None:
        raise click.UsageError("TEMPLATE and EVENT are needed, or --all")
    document = _read(event)
    asked = _Asked(template, locale, zone, type_)
    message = asyncio.run(_render(config_path, document, tenant, _name(event), asked))
    if as_json:
        print_json(message_json(message))
    elif as_html:
        click.echo(message.html or "")
    else:
        print_message(message)


@frozen
class _Asked:
    """How to write it."""

    template: str
    locale: str | None
    zone: str
    channel_type: str


async def _render(path: Path, document: Any, tenant: str, name: str, asked: _Asked) -> Message:
    from notifyd import preview

    registry = await _open(path)
    try:
        _check_type(asked.channel_type, registry)
        how = (asked.template, asked.locale, asked.zone, asked.channel_type)
        return preview.render(document, registry, tenant, wall_clock(), *how)
    except InvalidError as error:
        raise _invalid(name, error) from None
    except RenderError as error:
        names = ", ".join(registry.templates.names)
        known = asked.template in registry.templates.names
        raise Failure(error.detail, *([] if known else [f"there are: {names}"])) from None
    finally:
        await registry.aclose()


def _check_type(channel_type: str, registry: Registry) -> None:
    from notifyd.config.first_party import no_such_type

    types = registry.discovered.channel_types
    if channel_type and channel_type not in types:
        raise Failure(no_such_type(channel_type, types))


# --- all of them -------------------------------------------------------------------------------------------


def _show_all(path: Path, page: Path | None, *, as_json: bool) -> None:
    shown, gaps = asyncio.run(_all(path))
    if as_json:
        print_json({"messages": [sample_json(one) for one in shown], "missing": gaps})
    else:
        print_samples(shown, gaps)
    if page is not None:
        try:
            page.write_text(samples_page(shown, gaps), encoding="utf-8")
        except OSError as error:
            raise Failure(f"{page}: {error.strerror}") from None
    if any(one.fault for one in shown):
        raise not_ok()


async def _all(path: Path) -> tuple[list[Sample], list[str]]:
    from notifyd import preview, samples

    registry = await _open(path)
    try:
        wished = tuple(one.locale for one in registry.settings.recipients.values() if one.locale)
        link, mine = map(registry.links.url, (preview.HIDDEN_LINK, preview.HIDDEN_MINE))
        found = list(samples.all_samples(registry.templates, link, mine, wished))
        return found, samples.missing(registry.templates, wished)
    finally:
        await registry.aclose()


# --- reading -----------------------------------------------------------------------------------------------


async def _open(path: Path) -> Registry:
    from notifyd.registry.registry import open_registry

    try:
        settings, discovered = load_config(path)
        return await open_registry(settings, discovered, wall_clock)
    except ConfigError as error:
        raise config_failure(path, error) from None


def _read(event: IO[bytes]) -> Any:
    try:
        return parse_event(event.read())
    except ValueError as error:
        raise Failure(f"{_name(event)} is not JSON: {error}") from None
    except MalformedError as error:
        raise Failure(f"{_name(event)}: {error.detail}") from None
    except InvalidError as error:
        raise _invalid(_name(event), error) from None


def _name(event: IO[bytes]) -> str:
    name = getattr(event, "name", "<stdin>")
    return "standard input" if name == "<stdin>" else str(name)


def _invalid(name: str, error: InvalidError) -> Failure:
    return Failure(f"{name} is not a valid event", *(f"  {fault}" for fault in error.faults))
