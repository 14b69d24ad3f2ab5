"""Eats cascades: what a removed version, part or upload owned goes, a bounded bite at a time.

The rows of the CASCADE table are put there in the record of the removal itself, so nothing is
forgotten by a crash; every bite is idempotent, so a bite done twice does no harm.

In a cluster each holder of the removed row has the cascade. It is eaten once the cause is at a
quorum (reading it brings it there), for all holders by the first of them; the others look a while
later whether that has been done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.block_locks import BlockLeases
from garage_lite.core.errors import Unavailable
from garage_lite.core.ids import BucketId, DataId, VersionId
from garage_lite.core.model import rowkeys
from garage_lite.core.model.rowkeys import CascadeKind, Table
from garage_lite.core.model.uploads import Part
from garage_lite.core.model.versions import BlockRef, decode_page, decode_part_list
from garage_lite.core.table.schema import Change, Update
from garage_lite.core.workers.cascade_causes import SURE, Verdict, confirmed, decide_fence, settle
from garage_lite.core.workers.runner import BUSY, IDLE, Progress, Step

log = logging.getLogger(__name__)

BITE_CHANGES: Final = 96
"""Rows changed per record: what each brings along is worked out in one go, so this bounds how
long the event loop stands still."""
LEASE_SECONDS: Final = 5.0
"""How long to wait before asking again for data that is being read."""
FOLLOW_US: Final = 30_000_000
"""How long the first holder has before the others do its work."""
AGAIN_US: Final = 10_000_000
"""When to look again at what can't be told now."""
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
        """Something is left: it is being read, or it is not due."""

    async def work(self) -> Step:
        self._waiting = False
        keys = await self._some()
        for key in keys:
            await self._try(key)
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
        """Cascades that are due here, earliest first."""
        now_us = self._tables.clock.now_us()
        async for keys, _ in self._tables.scan(_START, _END):
            free = [key for key in keys if self._is_due(key, now_us)]
            if free:
                return free
            self._waiting = self._waiting or bool(keys)
            if keys and rowkeys.cascade_due_us(keys[-1]) > now_us:
                break
        return []

    def _is_due(self, key: bytes, now_us: int) -> bool:
        if self._leases.held(rowkeys.cascade_of(key)[1]):
            return False
        since_us = now_us - rowkeys.cascade_due_us(key)
        return since_us >= FOLLOW_US or (since_us >= 0 and self._tables.leads(_row_of(key)))

    async def _try(self, key: bytes) -> None:
        try:
            if rowkeys.cascade_of(key)[2] == CascadeKind.SETTLE:
                await settle(self._tables, key)
                verdict = Verdict.DROP
            elif rowkeys.cascade_of(key)[2] == CascadeKind.FENCE:
                verdict = await decide_fence(self._tables, key)
            else:
                verdict = await confirmed(self._tables, key)
            if verdict is Verdict.EAT and (self._tables.leads(_row_of(key)) or self._left(key)):
                await self._eat(key)
                self._eaten += 1
                return
        except Unavailable as error:
            log.debug("a cascade waits: %s", error)
            verdict = Verdict.WAIT
        changes = [Update(key, b"")]
        if verdict is Verdict.WAIT:
            later_us = self._tables.clock.now_us() + AGAIN_US
            cause = self._tables.durable().get(key) or SURE
            changes.append(Update(rowkeys.cascade_row(*rowkeys.cascade_of(key), later_us), cause))
        await self._tables.write(changes, deletes_only=True)

    def _left(self, key: bytes) -> bool:
        """Whether this node still holds something of what goes."""
        bucket, removed, kind = rowkeys.cascade_of(key)
        start = _OWNED[kind](bucket, removed)
        batches = self._tables.durable().scan(start, rowkeys.after_prefix(start))
        return any(any(values) for _, values in batches)

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
                await self._write(bite)
                bite = []
        await self._write(bite, [Update(key, b"")])

    async def _write(self, bite: list[Change], last: Sequence[Change] = ()) -> None:
        """One record on a node alone. In a cluster what a row names goes before the row, and the
        cascade last."""
        if self._tables.alone:
            await self._tables.write([*bite, *last], deletes_only=True)
            return
        named = [one for one in bite if one.key[0] in (Table.BLOCK_REF, Table.CASCADE)]
        rest = [one for one in bite if one.key[0] not in (Table.BLOCK_REF, Table.CASCADE)]
        for changes in (named, rest, last):
            if changes:
                await self._tables.write(changes, deletes_only=True)

    async def _data(self, bucket: BucketId, removed: bytes) -> AsyncIterator[list[Change]]:
        data = DataId(removed)
        dead = BlockRef(bucket, deleted=True).encode()
        async for key, value in self._rows(rowkeys.pages_prefix(bucket, data)):
            refs = {rowkeys.block_ref_row(block.hash, data) for block in decode_page(value)}
            yield [*(Update(ref, dead) for ref in sorted(refs)), Update(key, b"")]

    async def _part_lists(self, bucket: BucketId, removed: bytes) -> AsyncIterator[list[Change]]:
        async for key, value in self._rows(rowkeys.part_lists_prefix(bucket, VersionId(removed))):
            parts = decode_part_list(value)
            yield [*(_cascade_data(bucket, part.data) for part in parts), Update(key, b"")]

    async def _upload(self, bucket: BucketId, removed: bytes) -> AsyncIterator[list[Change]]:
        async for key, value in self._rows(rowkeys.parts_prefix(bucket, VersionId(removed))):
            yield [_cascade_data(bucket, Part.decode(value).data), Update(key, b"")]

    async def _completed(self, bucket: BucketId, removed: bytes) -> AsyncIterator[list[Change]]:
        version = VersionId(removed)
        named: set[DataId] = set()
        async for _, value in self._rows(rowkeys.part_lists_prefix(bucket, version)):
            named.update(part.data for part in decode_part_list(value))
        async for key, value in self._rows(rowkeys.parts_prefix(bucket, version)):
            data = Part.decode(value).data
            goes = [] if data in named else [_cascade_data(bucket, data)]
            yield [*goes, Update(key, b"")]

    async def _rows(self, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        async for keys, values in self._tables.scan(prefix, rowkeys.after_prefix(prefix)):
            for key, value in zip(keys, values, strict=True):
                yield key, value


def _cascade_data(bucket: BucketId, data: DataId) -> Update:
    return Update(rowkeys.cascade_row(bucket, data, CascadeKind.DATA), SURE)


def _row_of(key: bytes) -> bytes:
    """Some row of the bucket that a cascade is about."""
    return rowkeys.in_bucket(Table.OBJECT, rowkeys.cascade_of(key)[0])


_OWNED: Final[dict[bytes, Callable[[BucketId, bytes], bytes]]] = {
    CascadeKind.DATA: lambda bucket, data: rowkeys.pages_prefix(bucket, DataId(data)),
    CascadeKind.PARTS: lambda bucket, id_: rowkeys.part_lists_prefix(bucket, VersionId(id_)),
    CascadeKind.UPLOAD: lambda bucket, id_: rowkeys.parts_prefix(bucket, VersionId(id_)),
    CascadeKind.COMPLETED: lambda bucket, id_: rowkeys.parts_prefix(bucket, VersionId(id_)),
}
