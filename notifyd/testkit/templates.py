"""The part of the conformance kit for packages of templates: each message, in each language, over odd events."""

from __future__ import annotations

import html
import importlib.resources
import json
import re
import subprocess  # nosec B404 # a project is built in a process of its own
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest
from attrs import frozen

from notifyd.config.first_party import FIRST_PARTY
from notifyd.errors import RenderError
from notifyd.model import Level
from notifyd.plugin import SECOND, TemplateSource
from notifyd.render.locales import parse_locale
from notifyd.render.render import Digest, DigestItem, Rendered, TemplateSet
from notifyd.render.template_outline import plural_forms, texts_set
from notifyd.render.templating import BUILT_IN
from notifyd.testkit.bounds import demand
from notifyd.testkit.plugins import examined, plugin_near
from notifyd.testkit.samples import LINK, NOW

_ODD: Final[tuple[Any, ...]] = (None, True, 7, "text", [], ["text"], {}, {"a": [{}]})
"""What an event can hold where a template expects something else."""

_MANY: Final = 1_000  # elements of a list
_LONG: Final = 16_384  # characters of a text, the most that an event has
_COUNTS: Final = range(1_001)  # for which a language's plural forms are needed
_MARKUP: Final = "\"'><zebra onload=x>"
_SCRIPT: Final = "javascript:zebra()"
_RUNS: Final = re.compile(r"""(?:href|src)\s*=\s*(?:["']\s*)?javascript:""", re.IGNORECASE)
_PLACE: Final = re.compile(r"%[sd]")
_ITEMS: Final = tuple(DigestItem(f"Deploy service {n}", LINK, Level.WARNING) for n in (1, 2))
_DIGEST: Final = Digest(3, _ITEMS, NOW, NOW + 90 * SECOND, "releases")


class _Shown(HTMLParser):
    """What a page shows: its text, without its title and its styles."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []
        self._hidden = ""

    @classmethod
    def of(cls, page: str) -> str:
        parser = cls()
        parser.feed(page)
        parser.close()
        return " ".join(parser._texts)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("style", "title"):
            self._hidden = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._texts.append(data)


@frozen
class _Case:
    """A template in one language over one event, its body written by the block `vendor` where that is not ""."""

    template: str
    locale: str
    vendor: str
    event: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.template}.{self.locale}{f' for {self.vendor}' * bool(self.vendor)}"


@pytest.mark.asyncio
class TemplatePackageConformance:
    """What must be true of every folder of templates: `class TestMine(TemplatePackageConformance)` is its test."""

    source: ClassVar[TemplateSource]

    events: ClassVar[Mapping[str, Sequence[Mapping[str, Any]]]]
    """By the name of each template, the events it is for, as rules see them: one at least."""

    default_locale: ClassVar[str] = "en"
    """The language that is written first: the others have to say the same."""

    channel_types: ClassVar[frozenset[str]] = frozenset()
    """Types of channels that have blocks here, and come neither with notifyd nor with this plugin."""

    hooks: ClassVar[object | None] = None
    """The module, or object, that bears the hooks: looked for in the source's package where it is None."""

    # --- what there is --------------------------------------------------------------------------------------

    def plugin(self) -> object:
        return self.hooks or plugin_near(self.source.package, "notifyd_template_sources", self.source)

    def files(self) -> list[str]:
        """The names in its folder."""
        folder = importlib.resources.files(self.source.package).joinpath(self.source.path)
        return sorted(one.name for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))

    def loaded(self) -> TemplateSet:
        """Its templates, as the daemon loads them."""
        types = {*FIRST_PARTY, *examined(self.plugin()).channel_types, *self.channel_types}
        sources = [] if self.source == BUILT_IN else [self.source]
        return TemplateSet.load(sources, [], self.default_locale, types)

    def written(self, templates: TemplateSet) -> dict[str, list[str]]:
        """The languages that each of its templates is written in, by its name."""
        own = {
            name: [
                tag
                for tag in templates.locales(name)
                if templates.written_in(name, tag).source == self.source
            ]
            for name in templates.names
        }
        return {name: tags for name, tags in own.items() if tags}

    def cases(self, templates: TemplateSet) -> Iterator[_Case]:
        """Each of its templates in each of its languages, with each of its blocks, over each event."""
        for name, tags in self.written(templates).items():
            for tag in tags:
                for vendor in ("", *templates.vendors(name, tag)):
                    for event in self.events.get(name, ()):
                        yield _Case(name, tag, vendor, event)

    def render(self, templates: TemplateSet, case: _Case, event: Mapping[str, Any]) -> Rendered:
        """The message of a case about `event`."""
        digest = case.template == "digest" or case.template.endswith("-digest")
        try:
            return templates.render(
                case.template,
                case.locale,
                event=event,
                link=None if digest else LINK,
                digest=_DIGEST if digest else None,
                channel_type=case.vendor,
            )
        except RenderError as error:
            raise AssertionError(f"{case} fails: {error.template}:{error.line}: {error.detail}") from error

    # --- its files ------------------------------------------------------------------------------------------

    async def test_the_daemon_takes_its_folder(self) -> None:
        found = examined(self.plugin())
        demand(not found.faults, f"the daemon refuses it: {'; '.join(map(str, found.faults))}")
        demand(self.source in found.template_sources, f"the plugin's hooks do not give {self.source}")

    async def test_each_file_is_one_that_the_daemon_uses(self) -> None:
        faults = [str(fault) for fault in self.loaded().left_out]
        demand(not faults, f"the daemon does without: {'; '.join(faults)}")
        unread = [name for name in self.files() if not name.endswith((".txt", ".html", ".py", ".md"))]
        demand(not unread, f"nothing reads {', '.join(unread)}: a template is named NAME.LOCALE.txt")

    async def test_each_file_is_in_the_wheel(self) -> None:
        inside = wheel_of(self.source.package)
        folder = f"{self.source.package.replace('.', '/')}/{self.source.path}"
        lost = [name for name in self.files() if inside is not None and f"{folder}/{name}" not in inside]
        demand(
            not lost,
            f"these are not in the wheel, so that nobody who installs it has them: {', '.join(lost)}; name them as"
            " data of the package in pyproject.toml",
        )

    async def test_there_is_an_event_for_each_template_and_a_template_for_each(self) -> None:
        names = self.written(self.loaded()).keys()
        demand(names, f"there is no template in {self.source.package}/{self.source.path}")
        lost = sorted(self.events.keys() - names)
        demand(not lost, f"there is no template, or none that can be used, for: {', '.join(lost)}")
        untried = [name for name in names if not self.events.get(name)]
        demand(not untried, f"name an event in `events` for: {', '.join(sorted(untried))}")

    # --- its messages ---------------------------------------------------------------------------------------

    async def test_each_message_has_a_title_a_text_and_a_label_for_its_link(self) -> None:
        templates = self.loaded()
        for case in self.cases(templates):
            made = self.render(templates, case, case.event)
            demand(
                made.title != case.template, f"{case} has an empty title: its readers see the template's name"
            )
            demand(made.body.strip() or made.fields, f"{case} has neither a text nor facts")
            host = LINK.split("/")[2]
            labels = [action.label for action in made.actions if action.url == LINK]
            demand(host not in labels, f"{case} has no label for its link: write a block `action`")

    async def test_the_mail_says_what_the_text_says(self) -> None:
        templates = self.loaded()
        for case in self.cases(templates):
            made = self.render(templates, case, case.event)
            page = made.html or ""
            shown = _plain(_Shown.of(page))
            facts = [text for fact in made.fields for text in (fact.name, fact.value)]
            lines = [line.removeprefix("- ").strip() for line in made.body.splitlines()]
            lost = [text for text in (made.title, *lines, *facts) if _plain(text) not in shown]
            lost += [action.url for action in made.actions if html.escape(action.url) not in page]
            demand(not lost, f"the mail of {case} loses: {lost[:3]}")

    async def test_what_an_event_holds_is_escaped(self) -> None:
        templates = self.loaded()
        for case in self.cases(templates):
            for text in (_MARKUP, _SCRIPT):
                page = self.render(templates, case, _with_texts(case.event, text)).html or ""
                demand(
                    "<zebra" not in page, f"the mail of {case} has an event's text as HTML: leave out `|safe`"
                )
                demand(not _RUNS.search(page), f"the mail of {case} links to whatever address an event has")

    async def test_no_event_makes_it_fail(self) -> None:
        templates = self.loaded()
        for case in self.cases(templates):
            for event in _oddly(case.event):
                self.render(templates, case, event)

    async def test_no_event_makes_it_cost_too_much(self) -> None:
        templates = self.loaded()
        for case in self.cases(templates):
            self.render(templates, case, _grown(case.event))

    # --- its languages --------------------------------------------------------------------------------------

    async def test_each_template_is_written_in_each_language(self) -> None:
        written = self.written(self.loaded())
        every = set[str]().union(*written.values())
        for name, tags in written.items():
            lost = sorted(every - set(tags))
            demand(not lost, f"{name} is not written in {', '.join(lost)}: its readers get another language")

    async def test_each_language_says_the_same(self) -> None:
        templates = self.loaded()
        for name, tags in self.written(templates).items():
            first = self.default_locale if self.default_locale in tags else tags[0]
            for tag in tags:
                lost = self._gaps(templates, name, first, tag)
                demand(not lost, f"{name}.{tag} says other than {name}.{first}: {'; '.join(lost)}")

    def _gaps(self, templates: TemplateSet, name: str, first: str, tag: str) -> list[str]:
        words, own = (_words(templates, name, one) for one in (first, tag))
        gaps = [f"no {word}" for word in sorted(words.keys() - own.keys())]
        gaps += [f"{word} has other places" for word in words.keys() & own.keys() if words[word] != own[word]]
        blocks = set(templates.vendors(name, first)) - set(templates.vendors(name, tag))
        gaps += [f"no block {block}" for block in sorted(blocks)]
        for event in self.events.get(name, ()):
            one, other = (self.render(templates, _Case(name, it, "", event), event) for it in (first, tag))
            if len(one.fields) != len(other.fields):
                gaps.append(f"{len(other.fields)} facts in place of {len(one.fields)}")
        return gaps

    async def test_plurals_have_the_forms_of_their_language(self) -> None:
        templates = self.loaded()
        for name in self.files():
            file, locale = templates.file(name), parse_locale(f"{name}...".split(".")[1])
            if file is None or locale is None or file.source != self.source:
                continue
            needed = {str(locale.plural_form(count)) for count in _COUNTS}
            for line, forms in plural_forms(file.key, file.path, file.text):
                lost = sorted(needed - forms)
                demand(
                    not lost, f"{file.path}:{line}: plural without the form {', '.join(lost)} of the language"
                )
                strange = sorted(forms - {*locale.plural_form.tags, "other"})
                demand(
                    not strange, f"{file.path}:{line}: the language has no plural form {', '.join(strange)}"
                )


def wheel_of(package: str) -> set[str] | None:
    """The names in the wheel that the package's project makes; None where it has no project beside it.

    Skips the test where the project's build backend is not installed.
    """
    folder = Path(str(importlib.resources.files(package)))
    project = next((one for one in folder.parents if (one / "pyproject.toml").is_file()), None)
    if project is None:
        return None
    system = tomllib.loads((project / "pyproject.toml").read_text("utf-8")).get("build-system", {})
    backend = system.get("build-backend", "setuptools.build_meta")
    with tempfile.TemporaryDirectory() as made:
        paths = [str(project / path) for path in system.get("backend-path", ())]
        done = subprocess.run(  # noqa: S603 # nosec B603 # the author's own build
            [sys.executable, "-c", _BUILD, json.dumps([paths, backend, made])],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == _NO_BACKEND:
            pytest.skip(f"{backend} is not installed: nothing shows that the templates are in the wheel")
        demand(done.returncode == 0, f"the project cannot be built: {done.stderr[-400:]}")
        with zipfile.ZipFile(next(Path(made).glob("*.whl"))) as wheel:
            return set(wheel.namelist())


_NO_BACKEND: Final = 77
_BUILD: Final = f"""
import importlib, json, sys
paths, backend, made = json.loads(sys.argv[1])
sys.path[:0] = paths
module, _, thing = backend.partition(":")
try:
    found = importlib.import_module(module)
except ImportError:
    sys.exit({_NO_BACKEND})
for part in filter(None, thing.split(".")):
    found = getattr(found, part)
found.build_wheel(made)
"""


def _words(templates: TemplateSet, name: str, tag: str) -> dict[str, list[str]]:
    """What a template and its page set as words, by their names, with the places that each leaves for a value."""
    files = {one.key: one for one in (templates.written_in(name, tag), templates.page_of(name, tag))}
    found = [text for one in files.values() for text in texts_set(one.key, one.path, one.text)]
    return {word: _PLACE.findall(text) for word, text in found}


def _plain(text: str) -> str:
    return " ".join(text.split())


def _with_texts(value: Any, text: str) -> Any:
    """A value with `text` for each of its texts, but for those that say what kind of event it is."""
    if isinstance(value, Mapping):
        kept = ("kind", "action", "status")
        return {name: one if name in kept else _with_texts(one, text) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(one, text) for one in value]
    return text if isinstance(value, str) else value


def _grown(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with long texts and long lists."""
    return {name: _longer(value) for name, value in event.items()}


def _longer(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _grown(value)
    if isinstance(value, list | tuple):
        return [*value] * (_MANY // max(1, len(value)))
    return f"{value} " * (_LONG // (len(value) + 1)) if isinstance(value, str) else value


def _oddly(event: Mapping[str, Any], free: bool = False) -> Iterator[Mapping[str, Any]]:
    """The event without each of its members; and, where its sender is free, with each odd value in its place.

    Of the rest the contract says what it is.
    """
    for name, value in event.items():
        yield {key: one for key, one in event.items() if key != name}
        odd = free or name == "data" or name.startswith("x-")
        yield from ({**event, name: one} for one in _ODD if odd)
        if isinstance(value, Mapping):
            yield from ({**event, name: inner} for inner in _oddly(value, odd or name == "parameters"))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield from ({**event, name: [inner]} for inner in _oddly(value[0], odd))
