"""Packages imported without a part that costs more than the rest."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from notifyd.lean import without


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that imports its own `heavy`, and a variable of its `light`."""
    name = f"package_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("from . import heavy\nfrom .light import value\n")
    (folder / "heavy.py").write_text("weight = 1\n")
    (folder / "light.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_the_part_is_not_run_and_the_rest_is(package: str) -> None:
    with without(f"{package}.heavy"):
        imported = importlib.import_module(package)
    assert imported.value == 7
    assert f"{package}.heavy" not in sys.modules


def test_whoever_wants_the_part_later_gets_it_whole(package: str) -> None:
    with without(f"{package}.heavy"):
        imported = importlib.import_module(package)
    assert not hasattr(imported, "heavy")
    assert importlib.import_module(f"{package}.heavy").weight == 1
    assert imported.heavy.weight == 1


def test_a_part_that_is_there_already_stays(package: str) -> None:
    heavy = importlib.import_module(f"{package}.heavy")
    with without(f"{package}.heavy"):
        assert importlib.import_module(package).heavy is heavy
    assert sys.modules[f"{package}.heavy"] is heavy


def test_nothing_is_left_of_an_import_that_fails(package: str) -> None:
    with pytest.raises(ModuleNotFoundError), without(f"{package}.heavy"):
        importlib.import_module("nothing_of_this_name")
    assert f"{package}.heavy" not in sys.modules


def test_a_part_of_what_is_never_imported_is_no_fault() -> None:
    with without("nothing_of_this_name.heavy"):
        assert "nothing_of_this_name.heavy" in sys.modules
    assert "nothing_of_this_name.heavy" not in sys.modules
