"""Real tables in a directory, with a clock that tests turn."""

from __future__ import annotations

from pathlib import Path

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster, Endpoints, NoPeers
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore
from garage_lite.core.disk.replica import Replica
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.roles import Parameters
from garage_lite.core.model.rowkeys import SUFFIX_BYTES
from garage_lite.core.ports import Clock, Entropy
from garage_lite.core.quorum import Consistency
from garage_lite.system import SystemEntropy

LONE: NodeId = NodeId(bytes(32))


def lone_tables(replica: Replica, clock: Clock, entropy: Entropy, node: NodeId = LONE) -> Tables:
    """The tables of a node that has no peers and never had a layout."""
    layout = ClusterLayout(replica, clock, node, Parameters(1), Consistency.CONSISTENT)
    return Tables(replica, layout, Cluster(node, Endpoints(), NoPeers()), clock, entropy)


class TurnedClock:
    """A clock that stands still until it is turned."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us


class TablesOnDisk:
    """`await TablesOnDisk.open(path)`; `tables` and `store` are ready, `close` before another."""

    def __init__(self, store: MetadataStore, clock: TurnedClock) -> None:
        self.clock = clock
        self.store = store
        self.replica = Replica(store)
        self.tables = lone_tables(self.replica, clock, SystemEntropy())

    @classmethod
    async def open(cls, path: Path, clock: TurnedClock | None = None) -> TablesOnDisk:
        clock = clock or TurnedClock()
        options = MetadataOptions(suffix_bytes=SUFFIX_BYTES)
        files, entropy = LocalFiles(), SystemEntropy()
        store = await MetadataStore.open(files, str(path), clock, entropy, options)
        return cls(store, clock)

    async def close(self) -> None:
        await self.tables.close()
        await self.store.close()

    async def rows(self, table: int) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        async for keys, values in self.tables.scan(bytes((table,)), bytes((table + 1,))):
            found.update(zip(keys, values, strict=True))
        return found
