"""The files of the contract, as they are committed in `notifyd/contract` and, for readers, in `docs/contract`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.contract.csharp import csharp_models
from tests.contract.document import document, types
from tests.contract.golang import go_models

_ROOT: Final = Path(__file__).parents[2]
SHIPPED: Final = _ROOT / "notifyd" / "contract"
SHOWN: Final = _ROOT / "docs" / "contract"

_WIDTH: Final = 100


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """References and lists of single values in one line, long texts folded, equal parts written out each time."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=">" if len(text) > _WIDTH else None)


def _list(dumper: _Dumper, items: list[Any]) -> yaml.SequenceNode:
    flat = not any(isinstance(item, dict | list) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


def _object(dumper: _Dumper, members: dict[str, Any]) -> yaml.MappingNode:
    return dumper.represent_mapping(
        "tag:yaml.org,2002:map", members.items(), flow_style=list(members) == ["$ref"]
    )


_Dumper.add_representer(str, _string)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _object)


def _json() -> str:
    return json.dumps(document(), ensure_ascii=False, separators=(",", ":")) + "\n"


def _yaml() -> str:
    plain = json.loads(_json())
    text: str = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    return text


FILES: Final[Mapping[str, Callable[[], str]]] = {
    "openapi.json": _json,
    "openapi.yaml": _yaml,
    "models.go": lambda: go_models(types()),
    "Models.cs": lambda: csharp_models(types()),
}
"""Each file and what makes it. `openapi.json` is what is served."""


def write() -> None:
    for name, make in FILES.items():
        text = make()
        (SHIPPED / name).write_text(text, encoding="utf-8")
        if name != "openapi.json":
            (SHOWN / name).write_text(text, encoding="utf-8")
