"""One-shot walks over the blocks: bring each to its directory, or look at each again.

Both are asked for by an operator (`repair rebalance`, `repair blocks`), run to their end in the
background, and may be asked for again; a restart forgets them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from garage_lite.core.block.pace import Pace
from garage_lite.core.block.resync import Row, resync_rows
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.disk.block_shelf import Copy
from garage_lite.core.errors import NodeError
from garage_lite.core.ids import BlockHash
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.workers.runner import BUSY, DONE, Progress, State, Step
from garage_lite.core.workers.variables import SCRUB_TRANQUILITY, LiveVariables

log = logging.getLogger(__name__)

QUEUE_BLOCKS: Final = 512
"""Blocks queued in one record: two rows of about 100 bytes each."""
_REFS_START: Final = bytes((Table.BLOCK_REF,))
_REFS_END: Final = bytes((Table.BLOCK_REF + 1,))
_BLOCK_OF_REF: Final = slice(2, 34)


async def walk(store: BlockStore) -> AsyncIterator[Copy]:
    """Every block file of this node, also those set aside. Raises StorageFailed."""
    for directory in store.files.directories:
        leaf = 0
        while (found := await store.files.next_leaf(directory, leaf)) is not None:
            number, copies = found
            for copy in copies:
                yield copy
            leaf = number + 1


class RebalanceWorker:
    """Moves blocks to the directories where they belong. One step is one file."""

    name = "Block rebalance worker"

    def __init__(self, store: BlockStore, variables: LiveVariables) -> None:
        self._store = store
        self._variables = variables
        self._walk = walk(store)
        self._pace = Pace()
        self.moved = 0
        self.stayed = 0
        """Files away from home that could not be moved."""

    async def work(self) -> Step:
        try:
            copy = await anext(self._walk, None)
        except NodeError:
            self.stayed += 1  # the walk ends here, and with it what is known of the rest
            raise
        if copy is None:
            if not self.stayed:
                await self._store.files.rebalanced()
            log.info("rebalance ended: %d blocks moved, %d stay", self.moved, self.stayed)
            return DONE
        if copy.name.corrupted or self._store.files.home(copy.name.block) is copy.directory:
            return BUSY
        clock = self._store.tables.clock
        start = clock.monotonic_us()
        await self._move(copy)
        rest = self._pace.rest_us(clock.monotonic_us() - start, self._variables[SCRUB_TRANQUILITY])
        return Step(State.THROTTLED, rest)

    async def _move(self, copy: Copy) -> None:
        try:
            moved = await self._store.files.move_home(copy)
        except NodeError as error:
            log.warning("rebalance: %s", error.message)
            moved = False
        self.moved += moved
        self.stayed += not moved

    async def wait(self) -> None:
        return

    def progress(self) -> Progress:
        lines = [f"{self.moved} blocks moved, {self.stayed} stay where they are"]
        return Progress(tranquility=self._variables[SCRUB_TRANQUILITY], freeform=lines)


class BlockRepairWorker:
    """Queues every block that has a reference, then every block that has a file.

    An entry that waits its turn is left alone; one that failed is tried again now. One step is
    one record.
    """

    name = "Block repair worker"

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._blocks = self._all_blocks()
        self.queued = 0

    async def work(self) -> Step:
        now_us = self._store.tables.clock.now_us()
        rows: dict[BlockHash, list[Row]] = {}
        async for block in self._blocks:
            entry = self._store.entry(block)
            if entry is None or entry.errors:
                rows[block] = resync_rows(block, now_us, 0, entry.dead_us if entry else 0)
            if len(rows) >= QUEUE_BLOCKS:
                break
        if not rows:
            log.info("repair queued %d blocks to be looked at", self.queued)
            return DONE
        await self._store.write([row for pair in rows.values() for row in pair])
        self.queued += len(rows)
        return BUSY

    async def _all_blocks(self) -> AsyncIterator[BlockHash]:
        last = b""
        for keys, _ in self._store.tables.durable().scan(_REFS_START, _REFS_END):
            for key in keys:
                if key[_BLOCK_OF_REF] != last:
                    last = key[_BLOCK_OF_REF]
                    yield BlockHash(last)
            await asyncio.sleep(0)
        async for copy in walk(self._store):
            yield copy.name.block

    async def wait(self) -> None:
        return

    def progress(self) -> Progress:
        return Progress(freeform=[f"{self.queued} blocks queued"])
