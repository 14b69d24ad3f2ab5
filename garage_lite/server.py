"""The node as a process: its doors in order, the signals, a clean stop.

Ready means every door is open. On SIGTERM or SIGINT the doors close first (requests under way get
`DRAIN_SECONDS` to end), then the node below them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import platform
import signal
import socket
import sys
from asyncio import selector_events
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

from garage_lite import __version__
from garage_lite.config import Config, require_rpc_secret
from garage_lite.core.cluster.clocks import Clocks
from garage_lite.core.cluster.identity import load_or_create_node_key
from garage_lite.core.cluster.mesh import PING_TIMEOUT_SECONDS, Mesh, MeshSettings
from garage_lite.core.cluster.rpc import JSON_API, operations_handler
from garage_lite.core.cluster.transport import cipher_in_threads
from garage_lite.core.disk.directory_lock import locked
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.disk.interfaces import machine_hosts
from garage_lite.core.errors import BucketAlreadyExists, GarageLiteError
from garage_lite.core.limits import KIB
from garage_lite.core.model.buckets import Permission
from garage_lite.core.wire.address import parse_tcp_address
from garage_lite.core.wire.members import Mode
from garage_lite.discovery import Discovery, PeerDirectory, directories
from garage_lite.logs import gathering_handler
from garage_lite.node import Node, World, running_node
from garage_lite.system import (
    SystemClock,
    SystemEntropy,
    pause,
    share_one_heap,
    usable_cores,
)
from garage_lite.web.admin.app import serve_admin
from garage_lite.web.admin.cluster import FACT, told_to_peers
from garage_lite.web.admin.context import AdminContext, NodeFacts, Space
from garage_lite.web.admin.operations import bound_operations
from garage_lite.web.app import serve_s3
from garage_lite.web.s3.context import S3Context, S3Settings

log = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 5.0
RECEIVE_BYTES: Final = 64 * KIB
TOLD_SECONDS: Final = 10.0
"""Between looks at the disks, for what peers are told of this node."""
CORES_TO_SPARE: Final = 4
"""With so many one may encrypt what peers are sent while another serves requests."""
OLDER_THAN_THIS_PROGRAM_US: Final = 1_735_689_600_000_000
"""2025-01-01: a clock that shows less was never set."""


def run_server(
    config: Config,
    *,
    single_node: bool = False,
    default_bucket: str | None = None,
    default_access_key: tuple[str, str] | None = None,
) -> int:
    """Run the node until SIGTERM or SIGINT; the exit status. What is wrong is told on stderr."""
    for warning in config.warnings:
        log.warning("%s", warning)
    _tune()
    try:
        asyncio.run(_serve(config, single_node, default_bucket, default_access_key))
    except GarageLiteError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        return 1
    return 0


def _tune() -> None:
    """What the interpreter's defaults make too slow or too big for a small board."""
    share_one_heap()
    # Hand over often, so that a busy background thread delays no request.
    sys.setswitchinterval(0.0005)
    gc.set_threshold(50_000, 20, 50)
    # Each socket read allocates this much before it knows how much has come: at asyncio's
    # 256 KiB, 100 uploads at once take 140 MB instead of 117.
    selector_events._SelectorTransport.max_size = RECEIVE_BYTES  # type: ignore[attr-defined]
    cipher_in_threads(usable_cores() >= CORES_TO_SPARE)


async def _serve(
    config: Config,
    single_node: bool,
    default_bucket: str | None,
    default_access_key: tuple[str, str] | None,
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    files, clock, entropy = LocalFiles(), SystemClock(), SystemEntropy()
    mesh = Mesh(mesh_settings(config), clock, entropy, partial(machine_hosts, files))
    found_by = directories(config)
    world = World(files, clock, entropy, pause, mesh.serve)
    with locked(config.metadata_dir):
        key = load_or_create_node_key(world.files, config.metadata_dir, world.entropy)
        async with running_node(config, key, world) as node:
            if single_node:
                await node.layout.use_single_node(_capacity(config, node))
            await _make_defaults(node, default_bucket, default_access_key)
            async with _trusted_clock(node, mesh), _doors(node, mesh), _found(mesh, found_by):
                gc.collect()
                gc.freeze()
                log.info("Garage Lite %s is ready, node %s", __version__, key.node.hex()[:16])
                await stopping.wait()
                log.info("Stopping")
    log.info("Stopped")


@contextlib.asynccontextmanager
async def _trusted_clock(node: Node, mesh: Mesh) -> AsyncIterator[None]:
    """Hold writes while this node's clock can't be trusted."""
    floor_us = max(OLDER_THAN_THIS_PROGRAM_US, node.tables.newest_stamp)
    clocks = Clocks(mesh, node.world.clock, floor_us)
    node.cluster.clock_is_sane = clocks.is_sane
    clocks.start()
    try:
        yield
    finally:
        await clocks.stop()


@contextlib.asynccontextmanager
async def _telling(mesh: Mesh, admin: AdminContext) -> AsyncIterator[None]:
    """Tell peers what they show of this node; a disk that hangs when it is asked holds nobody."""
    told = await asyncio.to_thread(told_to_peers, admin)

    async def refresh() -> None:
        nonlocal told
        while True:
            await asyncio.sleep(TOLD_SECONDS)
            told = await asyncio.to_thread(told_to_peers, admin)

    mesh.tell(FACT, lambda: told)
    task = asyncio.create_task(refresh())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _found(mesh: Mesh, found_by: list[PeerDirectory]) -> AsyncIterator[None]:
    """Let peers find this node, and find them, by Consul or Kubernetes."""
    discovery = Discovery(mesh, found_by, socket.gethostname())
    discovery.start()
    try:
        yield
    finally:
        await discovery.stop()


def mesh_settings(config: Config) -> MeshSettings:
    """What the mesh needs of the configuration. Raises ConfigError."""
    public = config.rpc_public_addr
    ping_ms, call_ms = config.rpc_ping_timeout_ms, config.rpc_timeout_ms
    return MeshSettings(
        network_key=require_rpc_secret(config),
        bound=config.rpc_bind_addr,
        public=None if public is None else parse_tcp_address(public),
        subnet=config.rpc_public_addr_subnet,
        bind_outgoing=config.rpc_bind_outgoing,
        bootstrap=config.bootstrap_peers,
        mode=Mode(config.rpc_admission),
        ping_seconds=PING_TIMEOUT_SECONDS if ping_ms is None else ping_ms / 1000,
        call_seconds_max=None if call_ms is None else call_ms / 1000,
    )


def _capacity(config: Config, node: Node) -> int:
    """Bytes of the disks that hold the data, as configured or as they are."""
    configured = [directory.capacity for directory in config.data_dir if directory.capacity]
    if configured:
        return sum(configured)
    return sum(
        node.world.files.total_bytes(directory.path)
        for directory in config.data_dir
        if not directory.read_only
    )


async def _make_defaults(
    node: Node, bucket_name: str | None, access_key: tuple[str, str] | None
) -> None:
    """The key and the bucket that Garage's --default-access-key and --default-bucket ask for."""
    if access_key is None:
        return
    key_id, secret = access_key
    if node.directory.key(key_id) is None:
        await node.keys.import_key(key_id, secret, "default access key")
        await node.keys.allow_create_bucket(key_id, True)
    if bucket_name is None:
        return
    with contextlib.suppress(BucketAlreadyExists):
        await node.buckets.create(global_alias=bucket_name)
    bucket = node.directory.resolve(bucket_name)
    if bucket.permissions_of(key_id) != Permission.ALL:
        await node.buckets.allow(bucket.id, key_id, Permission.ALL)


@contextlib.asynccontextmanager
async def _doors(node: Node, mesh: Mesh) -> AsyncIterator[None]:
    """The operations over RPC, admin and S3, in this order; closed in reverse."""
    config = node.config
    admin = _admin_context(node, mesh)
    async with contextlib.AsyncExitStack() as stop:
        operations = operations_handler(bound_operations(admin))
        node.cluster.endpoints.serve(JSON_API, operations)
        await stop.enter_async_context(_telling(mesh, admin))
        if config.admin.api_bind_addr is not None:
            admin_server = await serve_admin(
                admin, str(config.admin.api_bind_addr), config.admin.admin_token
            )
            stop.push_async_callback(admin_server.stop)
            log.info("Admin API listens on %s", config.admin.api_bind_addr)
        if config.s3_api.api_bind_addr is not None:
            s3_server = await serve_s3(_s3_context(node), [str(config.s3_api.api_bind_addr)])
            stop.push_async_callback(s3_server.stop, DRAIN_SECONDS)
            log.info("S3 API listens on %s", config.s3_api.api_bind_addr)
        yield


def _s3_context(node: Node) -> S3Context:
    s3 = node.config.s3_api
    handler = gathering_handler()
    return S3Context(
        directory=node.directory,
        objects=node.objects,
        uploads=node.uploads,
        copies=node.copies,
        listing=node.listing,
        buckets=node.buckets,
        clock=node.world.clock,
        entropy=node.world.entropy,
        settings=S3Settings(
            region=s3.s3_region,
            root_domain=s3.root_domain,
            public_endpoint=s3.public_endpoint,
            public_endpoint_path_style=s3.public_endpoint_path_style,
            host_id=node.key.node.hex()[:16],
        ),
        has_layout=lambda: node.layout.ready,
        log_event=handler.event if handler is not None else None,
    )


def _admin_context(node: Node, mesh: Mesh) -> AdminContext:
    config, files = node.config, node.world.files

    def metadata_space() -> Space:
        directory = config.metadata_dir
        return Space(files.free_bytes(directory), files.total_bytes(directory))

    return AdminContext(
        facts=NodeFacts(
            node=node.key.node,
            hostname=socket.gethostname(),
            version=__version__,
            python_version=platform.python_version(),
            region=config.s3_api.s3_region,
            rpc_address=str((*mesh.published_addresses(), config.rpc_bind_addr)[0]),
            s3_endpoint=config.s3_api.public_endpoint,
            s3_path_style=config.s3_api.public_endpoint_path_style,
            k2v_endpoint=config.k2v_api.public_endpoint if config.k2v_api else None,
        ),
        clock=node.world.clock,
        directory=node.directory,
        buckets=node.buckets,
        keys=node.keys,
        uploads=node.uploads,
        storage=node.storage,
        layout=node.layout,
        metadata=node.metadata,
        metadata_space=metadata_space,
        blocks=node.background.store,
        workers=node.background.runner,
        variables=node.background.variables,
        resync=node.background.resync,
        scrub=node.background.scrub,
        drain=node.background.drain,
        sync_tables=node.background.sync_tables,
        cluster=node.cluster,
        mesh=mesh,
    )
