"""Template files: which there are, whether they compile, and the sandbox they run in.

A template is a set of files `NAME.LOCALE.txt` (the blocks `title`, `body`, `fields`, `action`) and, where a
mail shall look other than usual, `NAME.LOCALE.html`. Files that begin with `_` are parts for others to extend
or include. Every built-in file is also known as `builtin/FILE`, so that a file of its name can extend it.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from attrs import frozen
from jinja2 import (
    BaseLoader,
    Environment,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    nodes,
)
from jinja2.meta import find_undeclared_variables

from notifyd.errors import ConfigError, Fault
from notifyd.locales import parse_locale, tag_of
from notifyd.plugin import TemplateSource
from notifyd.sandbox import CONTEXT_NAMES, Sandbox

BUILT_IN: Final = TemplateSource("notifyd")
"""The templates that come with notifyd: looked at last."""

_FILE: Final = re.compile(r"(?P<name>[a-z0-9][a-z0-9_-]*)\.(?P<locale>[A-Za-z0-9_-]+)\.(?P<kind>txt|html)")


@frozen
class TemplateFile:
    """One file: `key` is what others extend it by, `path` what a person knows it by."""

    key: str
    path: str
    text: str


@frozen
class Library:
    """All templates, compiled: by name, then by locale tag. `parts` are in `environment` only."""

    environment: Sandbox
    texts: dict[str, dict[str, Template]]
    pages: dict[str, dict[str, Template]]


class _Files(BaseLoader):
    def __init__(self, files: Mapping[str, TemplateFile]) -> None:
        self._files = files

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        if template not in self._files:
            raise TemplateNotFound(template)
        file = self._files[template]
        return file.text, file.path, None


def load_library(sources: Sequence[TemplateSource], dirs: Sequence[Path]) -> Library:
    """Read and compile every file. Of two with one name the first is taken: `dirs`, `sources`, the built-ins.

    Raises `ConfigError` with every fault of every file.
    """
    faults: list[Fault] = []
    files: dict[str, TemplateFile] = {}
    for file in _all_files(sources, dirs, faults):
        files.setdefault(file.key, file)
    environment = Sandbox(_Files(files))
    library = Library(environment, {}, {})
    for file in files.values():
        found = list(_check(environment, file, files))
        faults += found
        if not found:
            _add(library, environment.get_template(file.key))
    faults += _check_blocks(library, files)
    if faults:
        raise ConfigError(faults)
    return library


def _add(library: Library, template: Template) -> None:
    match = _FILE.fullmatch(template.name or "")
    locale = parse_locale(match["locale"]) if match else None
    if match is None or locale is None:
        return  # a part
    kind = library.texts if match["kind"] == "txt" else library.pages
    kind.setdefault(match["name"], {}).setdefault(tag_of(locale), template)


def _all_files(
    sources: Sequence[TemplateSource], dirs: Sequence[Path], faults: list[Fault]
) -> Iterator[TemplateFile]:
    for index, folder in enumerate(dirs):
        if folder.is_dir():
            yield from _read(folder, str(folder), faults)
        else:
            faults.append(Fault(f"templates.dirs[{index}]", f"{folder} is not a folder"))
    for source in (*sources, BUILT_IN):
        where = f"{source.package}/{source.path}"
        try:
            folder_ = importlib.resources.files(source.package).joinpath(source.path)
        except (ModuleNotFoundError, TypeError):
            faults.append(Fault(where, "is not in any package that can be imported"))
            continue
        for file in _read(folder_, where, faults):
            yield file
            if source == BUILT_IN:
                yield TemplateFile(f"builtin/{file.key}", file.path, file.text)


def _read(folder: Traversable, where: str, faults: list[Fault]) -> Iterator[TemplateFile]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        faults.append(Fault(where, f"cannot be read: {error.strerror}"))
        return
    for entry in entries:
        path = f"{where}/{entry.name}"
        if not entry.name.endswith((".txt", ".html")) or entry.name.startswith("."):
            continue
        if not entry.name.startswith("_") and (fault := _name_fault(entry.name)):
            faults.append(Fault(path, fault))
            continue
        try:
            yield TemplateFile(entry.name, path, entry.read_text("utf-8"))
        except OSError as error:
            faults.append(Fault(path, f"cannot be read: {error.strerror}"))
        except UnicodeDecodeError as error:
            faults.append(Fault(path, f"is not UTF-8, at byte {error.start}"))


def _name_fault(name: str) -> str | None:
    match = _FILE.fullmatch(name)
    if match is None:
        return "must be named NAME.LOCALE.txt or NAME.LOCALE.html, or begin with _ where it is a part"
    return None if parse_locale(match["locale"]) else f"{match['locale']!r} is not a locale"


# --- checking ----------------------------------------------------------------------------------------------


def _check(environment: Sandbox, file: TemplateFile, files: Mapping[str, TemplateFile]) -> Iterator[Fault]:
    """What is wrong with one file, without running it."""
    try:
        tree = environment.parse(file.text, file.key, file.path)
        yield from _unknown_names(environment, tree, file, files)
        environment.compile(tree, file.key, file.path)
    except TemplateSyntaxError as error:
        yield Fault(f"{file.path}:{error.lineno}", error.message or "does not compile")
    except TemplateError as error:
        yield Fault(file.path, error.message or "does not compile")


def _unknown_names(
    environment: Sandbox, tree: nodes.Template, file: TemplateFile, files: Mapping[str, TemplateFile]
) -> Iterator[Fault]:
    for line, what in (*_unknown_filters(environment, tree), *_unknown_files(tree, file, files)):
        yield Fault(f"{file.path}:{line}", what)
    if file.key.rpartition("/")[2].startswith("_"):
        return  # a part may use what the files that include it have set
    known = CONTEXT_NAMES | environment.globals.keys() | _inherited_names(environment, tree, files)
    unknown = find_undeclared_variables(tree) - known
    for name in tree.find_all(nodes.Name):
        if name.ctx == "load" and name.name in unknown:
            unknown.discard(name.name)
            yield Fault(f"{file.path}:{name.lineno}", f"unknown name {name.name!r}")


def _inherited_names(
    environment: Sandbox, tree: nodes.Template, files: Mapping[str, TemplateFile]
) -> set[str]:
    """What the files that this one extends set, so that it can use it."""
    names: set[str] = set()
    seen: set[str] = set()
    parent = _parent(tree)
    while parent is not None and parent in files and parent not in seen:
        seen.add(parent)
        tree = environment.parse(files[parent].text)
        names |= {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
        parent = _parent(tree)
    return names


def _parent(tree: nodes.Template) -> str | None:
    extends = tree.find(nodes.Extends)
    return str(extends.template.value) if extends and isinstance(extends.template, nodes.Const) else None


def _unknown_filters(environment: Sandbox, tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """Jinja finds these when it compiles, but for those behind an `if`."""
    for filter_ in tree.find_all(nodes.Filter):
        if filter_.name not in environment.filters:
            yield filter_.lineno, f"unknown filter {filter_.name!r}"
    for test in tree.find_all(nodes.Test):
        if test.name not in environment.tests:
            yield test.lineno, f"unknown test {test.name!r}"


def _unknown_files(
    tree: nodes.Template, file: TemplateFile, files: Mapping[str, TemplateFile]
) -> Iterator[tuple[int, str]]:
    for node in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        wanted = getattr(node, "template", None)
        if not isinstance(wanted, nodes.Const):
            yield node.lineno, "names a template by an expression: name it in quotes"
        elif wanted.value == file.key:
            yield node.lineno, f"refers to itself: a built-in of this name is 'builtin/{file.key}'"
        elif wanted.value not in files:
            yield node.lineno, f"there is no template file {wanted.value!r}"


def _check_blocks(library: Library, files: Mapping[str, TemplateFile]) -> Iterator[Fault]:
    for template in _each(library.texts):
        chain = list(_ancestors(library.environment, template, files))
        defined = {name for one in chain for name in one.blocks}
        for name in ("title", "body"):
            if name not in defined:
                yield Fault(files[template.name or ""].path, f"has no block {name!r}")
    for name in library.pages.keys() - library.texts.keys() - {"mail"}:
        for template in library.pages[name].values():
            path = files[template.name or ""].path
            yield Fault(path, f"there is no text for it: a file {name}.LOCALE.txt")


def _each(templates: Mapping[str, dict[str, Template]]) -> Iterable[Template]:
    return (template for by_locale in templates.values() for template in by_locale.values())


def _ancestors(
    environment: Sandbox, template: Template, files: Mapping[str, TemplateFile]
) -> Iterator[Template]:
    seen: set[str] = set()
    key = template.name
    while key is not None and key not in seen:
        seen.add(key)
        yield environment.get_template(key)
        key = _parent(environment.parse(files[key].text))
