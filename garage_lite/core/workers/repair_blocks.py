"""`repair block-rc` and `repair clear-resync-queue`: what this node knows of its blocks.

Blocks are counted from their references whenever that matters; there is no counter that could
be wrong. What block-rc does here instead is to look at each block by its count: one that is
referred to and absent, or there and not referred to, is queued for resync if it is not yet.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Final

from garage_lite.core.block.resync import Row, resync_rows
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.ids import BlockHash
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.workers.rebalance import walk
from garage_lite.core.workers.repair import breathe
from garage_lite.core.workers.resync import ResyncQueue
from garage_lite.core.workers.runner import BUSY, DONE, Progress, Step

log = logging.getLogger(__name__)

BATCH_BLOCKS: Final = 256
"""Counted in one step, at 50 microseconds each."""
BATCH_ROWS: Final = 512
_REFS: Final = bytes((Table.BLOCK_REF,)), bytes((Table.BLOCK_REF + 1,))
_QUEUE: Final = bytes((Table.RESYNC_DUE,)), bytes((Table.RESYNC + 1,))
_BLOCK_OF_REF: Final = slice(2, 34)


class BlockCountRepair:
    """One step counts one batch of blocks."""

    name = "Block refcount repair worker"

    def __init__(self, store: BlockStore, queue: ResyncQueue) -> None:
        self._store = store
        self._queue = queue
        self._blocks = self._all_blocks()
        self.counted = 0
        self.queued = 0

    async def work(self) -> Step:
        now_us = self._store.tables.clock.now_us()
        rows: list[Row] = []
        looked_at = 0
        async for block in self._blocks:
            looked_at += 1
            if await self._is_wrong(block):
                rows += resync_rows(block, now_us)
            if looked_at == BATCH_BLOCKS:
                break
        if rows:
            await self._store.write(rows)
            self._queue.notify()
        self.counted += looked_at
        self.queued += len(rows) // 2
        if looked_at:
            return BUSY
        log.info("%s: finished, done %d, fixed %d", self.name, self.counted, self.queued)
        return DONE

    async def wait(self) -> None:
        return

    def progress(self) -> Progress:
        return Progress(
            progress=f"{self.counted} ({self.queued})",
            freeform=("no counters to repair: blocks are counted from their references",),
        )

    async def _is_wrong(self, block: BlockHash) -> bool:
        async with self._store.locks.hold(block):
            facts = self._store.facts(block)
            if self._store.entry(block) is not None:
                return False
        needed = facts.owner and facts.live > 0
        return needed != facts.present

    async def _all_blocks(self) -> AsyncIterator[BlockHash]:
        """Those that are referred to, then those that have a file."""
        last = b""
        for keys, _ in self._store.tables.durable().scan(*_REFS):
            for key in keys:
                if key[_BLOCK_OF_REF] != last:
                    last = key[_BLOCK_OF_REF]
                    yield BlockHash(last)
            await breathe()
        async for copy in walk(self._store):
            yield copy.name.block


class ClearResyncQueue:
    """Forgets every block that waits to be looked at; `repair blocks` finds those that matter."""

    name = "Resync queue clearing worker"

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self.cleared = 0

    async def work(self) -> Step:
        some: list[bytes] = []
        for keys, _ in self._store.tables.durable().scan(*_QUEUE):
            some += keys
            if len(some) >= BATCH_ROWS:
                break
        if not some:
            log.info("the resync queue was cleared: %d rows", self.cleared)
            return DONE
        await self._store.write([(key, b"") for key in some[:BATCH_ROWS]])
        self.cleared += min(len(some), BATCH_ROWS)
        return BUSY

    async def wait(self) -> None:
        return

    def progress(self) -> Progress:
        return Progress(freeform=(f"{self.cleared} rows cleared",))
