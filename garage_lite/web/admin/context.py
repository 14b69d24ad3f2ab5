"""What the operations work with: the verbs of the store and the parts of a running node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.mesh import Mesh
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.errors import GarageLiteError
from garage_lite.core.ids import NodeId
from garage_lite.core.ports import Clock
from garage_lite.core.store.buckets import Buckets
from garage_lite.core.store.directory import Directory
from garage_lite.core.store.keys import Keys
from garage_lite.core.store.uploads import Uploads
from garage_lite.core.store.writing import Storage
from garage_lite.core.workers.drain import DrainWatch
from garage_lite.core.workers.resync import ResyncQueue
from garage_lite.core.workers.runner import WorkerRunner
from garage_lite.core.workers.scrub import ScrubWorker
from garage_lite.core.workers.variables import LiveVariables


class Space(NamedTuple):
    """Room on a file system, bytes."""

    available: int
    total: int


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is fixed while the node runs."""

    node: NodeId
    hostname: str
    version: str
    python_version: str
    region: str
    rpc_address: str | None = None
    """host:port under which other nodes reach this one."""
    features: tuple[str, ...] = ()
    s3_endpoint: str | None = None
    s3_path_style: bool | None = None
    k2v_endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class AdminContext:
    """One for the node."""

    facts: NodeFacts
    clock: Clock
    directory: Directory
    buckets: Buckets
    keys: Keys
    uploads: Uploads
    storage: Storage
    layout: ClusterLayout
    metadata: MetadataStore
    metadata_space: Callable[[], Space]
    """Asks the file system of the metadata; quick."""
    blocks: BlockStore
    workers: WorkerRunner
    variables: LiveVariables
    resync: ResyncQueue
    scrub: ScrubWorker
    drain: DrainWatch
    sync_tables: Callable[[], None]
    """Begins a sync of all rows with all peers."""
    cluster: Cluster
    mesh: Mesh | None = None
    """Who the peers are and how they are doing; None for a node without a door to others."""

    @property
    def up(self) -> frozenset[NodeId]:
        """The nodes that answer, this one among them."""
        return frozenset((self.facts.node, *self.cluster.peers.connected()))

    @property
    def known(self) -> list[NodeId]:
        """Every node of the layout's history or of the mesh, this one among them."""
        peers = (peer.node for peer in self.mesh.peers()) if self.mesh is not None else ()
        return sorted({*self.up, *self.layout.history.nodes(), *peers})

    def now_ms(self) -> int:
        return self.clock.now_us() // 1000

    def data_space(self) -> Space | None:
        """Of all data directories; None if a disk does not answer."""
        try:
            directories, _ = self.blocks.files.status()
        except GarageLiteError:
            return None
        available = sum(directory.free_bytes for directory in directories)
        return Space(available, sum(directory.total_bytes for directory in directories))

    def metadata_room(self) -> Space | None:
        """None if the disk does not answer."""
        try:
            return self.metadata_space()
        except OSError:
            return None
