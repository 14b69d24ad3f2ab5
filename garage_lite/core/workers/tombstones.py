"""Forgets rows that only say "removed", once no older row can come back.

Queued in the record that made them (TOMBSTONE rows, in order of due time); dropped only if the
row still is what it was.
"""

from __future__ import annotations

import asyncio
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import Table, local_row, stamp_of
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.table.schema import Change, Removal, Update
from garage_lite.core.workers.runner import BUSY, IDLE, Progress, Step

BATCH: Final = 256
POLL_SECONDS: Final = 60.0
_START: Final = bytes((Table.TOMBSTONE,))
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


class TombstoneWorker:
    """One step is one batch of tombstones that are due."""

    name = "Tombstone worker"

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._forgotten = 0

    async def work(self) -> Step:
        due = await self._some()
        if not due:
            return IDLE
        changes: list[Change] = []
        for todo in due:
            key = todo[_KEY_AT:]
            value = await self._tables.get(key)
            if value is not None and says_only_removed(key, value):
                changes.append(Removal(key))
            changes.append(Update(todo, b""))
        await self._tables.write(changes, deletes_only=True)
        self._forgotten += len(due)
        return BUSY

    async def wait(self) -> None:
        await asyncio.sleep(POLL_SECONDS)

    def progress(self) -> Progress:
        return Progress(freeform=(f"{self._forgotten} since the start",))

    async def _some(self) -> list[bytes]:
        now_us = self._tables.clock.now_us()
        found: list[bytes] = []
        async for keys, _ in self._tables.scan(
            _START, local_row(Table.TOMBSTONE, (now_us + 1).to_bytes(8, "big"))
        ):
            found += keys
            if len(found) >= BATCH:
                break
        return found[:BATCH]
