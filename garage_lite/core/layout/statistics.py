"""What a computed version means in numbers: for the person who is about to apply it.

The fields are those of Garage's Admin API (`statistics` of PreviewClusterLayoutChanges).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from garage_lite.core.errors import InvariantBroken
from garage_lite.core.ids import PARTITIONS, NodeId
from garage_lite.core.layout.assign import Assignment
from garage_lite.core.layout.version import LayoutVersion

LOW_PARTITION_BYTES: Final = 100
"""Below it, rounding matters and the capacities were probably given in a wrong unit."""
LOW_USABLE_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    id: NodeId
    tags: tuple[str, ...]
    stored_partitions: int
    new_partitions: int
    total_capacity: int
    usable_capacity: int


@dataclass(frozen=True, slots=True)
class ZoneStatistics:
    name: str
    nodes: tuple[NodeStatistics, ...]
    total_replicated_partitions: int
    unique_partitions: int
    total_capacity: int
    usable_capacity: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of the data assignment. All sizes in bytes."""

    replication_factor: int
    effective_zone_redundancy: int
    partition_size: int
    previous_partition_size: int | None
    low_partition_size: bool
    usable_capacity: int
    total_capacity: int
    effective_capacity: int
    low_usable_capacity: bool
    total_moved_partitions: int | None
    """Copies that must be transferred; None for the first layout."""
    zones: tuple[ZoneStatistics, ...]


def statistics(version: LayoutVersion, previous: LayoutVersion | None) -> Statistics:
    """Of `version`, which follows `previous`."""
    assignment = version.data
    if assignment is None:
        raise InvariantBroken("statistics of a version that holds nothing")
    before = previous.data if previous is not None else None
    held_before = _holders(previous, before) if previous is not None and before else None
    held = _holders(version, assignment)
    names = sorted({version.roles[node].zone for node in version.storage_nodes})
    zones = tuple(_zone(name, version, assignment, held, held_before) for name in names)
    total = sum(zone.total_capacity for zone in zones)
    effective = assignment.partition_size * PARTITIONS
    usable = effective * version.data_copies
    moved = sum(node.new_partitions for zone in zones for node in zone.nodes)
    return Statistics(
        replication_factor=version.data_copies,
        effective_zone_redundancy=version.spread(version.data_copies),
        partition_size=assignment.partition_size,
        previous_partition_size=before.partition_size if before else None,
        low_partition_size=assignment.partition_size < LOW_PARTITION_BYTES,
        usable_capacity=usable,
        total_capacity=total,
        effective_capacity=effective,
        low_usable_capacity=usable < LOW_USABLE_SHARE * total,
        total_moved_partitions=None if held_before is None else moved,
        zones=zones,
    )


def _holders(version: LayoutVersion, assignment: Assignment) -> dict[NodeId, set[int]]:
    """The partitions of each storage node."""
    names = version.storage_nodes
    held: dict[NodeId, set[int]] = {node: set() for node in names}
    for partition, holders in enumerate(assignment.holders):
        for index in holders:
            held[names[index]].add(partition)
    return held


def _zone(
    name: str,
    version: LayoutVersion,
    assignment: Assignment,
    held: dict[NodeId, set[int]],
    held_before: dict[NodeId, set[int]] | None,
) -> ZoneStatistics:
    nodes = []
    unique: set[int] = set()
    for node in version.storage_nodes:
        role = version.roles[node]
        if role.zone != name:
            continue
        unique |= held[node]
        fresh = held[node] - held_before.get(node, set()) if held_before else held[node]
        usable = len(held[node]) * assignment.partition_size
        nodes.append(
            NodeStatistics(node, role.tags, len(held[node]), len(fresh), role.capacity or 0, usable)
        )
    return ZoneStatistics(
        name,
        tuple(nodes),
        sum(node.stored_partitions for node in nodes),
        len(unique),
        sum(node.total_capacity for node in nodes),
        sum(node.usable_capacity for node in nodes),
    )
