"""All that keeps this node's rows and its peers' the same, put together.

The workers of core/workers decide when; the parts here know how.
"""

from __future__ import annotations

from dataclasses import dataclass

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.cluster.peer_stores import PeerStores
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.recovering import Recovering
from garage_lite.core.cluster.row_digests import RowDigests
from garage_lite.core.cluster.row_exchange import RowExchange
from garage_lite.core.cluster.sync_service import SyncService
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.cluster.throttle import Throttle
from garage_lite.core.cluster.tombstone_calls import TombstoneCalls
from garage_lite.core.disk.metadata import MetadataStore


@dataclass(frozen=True, slots=True)
class TableSync:
    store: MetadataStore
    tables: Tables
    layout: ClusterLayout
    cluster: Cluster
    digests: RowDigests
    recovering: Recovering
    peers: PeerStores
    exchange: RowExchange
    tombstones: TombstoneCalls

    @classmethod
    def make(
        cls,
        store: MetadataStore,
        tables: Tables,
        state: NodeState,
        layout: ClusterLayout,
        cluster: Cluster,
        recovering: Recovering,
        throttle: Throttle,
    ) -> TableSync:
        """Answers peers from now on; what may have been lost here is not read any more."""
        digests = RowDigests(store)
        tables.rows.may_answer = recovering.may_answer
        tables.rows.knows_newest = recovering.knows_newest
        SyncService(store, digests, layout, recovering, cluster.endpoints)
        peers = PeerStores(cluster, store, state, tables.clock, recovering)
        exchange = RowExchange(cluster, layout, store, tables.rows, digests, throttle)
        tombstones = TombstoneCalls(cluster, layout, store, tables.rows, peers)
        return cls(store, tables, layout, cluster, digests, recovering, peers, exchange, tombstones)

    async def start(self) -> None:
        """After the endpoints are complete. Raises StorageFailed."""
        await self.recovering.look_at_damage()
        self.peers.start()

    async def stop(self) -> None:
        await self.peers.stop()
