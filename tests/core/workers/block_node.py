"""One simulated node with real tables and block files, for the workers on blocks.

Everything runs in virtual time on simulated disks: `run(scenario(), seed)`.
"""

from __future__ import annotations

import asyncio

from garage_lite.core.block.frame import StoredBlock
from garage_lite.core.block.markers import DataDirectory
from garage_lite.core.block.refcount import Reference, references
from garage_lite.core.block.resync import deletion_rows
from garage_lite.core.cluster.block_offload import Owners
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.block_files import BlockFiles, BlockOptions
from garage_lite.core.disk.block_locks import BlockLocks
from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore
from garage_lite.core.disk.replica import Replica
from garage_lite.core.errors import BlockCorrupt, BlockMissing
from garage_lite.core.ids import BlockHash, BucketId, DataId
from garage_lite.core.model.rowkeys import (
    SUFFIX_BYTES,
    Table,
    block_ref_row,
    block_refs_prefix,
)
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.resync import ResyncQueue
from garage_lite.core.workers.variables import LiveVariables
from tests.core.blocks_on_disk import named
from tests.core.tables_on_disk import lone_tables
from tests.sim.files import SimFiles
from tests.sim.loop import SimClock, SimEntropy

BUCKET = BucketId(b"B" * 32)
MINUTE_US = 60_000_000


def data_id(number: int) -> DataId:
    return DataId(number.to_bytes(16, "big"))


class Node:
    """`peer` holds what other nodes could send."""

    def __init__(
        self, files: SimFiles, metadata: MetadataStore, replica: Replica, tables: Tables
    ) -> None:
        self.disk = files
        self.replica = replica
        self.metadata = metadata
        self.state = NodeState(tables)
        self.tables = tables
        self.clock = SimClock()
        self.peer: dict[BlockHash, bytes] = {}
        self.fetches = 0
        self.owned = self.complete = True
        self.owners = Owners([], 1, 1)
        """What others say of every block."""
        self.variables = LiveVariables(self.state)
        self.store: BlockStore
        self.queue: ResyncQueue

    @classmethod
    async def open(
        cls, files: SimFiles | None = None, directories: dict[str, int] | None = None
    ) -> Node:
        files = files or SimFiles()
        entropy = SimEntropy(len(files.journal))
        metadata = await MetadataStore.open(
            files, "/meta", SimClock(), entropy, MetadataOptions(suffix_bytes=SUFFIX_BYTES)
        )
        replica = Replica(metadata)
        node = cls(files, metadata, replica, lone_tables(replica, SimClock(), entropy))
        wanted = [DataDirectory(p, c) for p, c in (directories or {"/data": 1}).items()]
        options = BlockOptions(reserve_bytes=0)
        blocks = await BlockFiles.open(files, wanted, node.state, entropy, options)
        node.store = BlockStore(
            node.replica,
            node.tables,
            blocks,
            BlockLocks(),
            owns=lambda block: node.owned,
            complete=lambda block: node.complete,
        )
        node.queue = ResyncQueue(node.store, node.fetch, node.offer)
        blocks.on_corrupt = node.store.look_again
        return node

    async def close(self) -> None:
        await self.store.files.close()
        await self.tables.close()
        await self.metadata.close()

    async def offer(self, block: BlockHash) -> Owners:
        await asyncio.sleep(0.01)
        return self.owners

    async def fetch(self, block: BlockHash) -> StoredBlock:
        self.fetches += 1
        await asyncio.sleep(0.01)
        if block not in self.peer:
            raise BlockMissing
        if named(self.peer[block]) != block:
            raise BlockCorrupt
        return StoredBlock(False, [self.peer[block]])

    async def put(self, plain: bytes, data: int) -> BlockHash:
        """As the store's verbs do: reference and file under the block's lock."""
        block = named(plain)
        async with self.store.locks.hold(block):
            await self.refer(block, data)
            await self.store.files.put(block, [plain], compress=True, verify=False)
        return block

    async def refer(self, block: BlockHash, data: int) -> None:
        row = BlockRef(BUCKET).encode()
        await self.tables.write([Update(block_ref_row(block, data_id(data)), row)])

    async def forget(self, block: BlockHash, data: int) -> None:
        """Mark a reference deleted; tables queue the block where it was the last one."""
        row = BlockRef(BUCKET, deleted=True).encode()
        await self.tables.write([Update(block_ref_row(block, data_id(data)), row)])

    async def orphan(self, plain: bytes) -> BlockHash:
        """A file that no row speaks of."""
        await self.store.files.put(named(plain), [plain], compress=False, verify=False)
        return named(plain)

    def references(self, block: BlockHash) -> list[Reference]:
        return references(self.tables.durable().with_prefix(block_refs_prefix(block)))

    def entries(self) -> int:
        """Rows in the two tables of the queue."""
        scan = self.tables.durable().scan(bytes((Table.RESYNC_DUE,)), bytes((Table.RESYNC + 1,)))
        return sum(len(keys) for keys, _ in scan)

    async def drain(self, most: int = 10_000) -> int:
        """Let the resync worker deal with all that is due."""
        steps = 0
        while await self.queue.step():
            steps += 1
            assert steps < most, "the queue never runs empty"
        return steps

    async def settle(self, minutes: int = 12) -> None:
        for _ in range(minutes):
            await self.drain()
            await asyncio.sleep(60)
        await self.drain()


__all__ = ["BUCKET", "MINUTE_US", "Node", "data_id", "deletion_rows"]
