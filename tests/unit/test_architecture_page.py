"""The page on the architecture names files and definitions that are there, and every room."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest
import tomli

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
REFERENCES: Final = sorted(set(re.findall(r"`([a-z_/]+\.py)(?::([A-Za-z_.]+))?`", PAGE)))


def definitions(path: Path) -> set[str]:
    """Dotted names of a module's functions, classes and their methods."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            inside = node.body if isinstance(node, ast.ClassDef) else []
            methods = (one for one in inside if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{one.name}" for one in methods}
    return found


@pytest.mark.parametrize(("file", "name"), REFERENCES)
def test_what_the_page_names_is_there(file: str, name: str) -> None:
    path = ROOT / "notifyd" / file
    assert path.is_file()
    assert not name or name in definitions(path)


def rooms() -> set[str]:
    """Every room that the import rows name, as the page writes it."""
    contracts = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    rows = next(one["layers"] for one in contracts["contracts"] if one.get("containers") == ["notifyd"])
    names = {name.strip() for row in rows for name in row.split("|")} - {"__main__"}
    return {f"{name}/" if (ROOT / "notifyd" / name).is_dir() else f"{name}.py" for name in names}


@pytest.mark.parametrize("room", sorted(rooms()))
def test_every_room_has_its_row_on_the_page(room: str) -> None:
    assert f"`{room}`" in PAGE


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in (ROOT / "notifyd").glob("*/__init__.py")))
def test_every_room_says_at_its_door_what_comes_in_and_what_goes_out(folder: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / "notifyd" / folder / "__init__.py").read_text("utf-8"))) or ""
    assert re.search(r"\bIn: .+\bOut: ", text, re.DOTALL), text
