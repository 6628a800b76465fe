"""A store that tells what becomes of its steps.

`watched`: which approvals it has written, so that who waits for one need not ask again and again. `counted`: which
steps fail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from inspect import iscoroutinefunction
from typing import Any, Final, cast

from notifyd.errors import StoreError
from notifyd.model import Approval, ApprovalKey, IncidentKey
from notifyd.store import Append, Appended, AttemptRecord, Store

STEPS: Final = tuple(name for name in sorted({*dir(Store)}) if iscoroutinefunction(getattr(Store, name)))
"""All that may be asked of a store, by name."""


def watched(store: Store, note: Callable[[ApprovalKey], None]) -> Store:
    """`store`, calling `note` after each write that may have changed an approval as its reader sees it."""
    return cast(Store, _Watched(store, note))


def counted(store: Store, note: Callable[[str], None]) -> Store:
    """`store`, calling `note` with the name of each operation that raises `StoreError`: one of `STEPS`."""
    return cast(Store, _Counted(store, note))


class _Counted:
    def __init__(self, store: Store, note: Callable[[str], None]) -> None:
        self._store = store
        self._note = note

    def __getattr__(self, name: str) -> Any:
        async def counted(*args: Any, **options: Any) -> Any:
            try:
                return await getattr(self._store, name)(*args, **options)
            except StoreError:
                self._note(name)
                raise

        setattr(self, name, counted)
        return counted


class _Watched:
    """Every other operation is the store's own.

    `note` is called however the write ended: of one that failed nobody knows whether it was done.
    """

    def __init__(self, store: Store, note: Callable[[ApprovalKey], None]) -> None:
        self._store = store
        self._note = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def append(self, append: Append) -> Awaitable[Appended]:
        return self._store.append(append) if append.subject is None else self._append(append)

    async def _append(self, append: Append) -> Appended:
        try:
            return await self._store.append(append)
        finally:
            self._note_all([append.subject])

    async def append_all(self, appends: Sequence[Append]) -> list[Appended]:
        try:
            return await self._store.append_all(appends)
        finally:
            self._note_all(append.subject for append in appends)

    async def replace_approval(self, approval: Approval) -> bool:
        try:
            return await self._store.replace_approval(approval)
        finally:
            self._note(approval.key)

    async def complete_effect(self, key: ApprovalKey, effect_id: str) -> None:
        """The last effect that waits with a decision may be this one: then that stands."""
        try:
            await self._store.complete_effect(key, effect_id)
        finally:
            self._note(key)

    async def record(self, record: AttemptRecord) -> bool:
        try:
            return await self._store.record(record)
        finally:
            if record.resume is not None:
                self._note_all([record.delivery.approval_key])

    def _note_all(self, subjects: Iterable[ApprovalKey | IncidentKey | None]) -> None:
        for subject in subjects:
            if isinstance(subject, ApprovalKey):
                self._note(subject)
