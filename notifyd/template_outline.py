"""What the text of a template file tells without running it: what it extends, names and calls."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Final

from attrs import frozen
from jinja2 import DictLoader, nodes
from jinja2.meta import find_undeclared_variables

from notifyd.sandbox import CONTEXT_NAMES, Sandbox

BY_EXPRESSION: Final = None
"""Stands for a template that a file refers to by an expression instead of its name."""


@frozen
class Outline:
    """Pairs are of a line and a name.

    `parent` is the file it extends; `refers` all that it extends, includes or imports; `unknown` the filters
    and tests that do not exist; `sets` the names that it sets or imports, `free` those that it does not.
    """

    parent: str | None
    refers: tuple[tuple[int, str | None], ...]
    unknown: tuple[tuple[int, str], ...]
    blocks: frozenset[str]
    sets: frozenset[str]
    free: tuple[tuple[int, str], ...]


@lru_cache(maxsize=512)
def outline(key: str, path: str, text: str) -> Outline:
    """Raises `jinja2.TemplateSyntaxError`. Remembered, as most files are the same at every reload."""
    tree = _parser().parse(text, key, path)
    return Outline(
        parent=_parent(tree),
        refers=tuple(_refers(tree)),
        unknown=tuple(_unknown(tree)),
        blocks=frozenset(block.name for block in tree.find_all(nodes.Block)),
        sets=frozenset(_sets(tree)),
        free=tuple(_free(tree)),
    )


@cache
def _parser() -> Sandbox:
    return Sandbox(DictLoader({}))


def _parent(tree: nodes.Template) -> str | None:
    extends = tree.find(nodes.Extends)
    return str(extends.template.value) if extends and isinstance(extends.template, nodes.Const) else None


def _refers(tree: nodes.Template) -> Iterator[tuple[int, str | None]]:
    for node in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        wanted = getattr(node, "template", None)
        yield node.lineno, str(wanted.value) if isinstance(wanted, nodes.Const) else BY_EXPRESSION


def _unknown(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """Jinja itself finds these when it compiles, but for those behind an `if`."""
    for filter_ in tree.find_all(nodes.Filter):
        if filter_.name not in _parser().filters:
            yield filter_.lineno, f"unknown filter {filter_.name!r}"
    for test in tree.find_all(nodes.Test):
        if test.name not in _parser().tests:
            yield test.lineno, f"unknown test {test.name!r}"


def _sets(tree: nodes.Template) -> Iterator[str]:
    yield from (name.name for name in tree.find_all(nodes.Name) if name.ctx == "store")
    yield from (macro.name for macro in tree.find_all(nodes.Macro))
    yield from (imported.target for imported in tree.find_all(nodes.Import))
    for imported in tree.find_all(nodes.FromImport):
        yield from (name if isinstance(name, str) else name[1] for name in imported.names)


def _free(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """Each name that nothing declares, where it is first used."""
    if any(filter_.name not in _parser().filters for filter_ in tree.find_all(nodes.Filter)):
        return  # a fault of its own, which would stop the search for these
    free = find_undeclared_variables(tree) - CONTEXT_NAMES - _parser().globals.keys()
    for name in tree.find_all(nodes.Name):
        if name.ctx == "load" and name.name in free:
            free.discard(name.name)
            yield name.lineno, name.name
