"""After a change of the layout: has every block looked at that came to this node or left it.

What this node holds by the layout is compared with what it held when it last walked its blocks,
partition by partition; each that came or went is walked once and its blocks queued for resync,
which fetches them or hands them over. A bit a partition is all that a restart must not forget.
Partitions that came are walked when the layout has settled, for only then are all references to
their blocks here; references that arrive earlier may be queued by who brings them. It never goes
far ahead of the resync workers, so that a big node's move does not become a big queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from garage_lite.core.block.frame import LEAVES
from garage_lite.core.block.resync import Row, resync_rows
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.disk.block_directories import SmallState
from garage_lite.core.ids import PARTITIONS, BlockHash
from garage_lite.core.layout.lookup import Lookup
from garage_lite.core.model.rowkeys import Table, after_prefix
from garage_lite.core.workers.resync import ResyncQueue
from garage_lite.core.workers.runner import BUSY, IDLE, Progress, Step

log = logging.getLogger(__name__)

QUEUE_BLOCKS: Final = 512
"""Blocks queued in one record."""
QUEUE_LENGTH_MAX: Final = 20_000
"""While so many wait for the resync workers no more are queued here."""
POLL_SECONDS: Final = 30.0
_ROW: Final = "blocks/partitions"
_LEAVES: Final = LEAVES // PARTITIONS
_BLOCK_OF_REF: Final = slice(2, 34)


class BlockMoveWorker:
    """One step is one record of queued blocks, or one partition without any."""

    name = "Block move worker"

    def __init__(
        self, store: BlockStore, layout: ClusterLayout, state: SmallState, queue: ResyncQueue
    ) -> None:
        self._store = store
        self._layout = layout
        self._state = state
        self._queue = queue
        kept = state.get(_ROW)
        self._held = int.from_bytes(kept, "big") if kept is not None else 0
        """Bit p: partition p was this node's when it was walked last."""
        self._kept = self._held
        self._partition: int | None = None
        self._blocks: AsyncIterator[BlockHash] | None = None
        self._seen: Lookup | None = None
        self._wanted = 0
        """As `_held`, by the layout `_seen`: asked for at every step, found out once."""
        self._wake = asyncio.Event()
        self.queued = 0
        layout.on_change(self._wake.set)

    async def work(self) -> Step:
        if self._queue.left >= QUEUE_LENGTH_MAX:
            return IDLE
        if self._blocks is None:
            changed = self._changed()
            if not changed:
                await self._keep()
                return IDLE
            self._partition = (changed & -changed).bit_length() - 1
            self._blocks = self._walk(self._partition)
        before = self.queued
        if not await self._queue_some(self._blocks):
            self._held ^= 1 << self._partition_walked()
            if self.queued > before:
                await self._keep()
        return BUSY

    async def wait(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def progress(self) -> Progress:
        left = self._changed().bit_count()
        line = f"{self.queued} blocks queued since the start"
        return Progress(progress=f"{left} partitions left" if left else None, freeform=(line,))

    def _changed(self) -> int:
        """The partitions to walk now, a bit each."""
        lookup = self._layout.lookup
        if not lookup.ready:
            return 0
        if lookup is not self._seen:
            self._seen = lookup
            here = self._layout.node
            self._wanted = sum(1 << held for held in lookup.partitions_of(here, data=True))
        changed = self._wanted ^ self._held
        settled = len(lookup.versions) == 1
        return changed if settled else changed & self._held

    def _was_held(self, partition: int) -> bool:
        return bool(self._held >> partition & 1)

    def _partition_walked(self) -> int:
        partition, self._partition, self._blocks = self._partition, None, None
        assert partition is not None
        return partition

    async def _queue_some(self, blocks: AsyncIterator[BlockHash]) -> bool:
        """Queue the next blocks; False when these were the last."""
        now_us = self._store.tables.clock.now_us()
        rows: list[Row] = []
        count = 0
        async for block in blocks:
            if self._store.entry(block) is None:
                rows += resync_rows(block, now_us)
                count += 1
            if count == QUEUE_BLOCKS:
                break
        if rows:
            await self._store.write(rows)
            self._queue.queued(count)
            self._queue.notify()
            self.queued += count
        return count == QUEUE_BLOCKS

    async def _walk(self, partition: int) -> AsyncIterator[BlockHash]:
        """The blocks that are referred to here and absent, if the partition came; those that are
        here, if it went."""
        if self._was_held(partition):
            async for block in self._files(partition):
                yield block
            return
        last = b""
        start = bytes((Table.BLOCK_REF, partition))
        for keys, _ in self._store.tables.durable().scan(start, after_prefix(start)):
            for key in keys:
                if key[_BLOCK_OF_REF] != last:
                    last = key[_BLOCK_OF_REF]
                    if not self._store.files.has(BlockHash(last)):
                        yield BlockHash(last)
            await asyncio.sleep(0)

    async def _files(self, partition: int) -> AsyncIterator[BlockHash]:
        first = partition * _LEAVES
        for directory in self._store.files.directories:
            leaf = first
            while (found := await self._store.files.next_leaf(directory, leaf)) is not None:
                number, copies = found
                if number >= first + _LEAVES:
                    break
                for copy in copies:
                    yield copy.name.block
                leaf = number + 1

    async def _keep(self) -> None:
        if self._held != self._kept:
            await self._state.set(_ROW, self._held.to_bytes(PARTITIONS // 8, "big"))
            self._kept = self._held
