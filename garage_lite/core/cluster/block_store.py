"""What is known on this node of a block: its references here, its file, who needs it.

Shared by those who answer peers and by the workers. Must not know what is done about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from garage_lite.core.block.refcount import live_count, references
from garage_lite.core.block.resync import Facts, ResyncEntry, Row, Standing, entry_key, resync_rows
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.block_files import BlockFiles
from garage_lite.core.disk.block_locks import BlockLeases, BlockLocks
from garage_lite.core.disk.replica import Replica
from garage_lite.core.ids import BlockHash
from garage_lite.core.model.rowkeys import block_refs_prefix
from garage_lite.core.table.schema import Update


def _always(block: BlockHash) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class BlockStore:
    """This node's blocks."""

    replica: Replica
    tables: Tables
    files: BlockFiles
    locks: BlockLocks
    leases: BlockLeases = field(default_factory=BlockLeases)
    owns: Callable[[BlockHash], bool] = _always
    """Whether this node is one of a block's owners by an active version of the layout."""
    complete: Callable[[BlockHash], bool] = _always
    """Whether the references here are all that this node should have; see `Facts.complete`."""

    def facts(self, block: BlockHash) -> Facts:
        """What is so now; to be asked under the block's lock.

        A reference counts while it is live in either view: one that was just added is not
        durable yet, and the removal of one that is not durable yet may never have happened.
        Raises StorageFailed where a row can't be read.
        """
        prefix = block_refs_prefix(block)
        durable = self.tables.durable().with_prefix(prefix)
        latest = self.tables.latest().with_prefix(prefix)
        live = max(live_count(durable), live_count(latest))
        leased = self.leases.held(block) or any(
            self.leases.held(reference.data) for reference in references(latest)
        )
        present = self.files.has(block)
        return Facts(live, present, leased, self.owns(block), self.complete(block))

    async def standing(self, block: BlockHash) -> Standing:
        """What this node says of a block to one that asks. Raises StorageFailed."""
        async with self.locks.hold(block):
            facts = self.facts(block)
        if not facts.owner:
            return Standing.STRANGER
        if facts.live:
            return Standing.HELD if facts.present else Standing.NEEDED
        if not facts.complete:
            return Standing.STRANGER
        return Standing.SPARE if facts.present else Standing.UNWANTED

    def entry(self, block: BlockHash) -> ResyncEntry | None:
        stored = self.tables.latest().get(entry_key(block))
        return ResyncEntry.decode(stored) if stored is not None else None

    async def look_again(self, block: BlockHash, after_us: int = 0) -> None:
        """Queue a block to be looked at, now or `after_us` from now. Durable on return."""
        await self.write(resync_rows(block, self.tables.clock.now_us() + after_us))

    async def heal(self, block: BlockHash) -> None:
        """A read found no good copy here: queue the block if it should be here and is not queued
        already. Raises StorageFailed."""
        facts = self.facts(block)
        if facts.owner and facts.live and not facts.present and self.entry(block) is None:
            await self.look_again(block)

    async def write(self, rows: list[Row], guard: Callable[[], None] | None = None) -> None:
        """Write rows of this node's own; `guard` runs right before. See `Replica.apply`."""
        updates = [Update(key, value) for key, value in rows]
        await self.replica.apply(updates, self.tables.now_ms(), guard, True)
