"""Data blocks, wherever they are: put, get and referenced through one door.

A block travels with the rows that refer to it and both are acknowledged together. Where this node
is a block's only owner nothing travels: rows and file are written here, in that order, and the
rows as one record. Otherwise the references go with the block to its owners, and the other rows
(pages, pending data) to theirs at the same time: one round trip for all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from garage_lite.core.cluster.block_fetching import BlockFetcher
from garage_lite.core.cluster.block_offload import BlockOffload
from garage_lite.core.cluster.block_sending import BlockSender
from garage_lite.core.cluster.block_service import BlockService, Reference
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.quorum_rows import Stale
from garage_lite.core.cluster.throttle import Throttle
from garage_lite.core.errors import BlockCorrupt, BlockMissing, QuorumNotReached, StorageFailed
from garage_lite.core.ids import BlockHash
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.model.versions import decode_page
from garage_lite.core.ports import Buffer
from garage_lite.core.table.schema import Change, Update

T = TypeVar("T")
U = TypeVar("U")

_CLOSE_SECONDS: Final = 5.0


class Blocks:
    """The blocks of the cluster, as the verbs see them."""

    def __init__(self, store: BlockStore, cluster: Cluster, layout: ClusterLayout) -> None:
        """Serves this node's blocks at the cluster's endpoints from now on."""
        self.store = store
        self.throttle = Throttle(store.tables.clock)
        """Of all background traffic of blocks; its rate is set from outside."""
        self.service = BlockService(store, layout, self.throttle)
        self.service.serve(cluster.endpoints)
        self.sender = BlockSender(cluster, layout, self.service, self.throttle)
        self.fetcher = BlockFetcher(cluster, layout, store, self.throttle)
        self.offload = BlockOffload(cluster, layout, store, self.sender)

    async def put(
        self,
        block: BlockHash,
        parts: Sequence[Buffer],
        rows: Sequence[Change],
        *,
        compress: bool = True,
    ) -> None:
        """The rows (a block_ref among them) and the block are durable at write quorums on return.

        `block` is the BLAKE3 of `parts`, just computed. Raises QuorumNotReached, DiskFull,
        StorageFailed; then rows may be there without the block, and the block without rows.
        """
        if self.store.tables.alone:
            async with self.store.locks.hold(block):
                await self.store.tables.write(rows)
                await self.store.files.put(block, parts, compress=compress, verify=False)
            return
        references, others = _parted(rows)
        stored = await self.store.files.prepare(parts, compress=compress)
        del parts
        await _together(
            self._twice(lambda: self.sender.put(block, stored, references)),
            self._write(others),
        )

    async def get(self, block: BlockHash) -> bytes:
        """The content, verified: from this node's disk, or from the nearest that has it. Raises
        BlockMissing, BlockCorrupt, StorageFailed, Unavailable."""
        if not (self.store.owns(block) or self.store.files.has(block)):
            return await self.fetcher.get(block)
        try:
            return await self.store.files.get(block)
        except (BlockMissing, BlockCorrupt, StorageFailed):
            if not self.fetcher.others(block):
                raise
            await self.store.heal(block)
            return await self.fetcher.get(block)

    async def refer(self, blocks: Sequence[BlockHash], rows: Sequence[Change]) -> list[BlockHash]:
        """Add references (`rows`) to blocks that should be there already.

        Returns those that too few of their owners have: the caller puts them again. Where this
        node is the only owner the lock is taken after the rows are written: a deletion under way
        has ended by then, a later one counts them.
        """
        if self.store.tables.alone:
            await self.store.tables.write(rows)
            return [block for block in dict.fromkeys(blocks) if not await self._has(block)]
        references, others = _parted(rows)
        missing, _ = await _together(
            self._twice(lambda: self.sender.refer(references)), self._write(others)
        )
        return missing

    async def close(self) -> None:
        """Let what is under way to slow nodes end, for a while."""
        await self.sender.close(_CLOSE_SECONDS)
        await self.fetcher.close()

    async def _has(self, block: BlockHash) -> bool:
        async with self.store.locks.hold(block):
            return self.store.files.has(block)

    async def _write(self, rows: Sequence[Change]) -> None:
        if rows:
            await self.store.tables.write(rows)

    async def _twice(self, send: Callable[[], Awaitable[T]]) -> T:
        """Once more if a peer knows a newer layout, by which it must be done then."""
        try:
            return await send()
        except Stale as stale:
            await self.store.tables.catch_up(stale.node)
        try:
            return await send()
        except Stale as still:
            raise QuorumNotReached("the cluster layout is changing") from still


def _parted(rows: Sequence[Change]) -> tuple[list[Reference], list[Change]]:
    """The references among rows, each with the page in the same rows that names its block, and
    the other rows."""
    pages = {
        (row.key[34:50], block.hash): row.key
        for row in rows
        if isinstance(row, Update) and row.key[0] == Table.PAGE
        for block in decode_page(row.value)
    }
    references = []
    others: list[Change] = []
    for row in rows:
        if isinstance(row, Update) and row.key[0] == Table.BLOCK_REF:
            named = (row.key[34:], BlockHash(row.key[2:34]))
            references.append(Reference(row.key, row.value, pages.get(named)))
        else:
            others.append(row)
    return references, others


async def _together(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Both at once; when one fails the other is called off, and the failure raised."""
    tasks = asyncio.create_task(first), asyncio.create_task(second)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = next((task for task in tasks if task.done() and task.exception()), None)
        if failed is not None:
            await failed
        return tasks[0].result(), tasks[1].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
