"""Operations on the cluster as a whole: who is there, and whether all is well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from garage_lite.core.cluster.mesh_view import PeerView
from garage_lite.core.ids import PARTITIONS, NodeId
from garage_lite.core.layout.version import LayoutVersion
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.fields import Fields
from garage_lite.web.admin.layout import role_json

_NAME_CHARS_MAX: Final = 253
FACT: Final = "status"
"""The name under which a node tells peers what `told_to_peers` says."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether reads and writes succeed."""

    status: str
    """healthy, degraded or unavailable."""
    known_nodes: int
    connected_nodes: int
    storage_nodes: int
    storage_nodes_up: int
    partitions: int
    partitions_quorum: int
    partitions_all_ok: int


def health(context: AdminContext) -> Health:
    """By Garage's rule: a partition needs a write quorum in each active version."""
    up = context.up
    lookup, history = context.layout.lookup, context.layout.history
    known = len(context.known)
    if not lookup.ready:
        return Health("unavailable", known, len(up), 0, 0, 0, 0, 0)
    storage = history.storage_nodes()
    quorum = complete = 0
    for partition in range(PARTITIONS):
        sets = [*lookup.write_sets(partition), *lookup.write_sets(partition, data=True)]
        quorum += all(sum(node in up for node in asked.nodes) >= asked.needed for asked in sets)
        complete += all(node in up for asked in sets for node in asked.nodes)
    storage_up = sum(node in up for node in storage)
    status = "degraded" if quorum == PARTITIONS else "unavailable"
    if complete == PARTITIONS and storage_up == len(storage):
        status = "healthy"
    if context.metadata.status().failed:
        status = "unavailable"
    return Health(status, known, len(up), len(storage), storage_up, PARTITIONS, quorum, complete)


async def get_health(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    found = health(context)
    return {
        "status": found.status,
        "knownNodes": found.known_nodes,
        "connectedNodes": found.connected_nodes,
        "storageNodes": found.storage_nodes,
        "storageNodesUp": found.storage_nodes_up,
        "partitions": found.partitions,
        "partitionsQuorum": found.partitions_quorum,
        "partitionsAllOk": found.partitions_all_ok,
    }


async def get_status(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    return {
        "layoutVersion": context.layout.history.current.number,
        "nodes": list(nodes_json(context).values()),
    }


def nodes_json(context: AdminContext) -> dict[NodeId, dict[str, Any]]:
    """What is known of each known node."""
    current = context.layout.history.current
    peers = {} if context.mesh is None else {peer.node: peer for peer in context.mesh.peers()}
    return {node: _node_json(context, node, current, peers.get(node)) for node in context.known}


def _node_json(
    context: AdminContext, node: NodeId, current: LayoutVersion, peer: PeerView | None
) -> dict[str, Any]:
    role = current.roles.get(node)
    shown: dict[str, Any] = {
        "id": node.hex(),
        "garageVersion": None,
        "addr": None,
        "hostname": None,
        "isUp": node in context.up,
        "lastSeenSecsAgo": None,
        "role": role_json(role) if role else None,
        "draining": draining(context, node),
    }
    if node == context.facts.node:
        shown |= {
            "garageVersion": context.facts.version,
            "addr": context.facts.rpc_address,
            "hostname": context.facts.hostname,
            "resyncQueueLen": context.resync.length,
            "alarms": sorted(context.mesh.complaints.alarms.values()) if context.mesh else [],
        }
        shown |= partitions_json(context)
        empty = context.drain.empty
    else:
        told = {} if peer is None else peer_json(peer)
        empty = told.pop("empty", None)
        shown |= told
    if empty is not None and was_retired(context, node):
        shown["drained"] = empty
    return shown


def told_to_peers(context: AdminContext) -> dict[str, Any]:
    """What this node tells the others of itself: their `peer_json` reads it."""
    return {
        "hostname": context.facts.hostname,
        "garageVersion": context.facts.version,
        "resyncQueueLen": context.resync.length,
        "empty": context.drain.empty,
        **partitions_json(context),
    }


def peer_json(peer: PeerView) -> dict[str, Any]:
    """Garage's members, and ours: the round trip, the clock's difference, whether a third node
    relays. What the peer tells of itself is shown only in the form it should have."""
    shown: dict[str, Any] = {}
    if peer.address is not None:
        shown["addr"] = str(peer.address)
    match peer.facts.get(FACT):
        case {"hostname": str(hostname), "garageVersion": str(version), **more}:
            shown |= {"hostname": hostname[:_NAME_CHARS_MAX], "garageVersion": version[:64]}
            shown |= _numbers_told(more) if peer.is_up else {}
    if not peer.is_up:
        seen = peer.seen_seconds_ago
        return shown | {"lastSeenSecsAgo": None if seen is None else int(seen)}
    shown["relayed"] = peer.relayed
    if peer.round_trip is not None:
        shown["roundTripMsec"] = round(peer.round_trip * 1000, 1)
    if peer.skew_us is not None:
        shown["clockSkewMsec"] = round(peer.skew_us / 1000)
    return shown


def _numbers_told(told: dict[Any, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name in ("dataPartition", "metadataPartition"):
        match told.get(name):
            case {"available": int(available), "total": int(total)}:
                shown[name] = {"available": available, "total": total}
    match told.get("resyncQueueLen"):
        case int(length):
            shown["resyncQueueLen"] = length
    match told.get("empty"):
        case bool(empty):
            shown["empty"] = empty
    return shown


def draining(context: AdminContext, node: NodeId) -> bool:
    """Whether a node only holds data of older versions of the layout."""
    older = context.layout.history.active[:-1]
    has_role = node in context.layout.history.current.roles
    return not has_role and any(node in version.storage_nodes for version in older)


def was_retired(context: AdminContext, node: NodeId) -> bool:
    """Whether a node held data by versions of the layout that are past, and has no role since."""
    history = context.layout.history
    return node not in history.nodes() and any(
        node in version.storage_nodes for version in history.retired
    )


def partitions_json(context: AdminContext) -> dict[str, Any]:
    """Room on this node's disks; a disk that does not answer is left out."""
    spaces = {
        "dataPartition": context.data_space(),
        "metadataPartition": context.metadata_room(),
    }
    return {
        name: {"available": space.available, "total": space.total}
        for name, space in spaces.items()
        if space is not None
    }
