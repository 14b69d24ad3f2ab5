"""Finding the node to talk to, and a connection to it.

With --rpc-host it is that one; otherwise the one of the configuration, whose id is in its
metadata directory. The CLI shows the cluster's secret, and the node's own key where it may read
it (a cluster with rpc_admission = "explicit" asks for that); else it is nobody, with a fresh key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from garage_lite.cli.run import CommandFailed, Context
from garage_lite.config import require_rpc_secret, rpc_address
from garage_lite.config.secret_files import parse_rpc_secret
from garage_lite.core.cluster.identity import PUBLIC_NAME, NodeKey, load_node_key, read_node_id
from garage_lite.core.cluster.rpc import RpcClient
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.errors import DataDirError
from garage_lite.core.wire.address import Peer, parse_peer
from garage_lite.system import SystemEntropy


def find_peer(context: Context) -> Peer:
    """The node to talk to. CommandFailed or ConfigError says what is missing."""
    if context.flags.rpc_host is not None:
        try:
            return parse_peer(context.flags.rpc_host)
        except ValueError as error:
            raise CommandFailed(f"--rpc-host: {error}") from error
    config = context.config
    try:
        node = read_node_id(LocalFiles(), config.metadata_dir)
    except OSError as error:
        raise CommandFailed(f"can't read {config.metadata_dir}/{PUBLIC_NAME}: {error}") from error
    if node is None:
        raise CommandFailed(
            f"{config.metadata_dir} holds no node key yet: it is made when the node first starts."
            " Is the node running, with this configuration?"
        )
    return Peer(node, rpc_address(config))


def find_secret(context: Context) -> bytes:
    """The cluster's secret; the configuration is read only if nothing else gives it."""
    flags = context.flags
    if flags.rpc_host is not None and flags.rpc_secret is not None and not flags.rpc_secret_file:
        return parse_rpc_secret(flags.rpc_secret)
    return require_rpc_secret(context.config)


def _node_key(context: Context) -> NodeKey | None:
    """The key of the configured node, if this user may have it."""
    if context.flags.rpc_host is not None:
        return None
    try:
        return load_node_key(LocalFiles(), context.config.metadata_dir)
    except (OSError, DataDirError):
        return None


@asynccontextmanager
async def open_client(context: Context) -> AsyncIterator[tuple[RpcClient, str]]:
    """A connected client, and the hex id of the node it talks to."""
    peer = find_peer(context)
    key = _node_key(context)
    async with RpcClient(peer, find_secret(context), SystemEntropy(), key) as client:
        yield client, peer.node.hex()
