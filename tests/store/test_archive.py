"""Exporting a store to a file and importing it elsewhere: all of it, sealed, and again after it was cut short."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest
from attrs import evolve

from notifyd.errors import ArchiveError
from notifyd.model import Approval, AuditSeal, ResumeStatus, State, Status
from notifyd.security.secrets import Keyring, key_id
from notifyd.store import CollectionName, SealKeys, Store, Stored, StoredEvent, archive
from notifyd.store.archive import FORMAT, HEADER_BYTES, Header
from tests import fakes
from tests.store.conftest import Reopen
from tests.store.makers import (
    MINUTE,
    NOW,
    approval,
    attempt,
    audit_record,
    decision,
    delivery,
    effect,
    event,
    incident,
    plan_entry,
)

KEY, OLD, OTHER = (bytes([number]) * 32 for number in range(3))
KEYRING = Keyring([KEY, OLD])
CLEAR = '{"title":"Bitte entscheiden"}'


def sealed(text: str, key: bytes = KEY) -> str:
    return Keyring([key]).seal("message", text.encode())


DECISIONS = (decision(), decision("bob@acme.example"), decision(round=2))
ROWS: list[Stored] = [
    StoredEvent(event("e1", content_id=f"{key_id(OLD)}:00", plan=(plan_entry(),)), planned=True),
    StoredEvent(event("e2", content_id="", notify=False), planned=True),
    StoredEvent(event("e3", content_id=f"{key_id(KEY)}:00"), planned=False),
    approval(sealed_token=sealed("token"), effects=(effect("x"),), round=2, decisions=DECISIONS),
    approval(run_id="r2", sealed_token=None, status=Status.EXPIRED, ended_at=NOW, resume=ResumeStatus.FAILED),
    incident(),
    delivery("d1", message=CLEAR, attempts=(attempt(),), tries=1, fencing_token=2),
    delivery("d2", message=sealed("link"), sealed=True, state=State.DEAD, ended_at=NOW),
    delivery("d3", window="w", window_start=NOW, next_attempt_at=NOW + MINUTE),
    audit_record("a1"),
    audit_record("a2", tenant="", run_id=None, approval_id=None, data={}),
    AuditSeal("acme", 1, "{}"),
]


def nothing(collection: CollectionName, count: int) -> None:
    """Is told of progress."""


class CutError(Exception):
    """What ends a command in the middle."""


def cut_after(batches: int) -> Callable[[CollectionName, int], None]:
    left = [batches]

    def told(collection: CollectionName, count: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise CutError

    return told


async def contents(store: Store) -> list[Stored]:
    rows: list[Stored] = []
    for collection in CollectionName:
        after: str | None = ""
        while after is not None:
            page, after = await store.dump(collection, after, 1000)
            rows += page
    return rows


async def export(store: Store, path: Path, told: Callable[[CollectionName, int], None] = nothing) -> Header:
    return await archive.export(store, path, KEYRING, NOW, told)


async def restore(store: Store, path: Path, keyring: Keyring = KEYRING) -> int:
    _, new = await archive.restore(store, path, keyring, nothing)
    return new


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Store]:
    """A fresh SQLite store beside the one under test."""
    (tmp_path / "other").mkdir()
    async with aclosing(await fakes.sqlite(tmp_path / "other", fakes.TurnableClock())) as made:
        yield made


@pytest.fixture
async def exported(store: Store, tmp_path: Path) -> Path:
    """A whole export of `ROWS`."""
    await store.restore(ROWS)
    await export(store, tmp_path / "all.jsonl")
    return tmp_path / "all.jsonl"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def change(path: Path, found: str, put: str) -> None:
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, put, 1))


def rewrite(path: Path, header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The file as an older notifyd would have written it."""
    text = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    old = header | {"notifydExport": 1, "bytes": HEADER_BYTES + len(text)}
    path.write_bytes(orjson.dumps(old).ljust(HEADER_BYTES - 1) + b"\n" + text)


async def test_all_of_a_store_comes_out_of_the_file_as_it_was(exported: Path, other: Store) -> None:
    assert await restore(other, exported) == len(ROWS)
    assert await contents(other) == ROWS
    assert await restore(other, exported) == 0
    assert await contents(other) == ROWS
    await other.aclose()


async def test_the_file_is_json_lines_and_for_its_owner_alone(exported: Path) -> None:
    documents = [orjson.loads(line) for line in lines(exported)]
    header, rows = documents[0], documents[1:]
    assert header["notifydExport"] == FORMAT
    assert header["rows"] == {"events": 3, "approvals": 2, "incidents": 1, "deliveries": 3, "audit": 3}
    assert len(lines(exported)[0]) == HEADER_BYTES - 1
    assert [row["collection"] for row in rows][:4] == ["events"] * 3 + ["approvals"]
    assert rows[3]["row"]["runId"] == "run-1"
    assert mode(exported) == 0o600


async def test_a_file_of_format_1_is_imported_though_its_rows_have_the_events_they_had_been_through(
    exported: Path, other: Store
) -> None:
    header, *rows = [orjson.loads(line) for line in lines(exported)]
    for row in (one["row"] for one in rows if one["collection"] in ("approvals", "incidents")):
        done = {"eventKey": "e", "version": 1, "round": row.get("round", 0), "outcome": "opened"}
        row["applied"] = [done, {**done, "occurredAt": NOW + 7}, {**done, "round": 9, "occurredAt": NOW + 9}]
        row.pop("heardAgainAt", None)
    rewrite(exported, header, rows)
    await restore(other, exported)
    found, _ = await other.dump(CollectionName.APPROVALS, "", 10)
    assert [one.heard_again_at for one in found if isinstance(one, Approval)] == [NOW + 7] * 2
    assert await other.count(CollectionName.INCIDENTS) == 1
    await other.aclose()


async def test_no_message_or_token_stands_in_the_file_in_clear(exported: Path) -> None:
    text = "".join(lines(exported))
    assert "Bitte entscheiden" not in text
    tokens = {orjson.loads(line)["row"].get("sealedToken") for line in lines(exported)[1:]}
    assert "token" not in tokens
    assert len(tokens) == 2


async def test_the_header_says_how_many_rows_are_sealed_under_which_keys(exported: Path) -> None:
    # e3, the token, and three messages, two of which the store keeps in clear; e1.
    assert archive.checked_header(exported, KEYRING).keys == {key_id(KEY): 5, key_id(OLD): 1}


async def test_an_import_without_a_key_is_refused_and_says_how_many_rows_need_it(
    exported: Path, other: Store
) -> None:
    for keys, missing in ([OTHER], f"{key_id(OLD)} (1 row)"), ([KEY], f"{key_id(OLD)} (1 row)"):
        with pytest.raises(ArchiveError) as refused:
            await restore(other, exported, Keyring(keys))
        assert missing in refused.value.detail
    assert await contents(other) == []
    assert await restore(other, exported, Keyring([OTHER, KEY, OLD])) == len(ROWS)
    await other.aclose()


async def test_an_import_that_was_cut_short_is_finished_by_its_repetition(
    exported: Path, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_BATCH", 2)
    with pytest.raises(CutError):
        await archive.restore(other, exported, KEYRING, cut_after(3))
    there = await contents(other)
    assert 0 < len(there) < len(ROWS)
    assert await restore(other, exported) == len(ROWS) - len(there)
    assert await contents(other) == ROWS
    await other.aclose()


async def test_a_file_that_was_not_copied_whole_is_refused_and_nothing_is_taken(
    exported: Path, other: Store
) -> None:
    size = archive.checked_header(exported, KEYRING).bytes
    with exported.open("r+b") as file:
        file.truncate(size - 10)
    with pytest.raises(ArchiveError, match=f"has {size - 10} bytes of {size}"):
        await restore(other, exported)
    assert await contents(other) == []
    await other.aclose()


@pytest.mark.parametrize(
    ("found", "put", "message"),
    [
        ('"status":"expired"', '"status":"expierd"', r"line 6: /row/status: "),
        ('{"collection":"audit"', '{"collection":"audio"', r"line 11: is no row of an export"),
        ('"notifydExport":3', '"notifydExport":9', r"has format 9, and this notifyd reads up to 3"),
        ('{"notifydExport"', '["notifydExport"', r"does not begin as an export of notifyd does"),
        ('"complete":true', '"complete":null', r"does not begin as an export"),
    ],
)
async def test_what_is_wrong_with_a_file_is_named_with_its_line(
    exported: Path, other: Store, found: str, put: str, message: str
) -> None:
    change(exported, found, put)
    with pytest.raises(ArchiveError, match=message):
        await restore(other, exported)
    await other.aclose()


# --- an export that is cut short ---------------------------------------------------------------------------


async def test_a_whole_export_is_not_written_over(exported: Path, store: Store) -> None:
    with pytest.raises(ArchiveError, match="is there already"):
        await export(store, exported)


def _lead_astray(path: Path) -> None:
    path.with_name("elsewhere").touch(0o600)
    path.symlink_to(path.with_name("elsewhere"))


def _dangle(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def _share(path: Path) -> None:
    path.touch(0o600)
    path.with_name("elsewhere").hardlink_to(path)


def _open_to_all(path: Path) -> None:
    path.touch()
    path.chmod(0o644)


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("put", [_lead_astray, _dangle, _share, _open_to_all, _pipe])
async def test_export_onto_a_0644_file_or_a_symlink_or_another_s_name_writes_nothing_there(
    put: Callable[[Path], None], store: Store, tmp_path: Path
) -> None:
    await store.restore(ROWS)
    folder = tmp_path / "exports"
    folder.mkdir()
    path = folder / "all.jsonl"
    put(path)
    with pytest.raises(ArchiveError, match=r"all\.jsonl: is (there already, and others may|a symbolic link)"):
        await export(store, path)
    assert sum(each.stat().st_size for each in folder.iterdir() if each.exists()) == 0
    path.unlink()
    previous = os.umask(0)
    await export(store, path)
    os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_an_unfinished_export_is_not_imported(store: Store, other: Store, tmp_path: Path) -> None:
    await store.restore(ROWS)
    with pytest.raises(CutError):
        await export(store, tmp_path / "part.jsonl", cut_after(3))
    with pytest.raises(ArchiveError, match="cut short"):
        await restore(other, tmp_path / "part.jsonl")
    await other.aclose()


@pytest.mark.parametrize("cut", [1, 2, 4])
async def test_an_export_goes_on_where_it_was_cut_short(
    cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_BATCH", 2)
    path, clock = tmp_path / "part.jsonl", fakes.TurnableClock()
    store = await fakes.sqlite(tmp_path, clock)
    await store.restore(ROWS)
    with pytest.raises(CutError):
        await export(store, path, cut_after(cut))
    begun = orjson.loads(path.read_bytes()[:HEADER_BYTES])
    before = path.read_bytes()[HEADER_BYTES : begun["bytes"]]
    await store.aclose()
    store = await fakes.sqlite(tmp_path, clock)
    header = await export(store, path)
    assert sum(header.rows.values()) == len(ROWS) == len(lines(path)) - 1
    assert path.read_bytes()[HEADER_BYTES:].startswith(before)
    (tmp_path / "b").mkdir()
    copy = await fakes.sqlite(tmp_path / "b", clock)
    await restore(copy, path)
    assert await contents(copy) == ROWS
    await copy.aclose()
    await store.aclose()


async def test_an_export_does_not_go_on_where_the_store_has_been_open_since(tmp_path: Path) -> None:
    path, clock = tmp_path / "part.jsonl", fakes.TurnableClock()
    for opening in range(3):
        store = await fakes.sqlite(tmp_path, clock)
        if opening == 0:
            await store.restore(ROWS)
            with pytest.raises(CutError):
                await export(store, path, cut_after(2))
        if opening == 2:
            with pytest.raises(ArchiveError, match="may have changed since"):
                await export(store, path)
        await store.aclose()


async def test_a_store_that_others_share_never_goes_on_with_an_export(store: Store, tmp_path: Path) -> None:
    await store.restore(ROWS)
    with pytest.raises(CutError):
        await export(store, tmp_path / "part.jsonl", cut_after(2))
    with pytest.raises(ArchiveError, match="may have changed since"):
        await export(store, tmp_path / "part.jsonl")


async def test_rows_that_change_between_exports_come_as_they_are(
    store: Store, reopen: Reopen, tmp_path: Path
) -> None:
    given = evolve(approval(), sealed_token=None)
    await store.restore([given])
    await export(store, tmp_path / "one.jsonl")
    store = await reopen()
    assert await store.replace_approval(evolve(given, version=2, status=Status.APPROVED, ended_at=NOW))
    await export(store, tmp_path / "two.jsonl")
    assert '"pending"' in lines(tmp_path / "one.jsonl")[1]
    assert '"approved"' in lines(tmp_path / "two.jsonl")[1]


async def test_an_import_has_the_store_remember_the_keys_of_its_rows(exported: Path, other: Store) -> None:
    await other.note_seal_keys(SealKeys(frozenset({"0a0a0a0a"}), {"0b0b0b0b": "kept"}))
    await restore(other, exported)
    ids = frozenset({"0a0a0a0a", key_id(KEY), key_id(OLD)})
    assert await other.seal_keys() == SealKeys(ids, {"0b0b0b0b": "kept"})


async def test_an_import_leaves_keys_unknown_where_they_never_were_noted(
    exported: Path, other: Store
) -> None:
    await restore(other, exported)
    assert await other.seal_keys() == SealKeys()


async def test_an_import_asks_for_no_key_that_is_only_needed_to_know_events_again(
    store: Store, other: Store, tmp_path: Path
) -> None:
    kept = Keyring([KEY, OLD]).keep_identity_keys()
    await store.restore(ROWS)
    await store.note_seal_keys(SealKeys(frozenset({key_id(KEY)}), kept))
    await export(store, tmp_path / "export.jsonl")
    assert await restore(other, tmp_path / "export.jsonl", Keyring([KEY])) == len(ROWS)
    assert (await other.seal_keys()).identity_keys == kept


async def test_rows_under_a_key_that_was_given_up_do_not_keep_an_export_from_being_imported(
    store: Store, other: Store, tmp_path: Path
) -> None:
    await store.restore(ROWS)
    await archive.export(store, tmp_path / "export.jsonl", Keyring([KEY]), NOW, nothing)
    assert await restore(other, tmp_path / "export.jsonl", Keyring([KEY])) == len(ROWS)
