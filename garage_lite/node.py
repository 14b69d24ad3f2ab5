"""The composition root: what a node is made of, in the order it starts; it stops in reverse.

Nothing here decides anything: parts are made, handed to each other, started and stopped. A part
that can't start raises StartupError (or StorageFailed) in plain words; what was started before it
is stopped again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from garage_lite.config import Config
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.blocks import Blocks
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.identity import NodeKey
from garage_lite.core.cluster.layout_election import LayoutElection
from garage_lite.core.cluster.layout_exchange import LayoutExchange
from garage_lite.core.cluster.mesh import Mesh
from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.cluster.peers import Cluster, Endpoints, NoPeers, Peers
from garage_lite.core.cluster.recovering import Recovering
from garage_lite.core.cluster.table_sync import TableSync
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.block_files import BlockFiles, BlockOptions
from garage_lite.core.disk.block_locks import BlockLeases, BlockLocks
from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore
from garage_lite.core.disk.replica import Replica
from garage_lite.core.errors import DataDirError
from garage_lite.core.layout.roles import Parameters
from garage_lite.core.limits import LOG_FILE_BYTES
from garage_lite.core.model.rowkeys import SUFFIX_BYTES
from garage_lite.core.ports import Clock, Entropy, Files
from garage_lite.core.quorum import Consistency
from garage_lite.core.store.buckets import Buckets
from garage_lite.core.store.budget import Budget
from garage_lite.core.store.copies import Copies
from garage_lite.core.store.directory import Directory
from garage_lite.core.store.keys import Keys
from garage_lite.core.store.listing import Listing
from garage_lite.core.store.objects import Objects
from garage_lite.core.store.uploads import Uploads
from garage_lite.core.store.writing import Storage, StoreOptions
from garage_lite.core.workers.background import Background
from garage_lite.core.workers.snapshots import SnapshotWorker
from garage_lite.system import minute_of_day

log = logging.getLogger(__name__)

HASHING_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class World:
    """The doors to the world that a node is given."""

    files: Files
    clock: Clock
    entropy: Entropy
    pause: Callable[[float], None] | None = None
    """Sleeps a background thread for some seconds between its small steps."""
    peers: Callable[[NodeKey, Endpoints], Peers] | None = None
    """Makes the door to other nodes, which answers their calls by the endpoints; None: alone."""
    minute_of_day: Callable[[int], int] = minute_of_day
    """Of a time, microseconds, by the clocks of the place."""


@dataclass(frozen=True, slots=True)
class Node:
    """The parts of a running node that its doors (S3, admin, RPC) work with."""

    config: Config
    key: NodeKey
    world: World
    cluster: Cluster
    metadata: MetadataStore
    tables: Tables
    state: NodeState
    storage: Storage
    background: Background
    layout: ClusterLayout
    directory: Directory
    objects: Objects
    uploads: Uploads
    copies: Copies
    listing: Listing
    buckets: Buckets
    keys: Keys


@contextlib.asynccontextmanager
async def running_node(
    config: Config, key: NodeKey, world: World, log_file_bytes: int = LOG_FILE_BYTES
) -> AsyncIterator[Node]:
    """A node without its doors: everything below the web. Raises StartupError, StorageFailed."""
    async with contextlib.AsyncExitStack() as stop:
        metadata = await _open_metadata(config, world, log_file_bytes)
        stop.push_async_callback(metadata.close)
        replica = Replica(metadata)
        endpoints = Endpoints()
        peers = world.peers(key, endpoints) if world.peers is not None else NoPeers()
        cluster = Cluster(key.node, endpoints, peers)
        layout = _layout(config, world, replica, cluster)
        tables = Tables(replica, layout, cluster, world.clock, world.entropy)
        stop.push_async_callback(tables.close)
        state = NodeState(tables)
        await _claim(state, key, config.metadata_dir)
        if isinstance(peers, Mesh):
            stop.push_async_callback(peers.stop)
        block_files = await _open_blocks(config, world, state, key)
        stop.push_async_callback(block_files.close)
        recovering = Recovering(metadata, state, layout)
        store = _block_store(replica, tables, block_files, layout, recovering)
        blocks = Blocks(store, cluster, layout)
        stop.push_async_callback(blocks.close)
        sync = TableSync.make(metadata, tables, state, layout, cluster, recovering, blocks.throttle)
        stop.push_async_callback(sync.stop)
        boot = world.entropy.token(16)
        hashing = stop.enter_context(ThreadPoolExecutor(HASHING_THREADS, "hash"))
        budget = Budget(config.block_ram_buffer_max)
        options = _store_options(config)
        storage = Storage(tables, blocks, budget, store.leases, key.node, boot, hashing, options)
        stop.push_async_callback(storage.settle)
        directory = await Directory.load(tables)
        objects, uploads = Objects(storage), Uploads(storage)
        background = _background(config, world, storage, sync, state, layout)
        await sync.start()
        _add_snapshots(background, config, metadata, world)
        stop.push_async_callback(background.stop)
        background.start()
        exchange = LayoutExchange(layout, cluster)
        stop.push_async_callback(exchange.stop)
        exchange.start()
        tables.pull_layout_by(exchange.exchange_with)
        tables.settings.start()
        if isinstance(peers, Mesh):
            await peers.start(state)
            peers.on_connected(lambda _: exchange.hurry())
            peers.on_connected(lambda _: sync.peers.hurry())
        yield Node(
            config=config,
            key=key,
            world=world,
            cluster=cluster,
            metadata=metadata,
            tables=tables,
            state=state,
            storage=storage,
            background=background,
            layout=layout,
            directory=directory,
            objects=objects,
            uploads=uploads,
            copies=Copies(storage, objects, uploads),
            listing=Listing(tables),
            buckets=Buckets(tables, allow_punycode=config.allow_punycode),
            keys=Keys(tables, directory),
        )


def _layout(config: Config, world: World, replica: Replica, cluster: Cluster) -> ClusterLayout:
    return ClusterLayout(
        replica,
        world.clock,
        cluster.node,
        Parameters(config.replication_factor, config.data_replication_factor),
        Consistency(config.consistency_mode),
        LayoutElection(replica, cluster, world.clock).elect,
    )


def _block_store(
    replica: Replica,
    tables: Tables,
    files: BlockFiles,
    layout: ClusterLayout,
    recovering: Recovering,
) -> BlockStore:
    locks, leases = BlockLocks(), BlockLeases()
    owns, complete = layout.owns_block, recovering.knows_references
    return BlockStore(replica, tables, files, locks, leases, owns, complete)


def _background(
    config: Config,
    world: World,
    storage: Storage,
    sync: TableSync,
    state: NodeState,
    layout: ClusterLayout,
) -> Background:
    return Background(
        storage.blocks.store,
        storage.blocks,
        sync,
        state,
        storage.node,
        storage.boot,
        layout=layout,
        scrub=not config.disable_scrub,
        minute_of_day=world.minute_of_day,
    )


def _store_options(config: Config) -> StoreOptions:
    return StoreOptions(
        block_bytes=config.block_size,
        blocks_in_flight=config.block_max_concurrent_writes_per_request,
    )


def _add_snapshots(
    background: Background, config: Config, metadata: MetadataStore, world: World
) -> None:
    interval_ms = config.metadata_auto_snapshot_interval_ms
    if interval_ms is not None:
        background.runner.add(SnapshotWorker(metadata, world.clock, world.entropy, interval_ms))


async def _open_metadata(config: Config, world: World, log_file_bytes: int) -> MetadataStore:
    options = MetadataOptions(
        suffix_bytes=SUFFIX_BYTES,
        fsync=config.metadata_fsync,
        log_file_bytes=log_file_bytes,
        pause=world.pause,
        snapshots_directory=config.metadata_snapshots_dir,
    )
    directory = f"{config.metadata_dir}/metalog"
    return await MetadataStore.open(world.files, directory, world.clock, world.entropy, options)


async def _open_blocks(config: Config, world: World, state: NodeState, key: NodeKey) -> BlockFiles:
    options = BlockOptions(
        fsync=config.data_fsync,
        level=config.compression_level,
        node=key.node.hex(),
        reads_max=config.block_max_concurrent_reads,
    )
    return await BlockFiles.open(world.files, config.data_dir, state, world.entropy, options)


async def _claim(state: NodeState, key: NodeKey, directory: str) -> None:
    """Refuse metadata that another node wrote: two nodes with one identity would mix."""
    owner = state.get("owner")
    if owner is None:
        await state.set("owner", key.node)
    elif owner != key.node:
        raise DataDirError(
            f"{directory} holds the metadata of node {owner.hex()[:16]}, but the node_key there"
            f" is that of {key.node.hex()[:16]}: put back the node_key that belongs to this"
            " metadata, or start with an empty metadata_dir"
        )
