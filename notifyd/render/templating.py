"""Template files: which there are, whether they compile, and the sandbox they run in.

A template is a set of files `NAME.LOCALE.txt` (the blocks of `BLOCKS`, and those named for a type of channel) and,
where a mail shall look other than usual, `NAME.LOCALE.html`. Files that begin with `_` are parts for others
to extend or include. Every built-in file is also known as `builtin/FILE`, so that a file of its name can extend
it.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from types import CodeType
from typing import Any, Final

from attrs import evolve, field, frozen
from jinja2 import (
    BaseLoader,
    BytecodeCache,
    Environment,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.bccache import Bucket

from notifyd.config.structure import did_you_mean
from notifyd.errors import ConfigError, Fault
from notifyd.plugin import TemplateSource
from notifyd.render.locales import parse_locale, tag_of
from notifyd.render.sandbox import OwnTemplates, Sandbox
from notifyd.render.template_outline import BY_EXPRESSION, Outline, outline

BUILT_IN: Final = TemplateSource("notifyd")
"""The templates that come with notifyd: looked at last."""

BLOCKS: Final = ("title", "body", "fields", "action", "mine", "note")
"""What a message is made of."""

_ALIAS: Final = "builtin/"
_BLOCK: Final = re.compile(r"\{%-?\s*block\s+(\w+)")
_FILE: Final = re.compile(r"(?P<name>[a-z0-9][a-z0-9_-]*)\.(?P<locale>[A-Za-z0-9_-]+)\.(?P<kind>txt|html)")


@frozen
class TemplateFile:
    """One file: `key` is what others extend it by, `path` what a person knows it by. `source` is who brings it,
    None the operator."""

    key: str
    path: str
    text: str
    source: TemplateSource | None

    @property
    def replaceable(self) -> bool:
        """Is it a plugin's, so that notifyd does without it where it is broken?"""
        return self.source not in (None, BUILT_IN)


@frozen
class Library:
    """All templates: the keys of their files by name, then by locale tag. Parts are in `files` only.

    `files` are all that there are, by their keys. `vendors` are the blocks for one type of channel that a text
    has, by its key. `left_out` says what is wrong with the files of plugins that notifyd does without.
    """

    environment: Sandbox
    files: Mapping[str, TemplateFile]
    texts: dict[str, dict[str, str]] = field(factory=dict)
    pages: dict[str, dict[str, str]] = field(factory=dict)
    vendors: dict[str, frozenset[str]] = field(factory=dict)
    left_out: tuple[Fault, ...] = ()

    def compiled(self, key: str) -> Template:
        """One that comes with notifyd is compiled when it is first asked for, so that no start waits for it."""
        return self.environment.get_template(key)


class _Files(BaseLoader):
    """Each file in the environment that suits it, whichever of the two asks for it."""

    def __init__(self, files: Mapping[str, TemplateFile]) -> None:
        self._files = files
        self.sandbox, self._own = Sandbox(self, _COMPILED), OwnTemplates(self, _COMPILED)
        self._own.cache = self.sandbox.cache

    def load(
        self,
        environment: Environment,
        name: str,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002 - Jinja's name
    ) -> Template:
        own = name in self._files and self._files[name].source == BUILT_IN
        return super().load(self._own if own else self.sandbox, name, globals)

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        if template not in self._files:
            raise TemplateNotFound(template)
        file = self._files[template]
        return file.text, file.path, None


class _CompiledBefore(BytecodeCache):
    """Code of the files as they were at the last load: a reload compiles only what has changed."""

    def __init__(self) -> None:
        self._codes: dict[str, tuple[str, CodeType]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        checksum, code = self._codes.get(bucket.key, ("", None))
        if checksum == bucket.checksum:
            bucket.code = code

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._codes[bucket.key] = bucket.checksum, bucket.code


_COMPILED: Final = _CompiledBefore()


def vendor_block(channel_type: str) -> str:
    """The block that writes the body for channels of a type: Jinja's names have no hyphens."""
    return channel_type.replace("-", "_")


def load_library(
    sources: Sequence[TemplateSource], dirs: Sequence[Path], types: Iterable[str] = ()
) -> Library:
    """Read every file. Of two with one name the first is taken: `dirs`, `sources`, the built-ins.

    `types` are those of channels, for which a text may have a block. All files are checked and compiled but those
    that come with notifyd, which are right: they are where another replaces a part of them.

    A file of a plugin that is broken is left out, and the next of its name is taken. Raises `ConfigError` with
    every fault of every other file.
    """
    faults: list[Fault] = []
    left_out: list[Fault] = []
    found = [*_of_dirs(dirs, faults), *_of_sources(sources, left_out)]
    vendors = frozenset(map(vendor_block, types)) - _taken(found)
    while True:
        files: dict[str, TemplateFile] = {}
        for file in found:
            files.setdefault(file.key, file)
        library, wrong = _compile(files, vendors)
        blamed = _blamed(files, wrong)
        if not blamed:
            break
        left_out += (fault for file in blamed for fault in wrong.get(file.key, [_broke(file)]))
        found = [file for file in found if file not in blamed]
    faults += (fault for of_file in wrong.values() for fault in of_file)
    if faults:
        raise ConfigError([*faults, *left_out])
    return evolve(library, left_out=tuple(left_out))


def _blamed(files: Mapping[str, TemplateFile], wrong: Mapping[str, list[Fault]]) -> list[TemplateFile]:
    """The files of plugins to do without. Where a built-in file is wrong, that are all which replace a part: it
    was right with its own."""
    blamed = [files[key] for key in wrong if files[key].replaceable]
    if not blamed and any(files[key].source == BUILT_IN for key in wrong):
        blamed = [file for key, file in files.items() if file.replaceable and _ALIAS + key in files]
    return blamed


def _taken(found: Iterable[TemplateFile]) -> set[str]:
    """The blocks that have another meaning: a type of channel of such a name has no block of its own."""
    own = (file.text for file in found if file.source == BUILT_IN)
    return {*BLOCKS, *(name for text in own for name in _BLOCK.findall(text))}


def _broke(file: TemplateFile) -> Fault:
    return Fault(file.path, "does not go with the built-in templates that use it")


def _compile(
    files: Mapping[str, TemplateFile], vendors: frozenset[str]
) -> tuple[Library, dict[str, list[Fault]]]:
    """All of them compiled, but for those that something is wrong with, and what that is, by their keys."""
    environment = _Files(files).sandbox
    library = Library(environment, files)
    doubtful = _doubtful(files)
    wrong: dict[str, list[Fault]] = {}
    for key, file in files.items():
        if key.startswith(_ALIAS):
            continue
        if found := list(_check(environment, file, files)) if key in doubtful else []:
            wrong[key] = found
        else:
            _add(library, key)
    for key, fault in dict.fromkeys(_check_blocks(library, doubtful, vendors)):
        wrong.setdefault(key, []).append(fault)
    return library, wrong


def _doubtful(files: Mapping[str, TemplateFile]) -> frozenset[str]:
    """The files to check: others' than notifyd's, and all where one of them replaces a part that notifyd's use."""
    others = frozenset(key for key, file in files.items() if file.source != BUILT_IN)
    replaced = any(key.startswith("_") and _ALIAS + key in files for key in others)
    return frozenset(files) if replaced else others


def _add(library: Library, key: str) -> None:
    match = _FILE.fullmatch(key)
    locale = parse_locale(match["locale"]) if match else None
    if match is None or locale is None:
        return  # a part
    kind = library.texts if match["kind"] == "txt" else library.pages
    kind.setdefault(match["name"], {}).setdefault(tag_of(locale), key)


def _of_dirs(dirs: Sequence[Path], faults: list[Fault]) -> Iterator[TemplateFile]:
    for index, folder in enumerate(dirs):
        if folder.is_dir():
            yield from _read(folder, str(folder), None, faults)
        else:
            faults.append(Fault(f"templates.dirs[{index}]", f"{folder} is not a folder"))


def _of_sources(sources: Sequence[TemplateSource], faults: list[Fault]) -> Iterator[TemplateFile]:
    for source in (*sources, BUILT_IN):
        where = f"{source.package}/{source.path}"
        try:
            folder = importlib.resources.files(source.package).joinpath(source.path)
        except Exception as error:  # noqa: BLE001 - a plugin's package runs any code at import
            faults.append(
                Fault(where, f"is not in any package that can be imported ({type(error).__name__})")
            )
            continue
        for file in _read(folder, where, source, faults):
            yield file
            if source == BUILT_IN:
                yield evolve(file, key=_ALIAS + file.key)


def _read(
    folder: Traversable, where: str, source: TemplateSource | None, faults: list[Fault]
) -> Iterator[TemplateFile]:
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
        if not entry.is_file():  # a pipe would be waited for
            faults.append(Fault(path, "is not a file"))
            continue
        try:
            yield TemplateFile(entry.name, path, entry.read_text("utf-8"), source)
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
    """What is wrong with one file, without running it. A file without a fault is compiled."""
    try:
        seen = outline(file.key, file.path, file.text)
        found = sorted({*seen.unknown, *_bad_references(seen, file, files)})
        found = found or list(_unknown_names(seen, file, files))
        yield from (Fault(f"{file.path}:{line}", what) for line, what in found)
        if not found:
            environment.get_template(file.key)
    except TemplateSyntaxError as error:
        yield Fault(f"{file.path}:{error.lineno}", error.message or "does not compile")
    except TemplateError as error:
        yield Fault(file.path, error.message or "does not compile")
    except Exception as error:  # noqa: BLE001 - compiling works out what is constant, and recurses as deep as the text
        yield Fault(file.path, f"does not compile: {type(error).__name__}")


def _bad_references(
    seen: Outline, file: TemplateFile, files: Mapping[str, TemplateFile]
) -> Iterator[tuple[int, str]]:
    for line, wanted in seen.refers:
        if wanted is BY_EXPRESSION:
            yield line, "names a template by an expression: name it in quotes"
        elif wanted == file.key:
            yield line, f"refers to itself: a built-in of this name is '{_ALIAS}{file.key}'"
        elif wanted not in files:
            yield line, f"there is no template file {wanted!r}"


def _unknown_names(
    seen: Outline, file: TemplateFile, files: Mapping[str, TemplateFile]
) -> Iterator[tuple[int, str]]:
    if file.key.startswith("_"):
        return  # a part may use what the files that include it have set
    known = {name for one in _ancestry(file, files) for name in one.sets}
    yield from ((line, f"unknown name {name!r}") for line, name in seen.free if name not in known)


def _check_blocks(
    library: Library, doubtful: frozenset[str], vendors: frozenset[str]
) -> Iterator[tuple[str, Fault]]:
    """Files that compile and are of no use, each by its key; and what nothing prints."""
    files = library.files
    for key in (one for by_locale in library.texts.values() for one in by_locale.values() if one in doubtful):
        file = files[key]
        blocks = {name for one in _ancestry(file, files) for name in one.blocks}
        if own := blocks & vendors:
            library.vendors[file.key] = frozenset(own)
        for name in sorted({"title", "body"} - blocks):
            yield file.key, Fault(file.path, f"has no block {name!r}")
        yield from _unused_blocks(file, files, {*BLOCKS, *vendors})
    for name, by_locale in library.pages.items():
        for key in filter(doubtful.__contains__, by_locale.values()):
            file = files[key]
            yield from _unused_blocks(file, files)
            if name not in library.texts and name != "mail":
                yield file.key, Fault(file.path, f"there is no text for it: a file {name}.LOCALE.txt")


def _unused_blocks(
    file: TemplateFile, files: Mapping[str, TemplateFile], known: Iterable[str] | None = None
) -> Iterator[tuple[str, Fault]]:
    """Each block of a file, and of those it extends, that nothing prints: most often a misspelt one, by its file.

    Of a text `known` are printed, and nothing else of the first of its ancestors; of a page that one is, whole.
    """
    members = list(family(file, files))
    printed = {name for _, one in members for name in one.printed}
    for place, (owner, one) in enumerate(members):
        above = {name for _, ancestor in members[place + 1 :] for name in ancestor.blocks}
        if known is None and one.parent is None:
            continue
        usable = printed | above | set(known or ())
        for line, name in one.loose:
            if name not in usable:
                near = did_you_mean(name, usable) or f"; there are: {', '.join(sorted(usable))}"
                yield owner.key, Fault(f"{owner.path}:{line}", f"nothing prints the block {name!r}{near}")


def _ancestry(file: TemplateFile, files: Mapping[str, TemplateFile]) -> Iterator[Outline]:
    return (one for _, one in family(file, files))


def family(file: TemplateFile, files: Mapping[str, TemplateFile]) -> Iterator[tuple[TemplateFile, Outline]]:
    """A file and those that it extends, with their outlines. One that does not parse is reported elsewhere."""
    seen: set[str] = set()
    key: str | None = file.key
    while key is not None and key in files and key not in seen:
        seen.add(key)
        try:
            found = outline(key, files[key].path, files[key].text)
        except TemplateSyntaxError:
            return
        yield files[key], found
        key = found.parent
