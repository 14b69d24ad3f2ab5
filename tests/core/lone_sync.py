"""What syncs the tables of a node that has no peers."""

from __future__ import annotations

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.cluster.peers import Cluster, Endpoints, NoPeers
from garage_lite.core.cluster.recovering import Recovering
from garage_lite.core.cluster.table_sync import TableSync
from garage_lite.core.cluster.throttle import Throttle
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.roles import Parameters
from garage_lite.core.quorum import Consistency
from tests.core.tables_on_disk import TablesOnDisk

LONE = NodeId(b"n" * 32)


def lone_sync(disk: TablesOnDisk, node: NodeId = LONE) -> TableSync:
    state = NodeState(disk.tables)
    layout = ClusterLayout(disk.replica, disk.clock, node, Parameters(1), Consistency.CONSISTENT)
    return TableSync.make(
        disk.store,
        disk.tables,
        state,
        layout,
        Cluster(layout.node, Endpoints(), NoPeers()),
        Recovering(disk.store, state, layout),
        Throttle(disk.clock),
    )
