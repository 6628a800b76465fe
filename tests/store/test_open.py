"""From `store.url` to an open store."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifyd.errors import ConfigError
from notifyd.store.open import StoreOptions, open_store, sqlite_path
from tests.store.makers import NODE, TurnableClock, append_of, event


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///./notifyd.db", "notifyd.db"),
        ("sqlite:///data/notifyd.db", "data/notifyd.db"),
        ("sqlite:////var/lib/notifyd/notifyd.db", "/var/lib/notifyd/notifyd.db"),
    ],
)
def test_three_slashes_name_a_relative_file_and_four_an_absolute_one(url: str, path: str) -> None:
    assert sqlite_path(url) == Path(path)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/notifyd.db",
        "sqlite:///a.db?mode=ro",
        "sqlite:////",
    ],
)
async def test_a_url_that_names_no_file_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await open_store(url, StoreOptions(node=NODE, clock=TurnableClock()))
    (fault,) = caught.value.faults
    assert fault.pointer == "store.url"
    assert "sqlite:///./notifyd.db" in fault.message


@pytest.mark.parametrize("url", ["mysql://user:hunter2@host/db", "hunter2", "", "hunter2:x", "a hunter2://x"])
async def test_an_unknown_kind_is_refused_by_the_kinds_there_are_and_no_secret(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await open_store(url, StoreOptions(node=NODE, clock=TurnableClock()))
    assert "sqlite://" in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_relative_file_is_looked_for_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = await open_store("sqlite:///./notifyd.db", StoreOptions(node=NODE, clock=TurnableClock()))
    monkeypatch.chdir("/")
    assert (await store.append(append_of(event()))).fresh
    await store.aclose()
    assert (tmp_path / "notifyd.db").exists()
