"""`node join`: a node without a cluster takes up an invitation, before it runs for the first time.

Finds the inviting node at one of the addresses of the join string, proves that it has the
string's secret, and keeps what it is told (config/joined.py).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from garage_lite.cli.run import CommandFailed, Context
from garage_lite.config.joined import joined_path, write_joined
from garage_lite.config.secret_files import parse_rpc_secret
from garage_lite.core.cluster.door import JOIN
from garage_lite.core.cluster.identity import NodeKey, load_or_create_node_key
from garage_lite.core.cluster.rpc import RpcClient
from garage_lite.core.cluster.transport import Unreachable
from garage_lite.core.disk.directory_lock import locked
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.errors import ConfigError
from garage_lite.core.wire.address import Peer, TcpAddress, parse_peer
from garage_lite.core.wire.join_string import Invitation, decode, network_key
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.system import SystemEntropy

CALL_SECONDS: Final = 20.0
PEERS_MAX: Final = 16
"""Taken of those that the cluster names; gossip brings the rest."""


def join(context: Context) -> None:
    """Durable when it returns. CommandFailed or a GarageLiteError in plain words."""
    invitation = decode(context.values["string"])
    config = context.config
    if config.rpc_secret is not None:
        raise CommandFailed(
            "This node belongs to a cluster already: it has an rpc_secret. Use"
            " `garage-lite node connect`, or take the rpc_secret out of its configuration (and"
            f" {joined_path(config.metadata_dir)}) first."
        )
    with locked(config.metadata_dir):
        key = load_or_create_node_key(LocalFiles(), config.metadata_dir, SystemEntropy())
        secret, admission, peers = asyncio.run(_enrol(invitation, key))
        write_joined(config.metadata_dir, secret, admission, peers)
    print(f"Joined the cluster of node {invitation.inviter.hex()[:16]}. Start the node now.")


async def _enrol(invitation: Invitation, key: NodeKey) -> tuple[str, str, list[str]]:
    """What the cluster's nodes must know, and where they are: asked at all addresses at once, for
    asking twice does no harm."""
    tasks = [
        asyncio.create_task(_enrol_at(invitation, address, key)) for address in invitation.addresses
    ]
    failures = []
    try:
        for done in asyncio.as_completed(tasks):
            try:
                return await done
            except Unreachable as error:
                failures.append(_refused(error.message))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    raise CommandFailed("Can't join: " + "; ".join(failures))


async def _enrol_at(
    invitation: Invitation, address: TcpAddress, key: NodeKey
) -> tuple[str, str, list[str]]:
    inviter = Peer(invitation.inviter, address)
    secret = network_key(invitation.secret)
    try:
        async with RpcClient(inviter, secret, SystemEntropy(), key) as client:
            answer = await client.call(JOIN, None, timeout=CALL_SECONDS)
    except PeerFailed as error:
        raise CommandFailed(f"The node refuses: {error.message}.") from error
    return _read(answer, inviter)


def _read(answer: Any, inviter: Peer) -> tuple[str, str, list[str]]:
    match answer:
        case {
            "rpc_secret": str() as secret,
            "rpc_admission": "secret" | "explicit" as admission,
            "peers": list() as peers,
        }:
            try:
                parse_rpc_secret(secret)
                named = [str(parse_peer(str(peer))) for peer in peers[:PEERS_MAX]]
            except (ValueError, ConfigError) as error:
                raise CommandFailed("The node's answer can't be read.") from error
            return secret, admission, list(dict.fromkeys([str(inviter), *named]))
    raise CommandFailed("The node's answer can't be read.")


def _refused(message: str) -> str:
    where, refused, _ = message.partition(" refused this connection")
    if not refused:
        return message
    return f"{where} does not accept this invitation (it may have expired)"
