"""What the text of a template file tells without running it: what it extends, names and calls."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Final, TypeVar

from attrs import frozen
from jinja2 import DictLoader, nodes
from jinja2.meta import find_undeclared_variables

from notifyd.render.sandbox import CONTEXT_NAMES, Sandbox

_Node = TypeVar("_Node", bound=nodes.Node)

BY_EXPRESSION: Final = None
"""Stands for a template that a file refers to by an expression instead of its name."""


@frozen
class Outline:
    """Pairs are of a line and a name.

    `blocks` are all that it has; `loose` those that stand inside no other; `printed` those that it prints by
    `self.NAME()`.
    `parent` is the file it extends; `refers` all that it extends, includes or imports; `unknown` the filters
    and tests that do not exist; `sets` the names that it sets or imports, `free` those that it does not. A part
    (its name begins with `_`) has none that are free: it may use what the files that include it have set.
    """

    parent: str | None
    refers: tuple[tuple[int, str | None], ...]
    unknown: tuple[tuple[int, str], ...]
    blocks: frozenset[str]
    loose: tuple[tuple[int, str], ...]
    printed: frozenset[str]
    sets: frozenset[str]
    free: tuple[tuple[int, str], ...]


@lru_cache(maxsize=512)
def outline(key: str, path: str, text: str) -> Outline:
    """The outline of a file, cached: most are the same at every reload. Raises `jinja2.TemplateSyntaxError`."""
    tree = _parser().parse(text, key, path)
    found = _Nodes(tree)
    return Outline(
        parent=_parent(found),
        refers=tuple(_refers(found)),
        unknown=tuple(_unknown(found)),
        blocks=frozenset(block.name for block in found.of(nodes.Block)),
        loose=tuple(_loose(found)),
        printed=frozenset(_printed(found)),
        sets=frozenset(_sets(found)),
        free=() if key.startswith("_") else tuple(_free(found)),
    )


class _Nodes:
    """The nodes of a template in the order of its text, found by one walk: walking is what takes time."""

    def __init__(self, tree: nodes.Template) -> None:
        self.tree = tree
        self._all = tuple(tree.find_all(nodes.Node))

    def of(self, *kinds: type[_Node]) -> Iterator[_Node]:
        return (node for node in self._all if isinstance(node, kinds))


@cache
def _parser() -> Sandbox:
    return Sandbox(DictLoader({}))


def _parent(found: _Nodes) -> str | None:
    extends = next(found.of(nodes.Extends), None)
    return str(extends.template.value) if extends and isinstance(extends.template, nodes.Const) else None


def _refers(found: _Nodes) -> Iterator[tuple[int, str | None]]:
    for node in found.of(nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport):
        wanted = getattr(node, "template", None)
        yield node.lineno, str(wanted.value) if isinstance(wanted, nodes.Const) else BY_EXPRESSION


def _loose(found: _Nodes) -> Iterator[tuple[int, str]]:
    nested = {id(inner) for block in found.of(nodes.Block) for inner in block.find_all(nodes.Block)}
    return ((block.lineno, block.name) for block in found.of(nodes.Block) if id(block) not in nested)


def _printed(found: _Nodes) -> Iterator[str]:
    for read in found.of(nodes.Getattr):
        if isinstance(read.node, nodes.Name) and read.node.name == "self":
            yield read.attr


def _unknown(found: _Nodes) -> Iterator[tuple[int, str]]:
    """Filters and tests that do not exist. Jinja's compiler reports them too, except those inside an `if`."""
    for filter_ in found.of(nodes.Filter):
        if filter_.name not in _parser().filters:
            yield filter_.lineno, f"unknown filter {filter_.name!r}"
    for test in found.of(nodes.Test):
        if test.name not in _parser().tests:
            yield test.lineno, f"unknown test {test.name!r}"


def _sets(found: _Nodes) -> Iterator[str]:
    yield from (name.name for name in found.of(nodes.Name) if name.ctx == "store")
    yield from (macro.name for macro in found.of(nodes.Macro))
    yield from (imported.target for imported in found.of(nodes.Import))
    for imported in found.of(nodes.FromImport):
        yield from (name if isinstance(name, str) else name[1] for name in imported.names)


def _free(found: _Nodes) -> Iterator[tuple[int, str]]:
    """Each name that nothing declares, where it is first used."""
    if any(filter_.name not in _parser().filters for filter_ in found.of(nodes.Filter)):
        return  # a fault of its own, which would stop the search for these
    given = CONTEXT_NAMES | _parser().globals.keys() | set(_sets(found))
    read = [name for name in found.of(nodes.Name) if name.ctx == "load" and name.name not in given]
    # Jinja finds these by compiling, which many templates can be spared: they read nothing but what is given.
    free = find_undeclared_variables(found.tree) - given if read else set()
    for name in read:
        if name.name in free:
            free.discard(name.name)
            yield name.lineno, name.name


def plural_forms(key: str, path: str, text: str) -> Iterator[tuple[int, frozenset[str]]]:
    """The line of each filter `plural` in a file that parses, and the forms that it gives."""
    for node in _parser().parse(text, key, path).find_all(nodes.Filter):
        if node.name == "plural":
            yield node.lineno, frozenset(str(one.key) for one in node.kwargs)


def texts_set(key: str, path: str, text: str) -> Iterator[tuple[str, str]]:
    """The texts that a file which parses sets in objects, each with its name, such as `words.of`."""
    for node in _parser().parse(text, key, path).find_all(nodes.Assign):
        if isinstance(node.target, nodes.Name) and isinstance(node.node, nodes.Dict):
            for pair in node.node.items:
                if isinstance(pair.key, nodes.Const) and isinstance(pair.value, nodes.Const):
                    yield f"{node.target.name}.{pair.key.value}", str(pair.value.value)
