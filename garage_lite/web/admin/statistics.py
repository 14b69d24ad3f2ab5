"""How much the cluster stores, and how much more it can take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from garage_lite.core.ids import PARTITIONS, NodeId
from garage_lite.core.layout.assign import Assignment
from garage_lite.core.layout.version import LayoutVersion
from garage_lite.core.model.counters import Counters
from garage_lite.units import format_size
from garage_lite.web.admin.cluster import nodes_json
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.fields import Fields
from garage_lite.web.admin.layout_text import aligned

_COUNTED_BUCKETS_MAX: Final = 1000
"""With more buckets the totals are left out, as in Garage: each costs a look-up."""
_BUCKETS_A_TURN: Final = 16
"""Looked up between two turns of the event loop: about a millisecond."""
_METADATA: Final = "metadataPartition"
_DATA: Final = "dataPartition"

Nodes = Mapping[NodeId, dict[str, Any]]
"""What is known of each node, as GetClusterStatus shows it."""


class _Room(NamedTuple):
    """What the cluster can still take, bytes."""

    available: int
    known: bool
    """Whether the room of all storage nodes is known; else it may be less."""


async def get_statistics(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    totals = await stored_totals(context)
    current, nodes = context.layout.history.current, nodes_json(context)
    data = _room(current, current.data, nodes, _DATA)
    metadata = _room(current, current.metadata, nodes, _METADATA)
    shown: dict[str, Any] = {
        "freeform": _freeform(context, nodes, totals, data, metadata),
        "dataAvail": data.available,
        "metadataAvail": metadata.available,
        "incompleteAvailInfo": not (data.known and metadata.known),
        "bucketCount": len(context.directory.buckets()),
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


def _room(current: LayoutVersion, held: Assignment | None, nodes: Nodes, which: str) -> _Room:
    """By the node with the least room for each of its partitions, as all have one size."""
    if held is None:
        return _Room(0, True)
    names = current.storage_nodes
    counts = [0] * len(names)
    for holders in held.holders:
        for index in holders:
            counts[index] += 1
    spaces = [
        (nodes.get(name, {}).get(which), count) for name, count in zip(names, counts, strict=True)
    ]
    known = [space["available"] // count for space, count in spaces if space and count]
    complete = all(space or not count for space, count in spaces)
    return _Room(min(known, default=0) * PARTITIONS, complete)


def _freeform(
    context: AdminContext, nodes: Nodes, totals: Counters | None, data: _Room, metadata: _Room
) -> str:
    counts = [["Number of buckets:", str(len(context.directory.buckets()))]]
    if totals is not None:
        counts.append(["Total number of objects:", str(totals.objects)])
        counts.append(["Total size of objects:", format_size(totals.total_bytes)])
    complete = data.known and metadata.known
    less = "" if complete else "< "
    lines = [
        "Storage nodes:",
        *aligned(_node_rows(context.layout.history.current, nodes)),
        "",
        *aligned(counts),
        "",
        "Estimated available storage space cluster-wide (might be lower in practice):",
        f"  data: {less}{format_size(data.available)}",
        f"  metadata: {less}{format_size(metadata.available)}",
    ]
    if not complete:
        lines.append(
            "A precise estimate could not be given as information is missing for some storage"
            " nodes."
        )
    return "\n".join(lines) + "\n"


def _node_rows(current: LayoutVersion, nodes: Nodes) -> list[list[str]]:
    rows = [["  ID", "Hostname", "Zone", "Capacity", "Part.", "DataAvail", "MetaAvail"]]
    for node in current.storage_nodes:
        role, shown = current.roles[node], nodes.get(node, {})
        rows.append(
            [
                f"  {node.hex()[:16]}",
                shown.get("hostname") or "?",
                role.zone,
                format_size(role.capacity or 0, binary=True),
                str(current.partitions_on(node)),
                _space_text(shown.get(_DATA)),
                _space_text(shown.get(_METADATA)),
            ]
        )
    return rows


def _space_text(space: dict[str, int] | None) -> str:
    if not space or not space["total"]:
        return "?"
    share = 100 * space["available"] / space["total"]
    return f"{format_size(space['available'])}/{format_size(space['total'])} ({share:.1f}%)"
