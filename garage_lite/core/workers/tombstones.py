"""Forgets rows that only say "removed", once no older row can come back.

Queued in the record that made them (TOMBSTONE rows, in order of due time); dropped only if the
row still is what it was.
"""

from __future__ import annotations

from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import Table, local_row, stamp_of
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.table.schema import Change, Removal, Update

BATCH: Final = 256
_START: Final = bytes((Table.TOMBSTONE,))
_DUE_AT: Final = 2
_KEY_AT: Final = 10


def says_only_removed(key: bytes, value: bytes) -> bool:
    """Whether a row may be dropped once every replica has it."""
    if key[0] == Table.OBJECT:
        version = ObjectVersion.decode(stamp_of(key), value)
        return version.removed or not version.has_data
    if key[0] == Table.BLOCK_REF:
        return BlockRef.decode(value).deleted
    if key[0] == Table.UPLOAD:
        return Upload.decode(value).state in (UploadState.COMPLETED, UploadState.REMOVED)
    return False


class Tombstones:
    """The rules of the tombstone worker."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def run(self) -> int:
        """Forget every tombstone that is due; returns how many were looked at."""
        end = local_row(Table.TOMBSTONE, (self._tables.clock.now_us() + 1).to_bytes(8, "big"))
        looked_at = 0
        while due := await self._some(end):
            changes: list[Change] = []
            for todo in due:
                key = todo[_KEY_AT:]
                value = await self._tables.get(key)
                if value is not None and says_only_removed(key, value):
                    changes.append(Removal(key))
                changes.append(Update(todo, b""))
            await self._tables.write(changes, deletes_only=True)
            looked_at += len(due)
        return looked_at

    async def next_due_us(self) -> int | None:
        """When the first tombstone is due; None if there is none."""
        async for keys, _ in self._tables.scan(_START, bytes((Table.TOMBSTONE + 1,))):
            return int.from_bytes(keys[0][_DUE_AT:_KEY_AT], "big")
        return None

    async def _some(self, end: bytes) -> list[bytes]:
        found: list[bytes] = []
        async for keys, _ in self._tables.scan(_START, end):
            found += keys
            if len(found) >= BATCH:
                break
        return found[:BATCH]
