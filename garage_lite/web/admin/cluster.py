"""Operations on the cluster as a whole: who is there, whether all is well, how much is stored."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from garage_lite.core.cluster.mesh_view import PeerView
from garage_lite.core.ids import PARTITIONS, NodeId
from garage_lite.core.layout.version import LayoutVersion
from garage_lite.core.model.counters import Counters
from garage_lite.units import format_size
from garage_lite.web.admin.context import AdminContext, Space
from garage_lite.web.admin.fields import Fields
from garage_lite.web.admin.layout import role_json
from garage_lite.web.admin.layout_text import aligned

_COUNTED_BUCKETS_MAX: Final = 1000
"""With more buckets the totals are left out, as in Garage: each costs a look-up."""
_NAME_CHARS_MAX: Final = 253
FACT: Final = "status"
"""The name under which a node tells peers what `told_to_peers` says."""
_BUCKETS_A_TURN: Final = 16
"""Looked up between two turns of the event loop: about a millisecond."""


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
        sets = lookup.write_sets(partition)
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
    history = context.layout.history
    peers = {} if context.mesh is None else {peer.node: peer for peer in context.mesh.peers()}
    return {
        "layoutVersion": history.current.number,
        "nodes": [
            _node_json(context, node, history.current, peers.get(node)) for node in context.known
        ],
    }


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
        return shown | partitions_json(context)
    return shown if peer is None else shown | peer_json(peer)


def told_to_peers(context: AdminContext) -> dict[str, Any]:
    """What this node tells the others of itself: their `peer_json` reads it."""
    return {
        "hostname": context.facts.hostname,
        "garageVersion": context.facts.version,
        "resyncQueueLen": context.resync.length,
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
    return shown


def draining(context: AdminContext, node: NodeId) -> bool:
    """Whether a node only holds data of older versions of the layout."""
    older = context.layout.history.active[:-1]
    has_role = node in context.layout.history.current.roles
    return not has_role and any(node in version.storage_nodes for version in older)


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


async def get_statistics(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    buckets = context.directory.buckets()
    totals = await stored_totals(context)
    current = context.layout.history.current
    data_avail, data_known = _available(context, current, context.data_space())
    metadata_avail, metadata_known = _available(context, current, context.metadata_room())
    complete = data_known and metadata_known
    shown: dict[str, Any] = {
        "freeform": _freeform(context, totals, data_avail, metadata_avail, complete),
        "dataAvail": data_avail,
        "metadataAvail": metadata_avail,
        "incompleteAvailInfo": not complete,
        "bucketCount": len(buckets),
    }
    if totals is not None:
        shown |= {"totalObjectCount": totals.objects, "totalObjectBytes": totals.total_bytes}
    return shown


async def stored_totals(context: AdminContext) -> Counters | None:
    """What all buckets hold; None where there are too many to ask."""
    buckets = context.directory.buckets()
    if len(buckets) >= _COUNTED_BUCKETS_MAX:
        return None
    totals = Counters()
    for number, bucket in enumerate(buckets):
        totals = totals.plus(await context.buckets.counters(bucket.id))
        if number % _BUCKETS_A_TURN == 0:
            await asyncio.sleep(0)
    return totals


def _available(
    context: AdminContext, current: LayoutVersion, space: Space | None
) -> tuple[int, bool]:
    """What the cluster can still take by the node with the least room for each of its
    partitions, and whether the room of all storage nodes is known."""
    held = current.partitions_on(context.facts.node)
    known = space is not None and current.storage_nodes in ((), (context.facts.node,))
    if space is None or not held:
        return 0, known
    return space.available // held * PARTITIONS, known


def _freeform(
    context: AdminContext, totals: Counters | None, data: int, metadata: int, complete: bool
) -> str:
    current = context.layout.history.current
    rows = [["  ID", "Hostname", "Zone", "Capacity", "Part.", "DataAvail", "MetaAvail"]]
    for node in current.storage_nodes:
        here = node == context.facts.node
        role = current.roles[node]
        rows.append(
            [
                f"  {node.hex()[:16]}",
                context.facts.hostname if here else "?",
                role.zone,
                format_size(role.capacity or 0, binary=True),
                str(current.partitions_on(node)),
                _space_text(context.data_space() if here else None),
                _space_text(context.metadata_room() if here else None),
            ]
        )
    counts = [["Number of buckets:", str(len(context.directory.buckets()))]]
    if totals is not None:
        counts.append(["Total number of objects:", str(totals.objects)])
        counts.append(["Total size of objects:", format_size(totals.total_bytes)])
    less = "" if complete else "< "
    lines = [
        "Storage nodes:",
        *aligned(rows),
        "",
        *aligned(counts),
        "",
        "Estimated available storage space cluster-wide (might be lower in practice):",
        f"  data: {less}{format_size(data)}",
        f"  metadata: {less}{format_size(metadata)}",
    ]
    if not complete:
        lines.append(
            "A precise estimate could not be given as information is missing for some storage"
            " nodes."
        )
    return "\n".join(lines) + "\n"


def _space_text(space: Space | None) -> str:
    if space is None or not space.total:
        return "?"
    share = 100 * space.available / space.total
    return f"{format_size(space.available)}/{format_size(space.total)} ({share:.1f}%)"
