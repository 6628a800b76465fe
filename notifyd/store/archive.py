"""All rows of a store as a file of JSON Lines: written by an export, read by an import.

The first line is the header, of a fixed length, so that it can be brought up to date in place: where the export
stands, how many rows there are, and under which keys of `keys.seal` how many of them are sealed. Every other
line is `{"collection": ..., "row": {...}}`, a record with its members in camelCase; the seals over the audit trail
stand behind it, in its collection. What is sealed stays so; a message that the store keeps in clear is sealed
here, since a file travels.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

import attrs
import orjson
from attrs import evolve, field, frozen

from notifyd.errors import ArchiveError, InvalidError, SealError
from notifyd.model import Approval, AuditRecord, AuditSeal, Delivery, Incident, Instant
from notifyd.security.secrets import Keyring, sealed_under
from notifyd.store import CollectionName, SealKeys, Stored, StoredEvent, Upkeep
from notifyd.text import counted
from notifyd.wire.records import structure, wire_name

FORMAT: Final = 3
HEADER_BYTES: Final = 4096
_BATCH: Final = 500
_LABEL: Final = "export-message"

_RECORDS: Final[Mapping[CollectionName, type[Any]]] = {
    CollectionName.EVENTS: StoredEvent,
    CollectionName.APPROVALS: Approval,
    CollectionName.INCIDENTS: Incident,
    CollectionName.DELIVERIES: Delivery,
    CollectionName.AUDIT: AuditRecord,
}

Told: TypeAlias = Callable[[CollectionName, int], None]
"""Is told of each batch: of which collection, and how many rows."""


@frozen
class Header:
    """What the first line says. `bytes` is the file's size so far, `keys` has the rows that need each key.

    `identity_keys` are the store's, by which events are known again that came under earlier keys. `collection` and
    `after` are where an unfinished export goes on; `openings` is the store's, by which it is known whether anybody
    has used the store since.
    """

    notifyd_export: int = FORMAT
    created_at: Instant = 0
    complete: bool = False
    bytes: int = HEADER_BYTES
    openings: int | None = None
    collection: CollectionName = CollectionName.EVENTS
    after: str = ""
    rows: Mapping[str, int] = field(factory=dict)
    keys: Mapping[str, int] = field(factory=dict)
    identity_keys: Mapping[str, str] = field(factory=dict)


# --- writing -----------------------------------------------------------------------------------------------


async def export(store: Upkeep, path: Path, keyring: Keyring, now: Instant, told: Told) -> Header:
    """Write all rows of `store` to `path`, or go on with an export that was cut short; the header.

    The file is for its owner alone: it holds what people were sent and who decided what.

    Raises `ArchiveError` where the file is there and not to be gone on with, `StoreError`, or OSError.
    """
    with _opened(path) as file:
        header = _begun(file, path, await store.openings(), now)
        header = evolve(header, identity_keys=(await store.seal_keys()).identity_keys)
        file.truncate(header.bytes)
        _write_header(file, header)
        while not header.complete:
            header = await _export_batch(store, file, keyring, header, told)
            _write_header(file, header)
    return header


def _begun(file: IO[bytes], path: Path, openings: int | None, now: Instant) -> Header:
    """The header to go on from."""
    if not os.fstat(file.fileno()).st_size:
        return Header(created_at=now, openings=openings)
    header = _read_header(file, path)
    if header.complete:
        raise ArchiveError(f"{path}: is there already, and whole: remove it, or name another file")
    if openings is None or header.openings != openings - 1:
        raise ArchiveError(
            f"{path}: is an export that was cut short, and the store may have changed since: remove it"
        )
    return evolve(header, openings=openings, notifyd_export=FORMAT)


def _opened(path: Path) -> IO[bytes]:
    """A new file, or one that an earlier export has begun. Raises `ArchiveError` for any other."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _opened_again(path)
    return os.fdopen(descriptor, "r+b")


def _opened_again(path: Path) -> IO[bytes]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ArchiveError(f"{path}: is a symbolic link: name another file") from None
    if not _is_private(os.fstat(descriptor)):
        os.close(descriptor)
        raise ArchiveError(
            f"{path}: is there already, and others may read it: remove it, or name another file"
        )
    return os.fdopen(descriptor, "r+b")


def _is_private(found: os.stat_result) -> bool:
    """A regular file that is this user's own, by one name, and that nobody else may open."""
    alone = found.st_uid == os.geteuid() and found.st_nlink == 1 and not found.st_mode & 0o077
    return alone and stat.S_ISREG(found.st_mode)


async def _export_batch(
    store: Upkeep, file: IO[bytes], keyring: Keyring, header: Header, told: Told
) -> Header:
    collection = header.collection
    rows, after = await store.dump(collection, header.after, _BATCH)
    keys = Counter(header.keys)
    file.seek(header.bytes)
    for row in rows:
        sent = _sealed(row, keyring)
        keys.update(
            key_ids(sent, header.identity_keys) & set(keyring.ids)
        )  # one that is gone cannot be asked for
        file.write(orjson.dumps({"collection": collection, "row": plain(sent)}) + b"\n")
    told(collection, len(rows))
    counted = {**header.rows, collection.value: header.rows.get(collection, 0) + len(rows)}
    done = evolve(header, bytes=file.tell(), rows=counted, keys=dict(keys))
    return evolve(done, after=after) if after is not None else _next_collection(done, collection)


def _next_collection(header: Header, collection: CollectionName) -> Header:
    order = list(CollectionName)
    rest = order[order.index(collection) + 1 :]
    return evolve(header, after="", collection=rest[0] if rest else collection, complete=not rest)


def _write_header(file: IO[bytes], header: Header) -> None:
    """After the rows that it speaks of, whatever fails in between."""
    line = orjson.dumps(plain(header)).ljust(HEADER_BYTES - 1) + b"\n"
    if len(line) != HEADER_BYTES:
        raise ArchiveError("the rows are sealed under more keys than a header can name")
    file.flush()
    os.fdatasync(file.fileno())
    file.seek(0)
    file.write(line)
    file.flush()
    if header.complete:
        os.fsync(file.fileno())


def plain(value: Any) -> Any:
    """A record as orjson takes it, its members in camelCase."""
    if attrs.has(type(value)):
        return {wire_name(one): plain(getattr(value, one.name)) for one in attrs.fields(type(value))}
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def _sealed(row: Stored, keyring: Keyring) -> Stored:
    if isinstance(row, Delivery) and not row.sealed:
        return evolve(row, message=keyring.seal(_LABEL, row.message.encode()))
    return row


def key_ids(row: Stored, identity_keys: Collection[str]) -> set[str]:
    """The keys that a row of an archive needs: to open what is sealed, and to know an event again."""
    match row:
        case StoredEvent():
            ids = {row.event.content_id.partition(":")[0]}.difference(identity_keys)
        case Approval():
            ids = {sealed_under(row.sealed_token or "")}
        case Delivery():
            ids = {sealed_under(row.message)}
        case _:
            ids = set()
    return ids - {""}


# --- reading -----------------------------------------------------------------------------------------------


async def restore(store: Upkeep, path: Path, keyring: Keyring, told: Told) -> tuple[Header, int]:
    """Take the rows of a whole archive into `store`; its header, and how many of the rows were new.

    It can be repeated, and goes on after having been cut short: a row that is there already stays as it is.
    Raises `ArchiveError`, before anything is written where the header tells, `StoreError`, or OSError.
    """
    new = 0
    header = checked_header(path, keyring)
    noted = await store.seal_keys()
    ids = None if noted.ids is None else noted.ids | header.keys.keys()
    await store.note_seal_keys(SealKeys(ids, {**header.identity_keys, **noted.identity_keys}))
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        for rows in _batches(file, path, keyring):
            new += await store.restore([row for _, row in rows])
            for collection, count in Counter(collection for collection, _ in rows).items():
                told(collection, count)
    return header, new


def checked_header(path: Path, keyring: Keyring) -> Header:
    """The header of a whole archive that `keyring` can open. Raises `ArchiveError` or OSError."""
    with path.open("rb") as file:
        header = _read_header(file, path)
    _check(path, header, keyring)
    return header


def _read_header(file: IO[bytes], path: Path) -> Header:
    try:
        header = structure(orjson.loads(file.read(HEADER_BYTES)), Header)
    except (orjson.JSONDecodeError, InvalidError):
        raise ArchiveError(f"{path}: does not begin as an export of notifyd does") from None
    if header.notifyd_export not in range(1, FORMAT + 1):
        raise ArchiveError(
            f"{path}: has format {header.notifyd_export}, and this notifyd reads up to {FORMAT}"
        )
    return header


def _check(path: Path, header: Header, keyring: Keyring) -> None:
    if not header.complete:
        raise ArchiveError(f"{path}: the export was cut short: repeat the same command where it was begun")
    size = path.stat().st_size
    if size != header.bytes:
        raise ArchiveError(f"{path}: has {size} bytes of {header.bytes}: it was not copied whole")
    missing = {key: rows for key, rows in header.keys.items() if key not in keyring.ids}
    if missing:
        told = ", ".join(f"{key} ({counted(rows, 'row')})" for key, rows in sorted(missing.items()))
        raise ArchiveError(f"{path}: keys.seal lacks keys that rows are sealed under: {told}")


def _batches(file: IO[bytes], path: Path, keyring: Keyring) -> Iterator[list[tuple[CollectionName, Stored]]]:
    lines = enumerate(file, start=2)
    while batch := [_row(line, f"{path}, line {number}", keyring) for number, line in islice(lines, _BATCH)]:
        yield batch


def _row(line: bytes, where: str, keyring: Keyring) -> tuple[CollectionName, Stored]:
    try:
        document = orjson.loads(line)
        collection = CollectionName(document["collection"])
        given = _upgraded(document["row"])
        record = AuditSeal if "envelope" in given else _RECORDS[collection]
        row = cast(Stored, structure(given, record, "/row"))
        if isinstance(row, Delivery) and not row.sealed:
            row = evolve(row, message=keyring.open(_LABEL, row.message).decode())
    except (InvalidError, SealError) as error:
        raise ArchiveError(f"{where}: {error.detail}") from None
    except (ValueError, KeyError, TypeError):
        raise ArchiveError(f"{where}: is no row of an export") from None
    return collection, row


def _upgraded(row: dict[str, Any]) -> dict[str, Any]:
    """A row as formats from 2 on have it.

    In format 1 approvals and incidents had the events that they had been through.
    """
    applied = row.pop("applied", None)
    if applied and "round" in row:
        heard = (done.get("occurredAt", 0) for done in applied if done["round"] == row["round"])
        row["heardAgainAt"] = max(heard, default=0)
    return row
