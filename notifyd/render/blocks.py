"""Running a template: what each of its blocks prints, from one run, and where a fault comes from.

This is the one place that knows how Jinja puts blocks together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import GeneratorType
from typing import Any, cast

from attrs import frozen
from jinja2 import Template
from jinja2.runtime import Context

from notifyd.errors import RenderError
from notifyd.render.bounds import METER, Meter, concat


@frozen
class Chosen:
    """The file a message's texts come from, its HTML twin, and its blocks for one type of channel."""

    text: Template
    page: Template
    vendors: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What a rule or an event asks for it by."""
        return (self.text.name or "").partition(".")[0]


def print_blocks(
    chosen: Chosen, names: Sequence[str], writer: str, variables: dict[str, Any], locale: str
) -> dict[str, str]:
    """The output of each block of `names`, its ancestors' included, from one run. `writer` is the body's block.

    Raises `RenderError`.
    """
    printed: dict[str, str] = {}
    context = _staged(chosen, variables)
    if "fields" not in names:
        context.blocks["fields"] = [_nothing]
    for name in names:
        # First in the list is what runs; the rest is what `super()` goes through.
        context.blocks[name] = [
            _capture(name, writer if name == "body" else name, printed),
            *context.blocks.get(name, ()),
        ]
    _run(chosen.text, context, locale)
    return printed


def print_page(page: Template, variables: Mapping[str, Any], locale: str) -> str:
    """All that a page prints. Raises `RenderError`."""
    return _run(page, _context(page, variables), locale)


def _staged(chosen: Chosen, variables: Mapping[str, Any]) -> Context:
    """A context in which a block for one type of channel prints nothing where it stands."""
    context = _context(chosen.text, variables)
    for name in chosen.vendors:
        context.blocks[name] = [_nothing, *context.blocks.get(name, ())]
    return context


def _nothing(_: Context) -> Iterator[str]:
    return iter(())


def _context(template: Template, variables: Mapping[str, Any]) -> Context:
    """A context as `Template.new_context` makes it, without the copy that a file's own globals would need."""
    environment = template.environment
    parent = {**environment.globals, **variables}
    return environment.context_class(environment, parent, template.name, template.blocks)


def _capture(name: str, writer: str, printed: dict[str, str]) -> Callable[[Context], Iterator[str]]:
    def block(context: Context) -> Iterator[str]:
        printed[name] = concat(_written(context, name, writer))
        return iter(())

    return block


def _written(context: Context, name: str, writer: str) -> Iterator[str]:
    """What the block `writer` prints, which stands for the block `name`: `super()` in it is that one."""
    general = context.blocks[name][1:]
    if writer != name:
        context.blocks[name] = general  # so that `self.body()` is the general one, and does not call itself
        context.blocks[writer] = [*context.blocks[writer], *general]
    return context.blocks[writer][1](context)


def _run(template: Template, context: Context, locale: str) -> str:
    metered = METER.set(Meter())
    try:
        return concat(template.root_render_func(context))
    except Exception as error:
        where, number = _place(error, template)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise RenderError(where, number, locale, reason) from error
    finally:
        METER.reset(metered)


def _place(error: BaseException, template: Template) -> tuple[str, int]:
    """File and line of the innermost template that was running."""
    where, number = template, 0
    trace = error.__traceback__
    while trace is not None:
        running = trace.tb_frame.f_globals.get("__jinja_template__")
        if running is not None:
            where, number = running, running.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return where.name or "", number


def printed_by(chosen: Chosen, writer: str, variables: Mapping[str, Any], position: int) -> tuple[str, int]:
    """File and line of what prints the character at `position` of the body, by running it once more."""
    template = chosen.text
    context = _staged(chosen, variables)
    found: list[tuple[str, int]] = []

    def block(inner: Context) -> Iterator[str]:
        chunks, printed = cast("GeneratorType[str, None, None]", _written(inner, "body", writer)), 0
        for chunk in chunks:
            frame = chunks.gi_frame
            if frame is not None and printed <= position:
                running: Template = frame.f_globals["__jinja_template__"]
                found.append((running.name or "", running.get_corresponding_lineno(frame.f_lineno)))
            printed += len(chunk)
        return iter(())

    context.blocks["body"] = [block, *context.blocks.get("body", ())]
    concat(template.root_render_func(context))
    return found[-1] if found else (template.name or "", 0)
