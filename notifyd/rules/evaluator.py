"""`cel`, the compiled part of `common-expression-language`, loaded without the package around it.

The package's `__init__` imports its command line, and with it prompt_toolkit, typer, rich and pygments: 250
modules, 11 MB and 0.13 s of a start. This loads the extension module by the recipe in `importlib`'s documentation,
under its own name: it can be initialised once in a process, and whoever imports the package gets the same module.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Final

__all__ = ["cel"]

_NAME: Final = "cel.cel"


def _load() -> ModuleType:
    if (loaded := sys.modules.get(_NAME)) is not None:
        return loaded
    package = importlib.util.find_spec("cel")  # finds it and runs nothing of it
    spec = PathFinder.find_spec(_NAME, package.submodule_search_locations) if package else None
    if spec is None or spec.loader is None:
        raise ImportError(f"{_NAME} of common-expression-language is not installed", name=_NAME)
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    import cel
else:
    cel = _load()
