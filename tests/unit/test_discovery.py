"""Finding plugins: real distributions in a folder on the path; what is wrong with one hurts no other."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import field, frozen

from notifyd.config.first_party import FIRST_PARTY
from notifyd.plugin import ChannelType, RuleFunction, TemplateSource, hookimpl
from notifyd.registry.discovery import Discovered, discover

GROUP = "notifyd-test"

GOOD = """
from attrs import frozen
from notifyd.plugin import ChannelType, hookimpl

@frozen
class Config:
    url: str

def open_channel(config, context): ...

@hookimpl
def notifyd_channel_types():
    return [ChannelType("NAME", Config, open_channel)]
"""


class Site:
    """A folder of installed distributions, first on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self, distribution: str, source: str, *, name: str | None = None, module: str | None = None
    ) -> None:
        """Install `source` as a module with one entry point; `name` is the entry point's."""
        module = module or distribution.replace("-", "_")
        self.write(f"{module}.py", source)
        self.metadata(distribution, f"[{GROUP}]\n{name or distribution} = {module}\n")

    def metadata(self, distribution: str, entry_points: str, version: str = "1.2.3") -> None:
        folder = f"{distribution.replace('-', '_')}-{version}.dist-info"
        self.write(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        self.write(f"{folder}/entry_points.txt", entry_points)

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    def discover(self, *extra: object) -> Discovered:
        return discover(group=GROUP, extra=extra)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def good(name: str) -> str:
    return GOOD.replace("NAME", name)


def only_fault(found: Discovered) -> str:
    (fault,) = found.faults
    return str(fault)


@frozen
class Options:
    url: str = ""


def channel_type(name: str = "thing", **changes: Any) -> ChannelType:
    options: dict[str, Any] = {"name": name, "config": Options, "open": lambda config, context: None}
    return ChannelType(**options | changes)


def no_items() -> list[object]:
    return []


def plugin(*, types: Any = None, templates: Any = None, functions: Any = None) -> SimpleNamespace:
    """A plugin object whose hooks give these."""
    given = {
        "notifyd_channel_types": types,
        "notifyd_template_sources": templates,
        "notifyd_rule_functions": functions,
    }
    hooks = {name: hookimpl(lambda value=value: value) for name, value in given.items() if value is not None}
    return SimpleNamespace(__name__="the-plugin", **hooks)


# --- what works ---------------------------------------------------------------------------------------------


def test_a_plugin_is_found_with_its_distribution_and_all_it_brings(site: Site) -> None:
    site.write("thing_data/__init__.py", "")
    site.write("thing_data/templates/x.en.txt", "")
    source = """
    from notifyd.plugin import RuleFunction, TemplateSource

    notifyd_api = 1

    @hookimpl
    def notifyd_template_sources():
        yield TemplateSource("thing_data")

    @hookimpl
    def notifyd_rule_functions():
        return (RuleFunction("shout", str.upper),)
    """
    site.install("notifyd-thing", good("thing") + textwrap.dedent(source), name="thing")
    found = site.discover()
    assert found.faults == ()
    assert set(found.channel_types) == {"thing"}
    assert found.template_sources == (TemplateSource("thing_data"),)
    assert found.rule_functions == {"shout": str.upper}
    (info,) = found.plugins
    assert (info.name, info.distribution, info.version) == ("thing", "notifyd-thing", "1.2.3")
    assert set(info.provides) == {"channel thing", "templates thing_data/templates", "function shout"}


def test_an_object_can_be_a_plugin_without_a_distribution(site: Site) -> None:
    found = site.discover(plugin(types=[channel_type()]))
    assert set(found.channel_types) == {"thing"}
    assert found.plugins[0].name == "the-plugin"


def test_plugins_are_loaded_in_the_order_of_their_distributions_names(site: Site) -> None:
    for name in ("zeta", "alpha", "mid"):
        site.install(name, good(name))
    assert [info.name for info in site.discover().plugins] == ["alpha", "mid", "zeta"]


def test_two_searches_share_nothing(site: Site) -> None:
    site.install("alpha", good("alpha"))
    assert site.discover().faults == site.discover().faults == ()


def test_a_distribution_that_is_shadowed_on_the_path_counts_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("alpha", good("alpha"))
    above = Site(tmp_path / "above")
    above.install("Alpha", good("alpha"), name="alpha")
    monkeypatch.syspath_prepend(str(above.folder))
    found = site.discover()
    assert found.faults == ()
    assert len(found.plugins) == 1


def test_a_distribution_that_shadows_a_plugin_hides_it_though_it_is_none(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("alpha", good("alpha"))
    above = Site(tmp_path / "above")
    above.metadata("Alpha", "[console_scripts]\nalpha = alpha:main\n", version="2.0")
    monkeypatch.syspath_prepend(str(above.folder))
    assert site.discover().plugins == ()


def test_a_distribution_whose_folder_is_named_otherwise_is_found(site: Site) -> None:
    site.write("alpha.py", good("alpha"))
    site.write("other-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n")
    site.write("other-1.0.dist-info/entry_points.txt", f"[{GROUP}]\nalpha = alpha\n")
    assert [plugin.distribution for plugin in site.discover().plugins] == ["alpha"]


def test_what_a_distribution_says_of_itself_is_read_of_plugins_only(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be hundreds of others, and each takes half a millisecond."""
    site.install("alpha", good("alpha"))
    site.metadata("other", "[console_scripts]\nother = other:main\n")
    read: list[str] = []
    told = Path.read_text

    # Whichever finder is asked, the standard library's or that of its backport, which others may import.
    def read_text(self: Path, *args: Any, **kwargs: Any) -> str:
        text = told(self, *args, **kwargs)
        if self.name == "METADATA":
            read.append(text.split("Name: ")[1].splitlines()[0])
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    assert len(site.discover().plugins) == 1
    assert set(read) == {"alpha"}


def test_a_hook_for_a_later_notifyd_may_be_marked_optional(site: Site) -> None:
    later = SimpleNamespace(__name__="later", notifyd_new_hook=hookimpl(no_items, optionalhook=True))
    assert site.discover(later).faults == ()


# --- each trap ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("raise RuntimeError('no licence\\nsecond line')", "RuntimeError: no licence"),
        ("def broken(:", "SyntaxError: "),
        ("import sys; sys.exit('goodbye')", "SystemExit: goodbye"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
    ],
)
def test_an_entry_point_that_fails_to_import_is_named_and_alone(site: Site, source: str, said: str) -> None:
    site.install("broken-one", source, name="broken")
    site.install("alpha", good("alpha"))
    site.install("zeta", good("zeta"))
    found = site.discover()
    assert only_fault(found).startswith(f"plugin 'broken (broken-one)': cannot be imported: {said}")
    assert found.faults[0].__cause__ is not None
    assert set(found.channel_types) == {"alpha", "zeta"}
    assert [info.name for info in found.plugins] == ["alpha", "zeta"]


def test_ctrl_c_during_an_import_is_not_swallowed(site: Site) -> None:
    site.install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        site.discover()


def test_an_entry_point_that_names_nothing_there_is_named(site: Site) -> None:
    site.install("alpha", good("alpha"))
    site.metadata("beta", f"[{GROUP}]\nbeta = alpha:nothing_here\n")
    found = site.discover()
    assert "plugin 'beta (beta)': cannot be imported: AttributeError" in only_fault(found)
    assert set(found.channel_types) == {"alpha"}


def test_a_second_distribution_with_a_taken_entry_point_name_is_named(site: Site) -> None:
    site.install("alpha", good("alpha"), name="pager")
    site.install("beta", good("beta"), name="pager")
    found = site.discover()
    assert only_fault(found) == (
        'plugin \'pager (beta)\': the distribution "alpha" has an entry point "pager" already'
    )
    assert set(found.channel_types) == {"alpha"}


def test_one_hook_that_raises_discards_nothing_of_the_others(site: Site) -> None:
    raising = """
    @hookimpl
    def notifyd_rule_functions():
        raise ValueError("no functions today")
    """
    site.install("alpha", good("alpha") + textwrap.dedent(raising))
    site.install("beta", good("beta"))
    found = site.discover()
    assert only_fault(found) == (
        "plugin 'alpha (alpha)': notifyd_rule_functions: raises ValueError: no functions today"
    )
    assert set(found.channel_types) == {"alpha", "beta"}


def test_a_generator_that_raises_half_way_brings_nothing(site: Site) -> None:
    def half_way() -> Iterator[ChannelType]:
        yield channel_type()
        raise SystemExit(3)

    found = site.discover(SimpleNamespace(__name__="p", notifyd_channel_types=hookimpl(half_way)))
    assert only_fault(found) == "plugin 'p': notifyd_channel_types: raises SystemExit: 3"
    assert found.channel_types == {}


def test_a_misspelt_hook_is_named_with_what_was_meant(site: Site) -> None:
    site.install("alpha", good("alpha").replace("notifyd_channel_types", "notifyd_chanel_types"))
    assert only_fault(site.discover()) == (
        "plugin 'alpha (alpha)': notifyd_chanel_types: there is no such hook; "
        'did you mean "notifyd_channel_types"?'
    )


def test_every_misspelt_hook_of_a_plugin_is_named(site: Site) -> None:
    both = SimpleNamespace(__name__="p", notifyd_a=hookimpl(no_items), notifyd_b=hookimpl(no_items))
    assert len(site.discover(both).faults) == 2


def test_a_hook_without_its_mark_is_named(site: Site) -> None:
    site.install("alpha", good("alpha").replace("@hookimpl", ""))
    assert only_fault(site.discover()) == (
        "plugin 'alpha (alpha)': notifyd_channel_types is not marked @hookimpl"
    )


def test_a_plugin_that_imports_all_of_the_door_forgets_no_mark(site: Site) -> None:
    site.install("alpha", "from notifyd.plugin import *\n" + good("alpha"))
    assert site.discover().faults == ()


def test_a_plugin_without_any_hook_is_named(site: Site) -> None:
    site.install("alpha", "x = 1")
    assert only_fault(site.discover()) == "plugin 'alpha (alpha)': has no function marked @hookimpl"


def test_a_hook_that_wants_arguments_there_are_not_is_named(site: Site) -> None:
    site.install("alpha", good("alpha").replace("types():", "types(application):"))
    site.install("beta", good("beta"))
    found = site.discover()
    assert only_fault(found).startswith(
        "plugin 'alpha (alpha)': breaks the hooks' shape: PluginValidationError"
    )
    assert set(found.channel_types) == {"beta"}


def test_a_class_in_place_of_an_object_is_named(site: Site) -> None:
    class Plugin:
        @hookimpl
        def notifyd_channel_types(self) -> list[ChannelType]:
            return [channel_type()]

    assert set(site.discover(Plugin()).channel_types) == {"thing"}
    assert "notifyd_channel_types: raises TypeError" in only_fault(site.discover(Plugin))


async def _async_hook() -> list[ChannelType]:
    return []


async def _async_generator_hook() -> Any:
    yield channel_type()


@pytest.mark.parametrize("hook", [_async_hook, _async_generator_hook])
def test_an_async_hook_is_refused_without_being_called(site: Site, hook: Any) -> None:
    found = site.discover(SimpleNamespace(__name__="p", notifyd_channel_types=hookimpl(hook)))
    assert "notifyd_channel_types: must not be async" in only_fault(found)


def test_a_hook_that_gives_a_coroutine_is_refused_and_leaves_none_behind(site: Site) -> None:
    # A coroutine left behind would warn, and a warning is an error here.
    found = site.discover(
        SimpleNamespace(__name__="p", notifyd_channel_types=hookimpl(lambda: _async_hook()))
    )
    assert "notifyd_channel_types: gives an awaitable" in only_fault(found)


def test_a_wrapper_is_refused(site: Site) -> None:
    def wrap() -> Any:
        return (yield)

    found = site.discover(SimpleNamespace(__name__="p", notifyd_channel_types=hookimpl(wrap, wrapper=True)))
    assert "notifyd_channel_types: must not be a wrapper" in only_fault(found)


def test_a_type_that_two_plugins_bring_is_refused_by_naming_both(site: Site) -> None:
    site.install("alpha", good("pager"), name="one")
    site.install("beta", good("pager"), name="two")
    found = site.discover()
    assert only_fault(found) == (
        "plugin 'two (beta)': notifyd_channel_types: "
        "channel pager is already brought by the plugin one (alpha)"
    )
    assert found.channel_types["pager"].config.__module__ == "alpha"


def test_a_plugin_that_sorts_before_the_first_party_one_cannot_take_its_type_and_its_secrets(
    site: Site,
) -> None:
    site.install("aaa", good("webhook"), name="aaa")
    site.install("Notifyd_Webhook", good("webhook"), name="webhook", module="genuine")
    found = site.discover()
    assert only_fault(found) == (
        "plugin 'aaa (aaa)': notifyd_channel_types: "
        'channel webhook is the distribution "notifyd-webhook"\'s own'
    )
    assert found.channel_types["webhook"].config.__module__ == "genuine"
    assert [info.distribution for info in found.plugins] == ["Notifyd_Webhook", "aaa"]


def test_a_first_party_type_is_not_free_where_its_distribution_is_not_installed(site: Site) -> None:
    site.install("aaa", good("webhook"))
    found = site.discover()
    assert found.channel_types == {}
    assert '"notifyd-webhook"\'s own' in only_fault(found)


def test_a_plugin_cannot_keep_a_first_party_one_out_by_the_name_of_its_entry_point(site: Site) -> None:
    site.install("aaa", "raise SystemExit('imported')", name="webhook")
    site.install("notifyd-webhook", good("webhook"), name="webhook")
    found = site.discover()
    assert only_fault(found) == (
        'plugin \'webhook (aaa)\': the entry point "webhook" is the distribution "notifyd-webhook"\'s own'
    )
    assert set(found.channel_types) == {"webhook"}


def test_one_first_party_distribution_cannot_take_the_type_of_another(site: Site) -> None:
    # By modules of other names: the real ones may be imported already.
    site.install("notifyd-log", good("webhook"), name="log", module="a_log")
    site.install("notifyd-webhook", good("webhook"), name="webhook", module="a_webhook")
    found = site.discover()
    assert found.channel_types["webhook"].config.__module__ == "a_webhook"
    assert "plugin 'log (notifyd-log)'" in only_fault(found)


def test_every_type_that_comes_with_notifyd_is_kept_for_its_distribution() -> None:
    own = {info.distribution: info for info in discover().plugins if info.distribution.startswith("notifyd-")}
    assert len(own) >= 8
    for distribution, info in own.items():
        types = [provided.split()[1] for provided in info.provides if provided.startswith("channel ")]
        assert {FIRST_PARTY[name] for name in (*types, info.name)} == {distribution}


def test_a_plugin_upgraded_in_place_is_listed_by_the_version_that_runs(site: Site) -> None:
    site.install("alpha", good("alpha"))
    assert site.discover().upgraded == ()
    (site.folder / "alpha-1.2.3.dist-info").rename(site.folder / "gone")
    site.metadata("alpha", f"[{GROUP}]\nalpha = alpha\n", version="2.0")
    found = site.discover()
    assert found.plugins[0].version == "1.2.3"
    assert found.upgraded == ("plugin 'alpha (alpha)': version 2.0 is installed, 1.2.3 runs until a restart",)


def test_a_plugin_mended_in_place_that_could_not_be_imported_runs_as_it_is_now(site: Site) -> None:
    site.install("alpha", "raise RuntimeError('no licence')")
    assert len(site.discover().faults) == 1
    (site.folder / "alpha-1.2.3.dist-info").rename(site.folder / "gone")
    site.write("alpha.py", good("alpha") + "# mended")
    site.metadata("alpha", f"[{GROUP}]\nalpha = alpha\n", version="2.0")
    found = site.discover()
    assert (found.plugins[0].version, found.upgraded, found.faults) == ("2.0", (), ())


def test_a_rule_function_that_two_plugins_bring_is_refused(site: Site) -> None:
    functions = [RuleFunction("shout", str.upper), RuleFunction("shout", str.lower)]
    found = site.discover(plugin(functions=functions))
    assert "function shout is already brought by the plugin the-plugin" in only_fault(found)
    assert found.rule_functions == {"shout": str.upper}


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (3, "is written for version 3 of notifyd.plugin, and this notifyd has 1 to 2"),
        (0, "is written for version 0 of notifyd.plugin, and this notifyd has 1 to 2"),
        ('"1"', "notifyd_api must be an integer, such as 2, not a value of type str"),
        (True, "notifyd_api must be an integer, such as 2, not a value of type bool"),
    ],
)
def test_a_plugin_for_another_version_of_the_interface_is_refused(
    site: Site, version: object, said: str
) -> None:
    site.install("alpha", good("alpha") + f"\nnotifyd_api = {version}\n")
    found = site.discover()
    assert only_fault(found) == f"plugin 'alpha (alpha)': {said}"
    assert found.plugins == ()
    assert found.channel_types == {}


def test_an_object_whose_attributes_raise_is_contained(site: Site) -> None:
    class Hostile:
        @property
        def notifyd_api(self) -> int:
            raise RuntimeError("mine")

    found = site.discover(Hostile(), plugin(types=[channel_type()]))
    assert only_fault(found) == "plugin 'Hostile': notifyd_api raises RuntimeError: mine"
    assert set(found.channel_types) == {"thing"}


def test_entry_points_that_cannot_be_read_are_named(site: Site) -> None:
    site.metadata("alpha", f"[{GROUP}]\nthis is no entry point\n")
    site.install("beta", good("beta"))
    found = site.discover()
    assert only_fault(found).startswith("plugin 'alpha': its entry_points.txt cannot be read")
    assert set(found.channel_types) == {"beta"}


# --- shapes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (channel_type(), "gives a value of type ChannelType where a list of ChannelType belongs"),
        ("slack", "gives a value of type str where a list of ChannelType belongs"),
        ({"slack": channel_type()}, "gives a value of type dict where a list of ChannelType belongs"),
        (7, "gives a value of type int where a list of ChannelType belongs"),
        (["slack"], "gives a value of type str where a ChannelType belongs"),
        ([None], "gives None where a ChannelType belongs"),
        ([ChannelType], "gives the class ChannelType where a ChannelType belongs"),
        ([RuleFunction("f", len)], "gives a value of type RuleFunction where a ChannelType belongs"),
    ],
)
def test_a_hook_that_gives_something_else_is_named(site: Site, given: Any, said: str) -> None:
    found = site.discover(plugin(types=given))
    assert only_fault(found) == f"plugin 'the-plugin': notifyd_channel_types: {said}"


def test_a_hook_that_forgets_to_return_is_named(site: Site) -> None:
    found = site.discover(SimpleNamespace(__name__="p", notifyd_channel_types=hookimpl(lambda: None)))
    assert (
        only_fault(found)
        == "plugin 'p': notifyd_channel_types: gives None where a list of ChannelType belongs"
    )


class _NotAttrs:
    url: str


@frozen
class _Unresolvable:
    url: NoSuchType  # type: ignore[name-defined]  # noqa: F821 - what is tested


@frozen
class _Unsupported:
    url: complex


@frozen
class _Untyped:
    url = field()  # type: ignore[var-annotated]  # what is tested


@frozen
class _Pair:
    url: tuple[str, int]


@frozen
class _Numbered:
    url: dict[int, str]


@frozen
class _Either:
    url: str | int


@frozen
class _Taken:
    timeout: str


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Slack"}, "a ChannelType's name is 1 to 63 of the characters a-z 0-9 _ -"),
        ({"name": 1}, "a ChannelType's name is 1 to 63 of the characters a-z 0-9 _ -"),
        ({"config": _NotAttrs}, "config must be an attrs class, not the class _NotAttrs"),
        ({"config": Options()}, "config must be an attrs class, not a value of type Options"),
        ({"config": None}, "config must be an attrs class, not None"),
        ({"config": _Unresolvable}, "_Unresolvable has an annotation that cannot be resolved"),
        ({"config": _Unsupported}, "_Unsupported.url has a type that no option can have: <class 'complex'>"),
        ({"config": _Untyped}, "_Untyped.url has a type that no option can have: None"),
        ({"config": _Pair}, "_Pair.url has a type that no option can have: tuple[str, int]"),
        ({"config": _Numbered}, "_Numbered.url has a type that no option can have: dict[int, str]"),
        ({"config": _Either}, "_Either.url has a type that no option can have: str | int"),
        ({"config": _Taken}, 'the option "timeout" is one that every channel has'),
        ({"open": None}, "open must be callable, not None"),
        ({"personal": "yes"}, "personal must be a bool or callable, not a value of type str"),
        ({"addressed": "yes"}, "addressed must be a bool, not a value of type str"),
        ({"rate_limit": "fast"}, "rate_limit must be a rate"),
        ({"rate_limit": 1}, "rate_limit must be a rate"),
    ],
)
def test_a_channel_type_of_the_wrong_shape_is_named_and_its_neighbour_stays(
    site: Site, changes: dict[str, Any], said: str
) -> None:
    found = site.discover(plugin(types=[channel_type(**changes), channel_type("good")]))
    assert said in only_fault(found)
    assert set(found.channel_types) == {"good"}


def test_template_sources_are_folders_that_exist(site: Site) -> None:
    site.write("with_data/__init__.py", "")
    site.write("raises/__init__.py", "raise RuntimeError('no')")
    sources = [TemplateSource("with_data"), TemplateSource("raises"), TemplateSource("not_there")]
    faults = [str(fault) for fault in site.discover(plugin(templates=sources)).faults]
    assert len(faults) == 3
    assert faults[0].endswith('TemplateSource "with_data/templates": there is no such folder')
    assert faults[1].endswith("the package cannot be imported: RuntimeError: no")
    assert "the package cannot be imported: ModuleNotFoundError" in faults[2]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (RuleFunction("a b", len), "a RuleFunction's name is an identifier"),
        (RuleFunction("f", None), "function must be callable, not None"),  # type: ignore[arg-type]
        (RuleFunction("f", _async_hook), "function must not be async"),
        (
            RuleFunction("f", lambda a, *, b: a),
            "rules give arguments by position, and function needs b by keyword",
        ),
        (RuleFunction("while", len), "CEL has this name for something of its own"),
        (RuleFunction("contains", len), "CEL has this name for something of its own"),
    ],
)
def test_a_rule_function_of_the_wrong_shape_is_named(site: Site, function: RuleFunction, said: str) -> None:
    assert said in only_fault(site.discover(plugin(functions=[function])))
