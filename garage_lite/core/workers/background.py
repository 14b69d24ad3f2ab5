"""All the background workers of a node, and what an operator may ask of them."""

from __future__ import annotations

from collections.abc import Callable

from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.blocks import Blocks
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.cluster.table_sync import TableSync
from garage_lite.core.ids import BlockHash, NodeId
from garage_lite.core.quorum import Consistency
from garage_lite.core.workers.ballots import BallotWorker
from garage_lite.core.workers.block_moves import BlockMoveWorker
from garage_lite.core.workers.cascade import CascadeWorker
from garage_lite.core.workers.drain import DrainWatch
from garage_lite.core.workers.pending import LostDataWorker
from garage_lite.core.workers.rebalance import BlockRepairWorker, RebalanceWorker
from garage_lite.core.workers.ref_check import RefCheckWorker
from garage_lite.core.workers.resync import ResyncQueue, ResyncWorker
from garage_lite.core.workers.runner import WorkerRunner
from garage_lite.core.workers.scrub import ScrubWorker
from garage_lite.core.workers.sync import SyncWorker
from garage_lite.core.workers.tombstones import TombstoneWorker
from garage_lite.core.workers.variables import RESYNC_WORKERS_MAX, LiveVariables


class Background:
    """Made once per run; `start` after everything else, `stop` before the stores close."""

    def __init__(
        self,
        store: BlockStore,
        blocks: Blocks,
        sync: TableSync,
        state: NodeState,
        node: NodeId,
        boot: bytes,
        *,
        layout: ClusterLayout,
        scrub: bool,
        minute_of_day: Callable[[int], int],
    ) -> None:
        """`minute_of_day(now_us)`: by the clocks of the place, for the hours of a bandwidth."""
        tables = store.tables
        self.store = store
        self.runner = WorkerRunner(tables.clock)
        self.variables = LiveVariables(state)
        self.resync = ResyncQueue(store, blocks.fetcher.fetch, blocks.offload.offer)
        self.scrub = ScrubWorker(store, state, self.variables, scrub)
        store.files.on_corrupt = self._corrupt
        blocks.throttle.rate = lambda: self.variables.bandwidth.rate_at(
            minute_of_day(tables.clock.now_us())
        )
        for number in range(1, RESYNC_WORKERS_MAX + 1):
            self.runner.add(ResyncWorker(self.resync, number, self.variables))
        self.runner.add(self.scrub)
        self.drain = DrainWatch(store, layout)
        self.runner.add(self.drain)
        self.runner.add(BlockMoveWorker(store, layout, state, self.resync))
        self.runner.add(RefCheckWorker(store, layout))
        self.sync = SyncWorker(sync, consistent=layout.mode is Consistency.CONSISTENT)
        self.runner.add(self.sync)
        self.runner.add(CascadeWorker(tables, store.leases))
        self.runner.add(TombstoneWorker(sync))
        self.runner.add(LostDataWorker(tables, node, boot))
        self.runner.add(BallotWorker(tables))

    def start(self) -> None:
        self.runner.start()

    async def stop(self) -> None:
        """Each worker ends the step it is in; late ones are cut off."""
        await self.runner.stop()

    def repair_blocks(self) -> None:
        """Look at every block that is referenced or there."""
        self.runner.add(BlockRepairWorker(self.store))

    def sync_tables(self) -> None:
        """Make the rows of all places the same as those of all peers, now."""
        self.sync.everything_now()

    def rebalance(self) -> None:
        """Move every block to the directory where it belongs."""
        self.runner.add(RebalanceWorker(self.store, self.variables))

    async def _corrupt(self, block: BlockHash) -> None:
        await self.store.look_again(block)
        self.resync.notify()
