"""Importing a package without a part of it that is not used here and costs more than the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = ["without"]


@contextmanager
def without(name: str) -> Iterator[None]:
    """While the block runs, importing the module `name` gives an empty one; afterwards, the module itself.

    For a package that imports a module of its own which nothing else in it needs. Does nothing where the module
    is there already. Meant for the imports of a module, which one thread makes.
    """
    if name in sys.modules:
        yield
        return
    empty = sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        del sys.modules[name]
        package, _, attribute = name.rpartition(".")
        if getattr(sys.modules.get(package), attribute, None) is empty:
            delattr(sys.modules[package], attribute)
