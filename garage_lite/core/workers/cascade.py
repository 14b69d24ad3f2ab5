"""Eats cascades: what a removed version, part or upload owned goes, a bounded bite at a time.

The rows of the CASCADE table are put there in the record of the removal itself, so nothing is
forgotten by a crash; every bite is idempotent, so a bite done twice does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.block_locks import BlockLeases
from garage_lite.core.ids import BucketId, DataId, VersionId
from garage_lite.core.model import rowkeys
from garage_lite.core.model.rowkeys import CascadeKind, Table
from garage_lite.core.model.uploads import Part
from garage_lite.core.model.versions import BlockRef, decode_page, decode_part_list
from garage_lite.core.table.schema import Change, Removal, Update
from garage_lite.core.workers.runner import BUSY, IDLE, Progress, Step

BITE_CHANGES: Final = 96
"""Rows changed per record: what each brings along is worked out in one go, so this bounds how
long the event loop stands still."""
LEASE_SECONDS: Final = 5.0
"""How long to wait before asking again for data that is being read."""
_START: Final = bytes((Table.CASCADE,))
_END: Final = bytes((Table.CASCADE + 1,))


class CascadeWorker:
    """One step is one batch of cascades."""

    name = "Cascade worker"

    def __init__(self, tables: Tables, leases: BlockLeases) -> None:
        """`leases`: data that readers still hold is not eaten before they let go."""
        self._tables = tables
        self._leases = leases
        self._eaten = 0
        self._waiting = False
        """Something is left only because it is being read."""

    async def work(self) -> Step:
        self._waiting = False
        keys = await self._some()
        for key in keys:
            await self._eat(key)
            self._eaten += 1
        return BUSY if keys else IDLE

    async def wait(self) -> None:
        try:
            async with asyncio.timeout(LEASE_SECONDS if self._waiting else None):
                await self._tables.wait_for_cascades()
        except TimeoutError:
            return

    def progress(self) -> Progress:
        return Progress(freeform=(f"{self._eaten} since the start",))

    async def _some(self) -> list[bytes]:
        async for keys, _ in self._tables.scan(_START, _END):
            free = [key for key in keys if not self._leases.held(rowkeys.cascade_of(key)[1])]
            if free:
                return free
            self._waiting = self._waiting or bool(keys)
        return []

    async def _eat(self, key: bytes) -> None:
        bucket, removed, kind = rowkeys.cascade_of(key)
        bites = {
            CascadeKind.DATA: self._data,
            CascadeKind.PARTS: self._part_lists,
            CascadeKind.UPLOAD: self._upload,
            CascadeKind.COMPLETED: self._completed,
        }[kind]
        bite: list[Change] = []
        async for changes in bites(bucket, removed):
            bite += changes
            if len(bite) >= BITE_CHANGES:
                await self._tables.write(bite, deletes_only=True)
                bite = []
        await self._tables.write([*bite, Update(key, b"")], deletes_only=True)

    async def _data(self, bucket: BucketId, removed: bytes) -> AsyncIterator[list[Change]]:
        data = DataId(removed)
        dead = BlockRef(bucket, deleted=True).encode()
        async for key, value in self._rows(rowkeys.pages_prefix(bucket, data)):
            refs = {rowkeys.block_ref_row(block.hash, data) for block in decode_page(value)}
            yield [*(Update(ref, dead) for ref in sorted(refs)), Removal(key)]

    async def _part_lists(self, bucket: BucketId, removed: bytes) -> AsyncIterator[list[Change]]:
        async for key, value in self._rows(rowkeys.part_lists_prefix(bucket, VersionId(removed))):
            parts = decode_part_list(value)
            yield [*(_cascade_data(bucket, part.data) for part in parts), Removal(key)]

    async def _upload(self, bucket: BucketId, removed: bytes) -> AsyncIterator[list[Change]]:
        async for key, value in self._rows(rowkeys.parts_prefix(bucket, VersionId(removed))):
            yield [_cascade_data(bucket, Part.decode(value).data), Removal(key)]

    async def _completed(self, bucket: BucketId, removed: bytes) -> AsyncIterator[list[Change]]:
        version = VersionId(removed)
        named: set[DataId] = set()
        async for _, value in self._rows(rowkeys.part_lists_prefix(bucket, version)):
            named.update(part.data for part in decode_part_list(value))
        async for key, value in self._rows(rowkeys.parts_prefix(bucket, version)):
            data = Part.decode(value).data
            yield [Removal(key)] if data in named else [_cascade_data(bucket, data), Removal(key)]

    async def _rows(self, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        async for keys, values in self._tables.scan(prefix, rowkeys.after_prefix(prefix)):
            for key, value in zip(keys, values, strict=True):
                yield key, value


def _cascade_data(bucket: BucketId, data: DataId) -> Update:
    return Update(rowkeys.cascade_row(bucket, data, CascadeKind.DATA), b"\x01")
