"""Bodies that are data, not prose: sent whole and unchanged, and valid JSON where their media type says JSON."""

from __future__ import annotations

import json
from typing import Final

from attrs import frozen

SIZE_LIMIT: Final = 1024 * 1024
"""Characters of a body. More is refused: data that is cut is no data."""


@frozen
class DataFault:
    """Why a body is not what its media type says; `position` counts characters from its beginning."""

    position: int
    reason: str


def data_fault(body: str, media_type: str) -> DataFault | None:
    """The fault of a body, None where it may be sent. JSON is what RFC 8259 says, `+json` types too (RFC 6839)."""
    if len(body) > SIZE_LIMIT:
        return DataFault(SIZE_LIMIT, f"the body has more than {SIZE_LIMIT:,} characters")
    if media_type != "application/json" and not media_type.endswith("+json"):
        return None
    try:
        json.loads(body, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        return DataFault(error.pos, f"the body is not valid JSON: {error.msg}, in its line {error.lineno}")
    except (ValueError, RecursionError) as error:
        return DataFault(0, f"the body is not valid JSON: {error}")
    return None


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
