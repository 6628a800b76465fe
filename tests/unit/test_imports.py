"""What imports what: each module stands alone, and plugins come in by the public door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).parents[2]
PLUGINS = sorted((ROOT / "plugins").glob("notifyd-*"))

# One interpreter loads what is not ours, then forks for each module of ours, so that each finds none of the
# others. A package's modules fork from the process that has just loaded the package, as importing them does first.
# A collector that looks at all that was loaded would have each process copy it.
ALONE = """
import gc, importlib, os, sys, traceback
gc.disable()
for name in sys.argv[1].split(","):
    importlib.import_module(name)
assert not [name for name in sys.modules if name.split(".")[0] == "notifyd"]
gc.freeze()
ours = sys.argv[2].split(",")
def visit(names):
    statuses = []
    for name in names:
        if child := os.fork():
            statuses.append(os.waitpid(child, 0)[1])
            continue
        try:
            importlib.import_module(name)
            failed = visit(other for other in ours if other.rpartition(".")[0] == name)
        except BaseException:
            print(name, traceback.format_exc(), file=sys.stderr, flush=True)
            failed = True
        os._exit(failed)
    return any(statuses)
sys.exit(visit(["notifyd"]))
"""
OUTSIDE = (
    "aiohttp.web,attrs,babel.dates,blockbuster,cattrs.preconf.json,cel,click,cryptography.hazmat.primitives.kdf.hkdf,"
    "jinja2.sandbox,joserfc.jwe,orjson,pluggy,prometheus_client,pytest,rfc8785,rich,tomli,uvloop"
)


def module_names() -> list[str]:
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "notifyd").rglob("*.py")]
    dotted = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    return sorted(dotted - {"notifyd.__main__"})


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (
                [f"notifyd.{alias.name}" for alias in node.names]
                if node.module == "notifyd"
                else [node.module]
            )


def requirements(path: Path) -> Iterator[str]:
    # What stands for a name in a file to be filled in is a name itself.
    document = tomli.loads(path.read_text(encoding="utf-8").replace("$", ""))
    project = document["project"]
    yield from document["build-system"]["requires"]
    yield from project.get("dependencies", ())
    for extra in project.get("optional-dependencies", {}).values():
        yield from extra


@pytest.mark.long
def test_every_module_imports_alone_in_a_fresh_interpreter_with_warnings_as_errors() -> None:
    names = ",".join(module_names())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, OUTSIDE, names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_the_public_door_alone_and_its_tests_the_kit(plugin: Path) -> None:
    package = plugin / plugin.name.replace("-", "_")
    seen = {name for path in package.rglob("*.py") for name in imports(path)}
    assert {name for name in seen if name.split(".")[0] == "notifyd"} == {"notifyd.plugin"}
    in_tests = {name for path in (plugin / "tests").rglob("*.py") for name in imports(path)}
    assert {name for name in in_tests if name.split(".")[0] == "notifyd"} <= {
        "notifyd.plugin",
        "notifyd.testing",
    }


MANIFESTS = [
    *(ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"), *ROOT.glob("tests/*/pyproject.toml")),
    *ROOT.glob("notifyd/**/pyproject.toml.in"),  # what `notifyd new-plugin` writes
]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_requirement_names_the_stranger_on_pypi(path: Path) -> None:
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in requirements(path)}
    assert "notifyd" not in names


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_depends_on_the_server_by_its_own_name(plugin: Path) -> None:
    assert any(entry.startswith("notifyd-server>=") for entry in requirements(plugin / "pyproject.toml"))
