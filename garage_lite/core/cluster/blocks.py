"""Data blocks, wherever they are: put, get and referenced through one door.

Today this node holds every block. A block travels with the rows that refer to it and both are
acknowledged together, so the verbs of core/store will not change when peers join.
"""

from __future__ import annotations

from collections.abc import Sequence

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.block_files import BlockFiles
from garage_lite.core.disk.block_locks import BlockLocks
from garage_lite.core.ids import BlockHash
from garage_lite.core.ports import Buffer
from garage_lite.core.table.schema import Change


class Blocks:
    """The blocks of the cluster, as the verbs see them."""

    def __init__(self, tables: Tables, files: BlockFiles, locks: BlockLocks) -> None:
        """`locks` are those under which the resync worker deletes."""
        self._tables = tables
        self._files = files
        self._locks = locks

    async def put(
        self,
        block: BlockHash,
        parts: Sequence[Buffer],
        rows: Sequence[Change],
        *,
        compress: bool = True,
    ) -> None:
        """The rows (a block_ref among them), then the block, are durable on return.

        `block` is the BLAKE3 of `parts`, just computed. Raises DiskFull, StorageFailed; then the
        rows may be there without the block.
        """
        async with self._locks.hold(block):
            await self._tables.write(rows)
            await self._files.put(block, parts, compress=compress, verify=False)

    async def get(self, block: BlockHash) -> bytes:
        """The content, verified. Raises BlockMissing, BlockCorrupt, StorageFailed."""
        return await self._files.get(block)

    async def refer(self, blocks: Sequence[BlockHash], rows: Sequence[Change]) -> list[BlockHash]:
        """Add references (`rows`) to blocks that should be there already.

        Returns those whose file is not: the caller puts them again. The lock is taken after the
        rows are written: a deletion under way has ended by then, a later one counts them.
        """
        await self._tables.write(rows)
        missing = []
        for block in dict.fromkeys(blocks):
            async with self._locks.hold(block):
                if not self._files.has(block):
                    missing.append(block)
        return missing
