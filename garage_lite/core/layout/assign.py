"""The optimal assignment of partitions to storage nodes.

All partitions have one size s. Each is held by `copies` different nodes in at least `spread`
zones, and a node of capacity c holds at most c // s of them. Wanted: the largest s; among the
assignments of that size one with the fewest copies that `previous` did not have. The problem and
its flow graph are Garage's (Charbit-Azerad, "Optimal partition assignment in Garage", 2022):

    source -> p+    spread          first copies: one a zone at most
    source -> p-    copies - spread the others: anywhere
    p+ -> (p, z)    1
    p- -> (p, z)    copies - spread
    (p, z) -> n     1               for each node n of zone z; cost 0 if `previous` has it, else 1
    n -> sink       c // s

The largest s needs no flow: with K(z) = sum over the nodes of z of min(P, c // s), a size is
possible if and only if all K together reach P * copies and, for r in 1 .. spread - 1, all K but
the r largest reach P * (spread - r) (max-flow min-cut; the tests hold it against the flow).
One flow of least cost then gives the assignment. Must not know versions or roles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from garage_lite.core.errors import InvariantBroken, NotAllowedHere
from garage_lite.core.ids import PARTITIONS
from garage_lite.core.layout.flow import FlowGraph

_SOURCE: Final = 0
_SINK: Final = 1
_FIRST: Final = 2


class StorageNode(NamedTuple):
    """A node that can hold partitions. `name` is its id: it only decides ties."""

    name: bytes
    zone: str
    capacity: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which nodes hold each partition: indices into the list of nodes, ascending."""

    partition_size: int
    """Bytes; the same for all partitions."""
    holders: tuple[tuple[int, ...], ...]


def largest_partition_size(
    nodes: Sequence[StorageNode], copies: int, spread: int, partitions: int = PARTITIONS
) -> int:
    """The largest partition size the nodes can hold, bytes; 0 if not even one byte fits."""
    low, high = 0, sum(node.capacity for node in nodes) + 1
    while low + 1 < high:
        size = (low + high) // 2
        if size_fits(nodes, copies, spread, size, partitions):
            low = size
        else:
            high = size
    return low


def size_fits(
    nodes: Sequence[StorageNode], copies: int, spread: int, size: int, partitions: int
) -> bool:
    """Whether partitions of `size` bytes can be placed: the closed form above."""
    places: dict[str, int] = {}
    for node in nodes:
        places[node.zone] = places.get(node.zone, 0) + min(partitions, node.capacity // size)
    left = sum(places.values())
    if left < partitions * copies:
        return False
    by_zone = sorted(places.values(), reverse=True)
    for taken in range(1, spread):
        left -= by_zone[taken - 1] if taken <= len(by_zone) else 0
        if left < partitions * (spread - taken):
            return False
    return True


def assign(
    nodes: Sequence[StorageNode],
    copies: int,
    spread: int,
    previous: Sequence[frozenset[int]] | None = None,
    partitions: int = PARTITIONS,
) -> Assignment:
    """The optimal assignment; equal arguments give the same one on every machine.

    `previous`: for each partition the indices of those of `nodes` that hold it now. Raises
    NotAllowedHere in plain words where there is no assignment.
    """
    zones = {node.zone for node in nodes}
    if len(nodes) < copies:
        raise NotAllowedHere(
            f"The number of nodes with positive capacity ({len(nodes)}) is smaller than the"
            f" replication factor ({copies})."
        )
    if len(zones) < spread:
        raise NotAllowedHere(
            f"The number of zones with non-gateway nodes ({len(zones)}) is smaller than the"
            f" redundancy parameter ({spread})"
        )
    size = largest_partition_size(nodes, copies, spread, partitions)
    if size == 0:
        raise NotAllowedHere(
            "The nodes' capacities are too small: not one byte a partition could be stored."
        )
    graph, places = _graph(nodes, copies, spread, size, previous, partitions)
    if graph.fill(_SOURCE, _SINK) != partitions * copies:
        raise InvariantBroken("the closed form promised a partition size that the flow can't reach")
    holders = tuple(
        tuple(sorted(node for node, arc in of_partition.items() if graph.used(arc)))
        for of_partition in places
    )
    return Assignment(size, holders)


def _graph(
    nodes: Sequence[StorageNode],
    copies: int,
    spread: int,
    size: int,
    previous: Sequence[frozenset[int]] | None,
    partitions: int,
) -> tuple[FlowGraph, list[dict[int, int]]]:
    """The flow graph, and for each partition the arc that gives it to each node."""
    zones = sorted({node.zone for node in nodes})
    by_zone = {zone: [i for i, node in enumerate(nodes) if node.zone == zone] for zone in zones}
    width = 2 + len(zones)
    first_node = _FIRST + partitions * width
    graph = FlowGraph(first_node + len(nodes))
    places: list[dict[int, int]] = []
    for partition in range(partitions):
        spreading = _FIRST + partition * width
        anywhere = spreading + 1
        graph.add(_SOURCE, spreading, spread)
        graph.add(_SOURCE, anywhere, copies - spread)
        order = _order(nodes, partition)
        held = previous[partition] if previous is not None else None
        arcs: dict[int, int] = {}
        for zone in sorted(zones, key=lambda zone: min(order[i] for i in by_zone[zone])):
            in_zone = spreading + 2 + zones.index(zone)
            graph.add(spreading, in_zone, 1)
            graph.add(anywhere, in_zone, copies - spread)
            for node in sorted(by_zone[zone], key=order.__getitem__):
                cost = 0 if held is None or node in held else 1
                arcs[node] = graph.add(in_zone, first_node + node, 1, cost)
        places.append(arcs)
    for index, holder in enumerate(nodes):
        graph.add(first_node + index, _SINK, min(partitions, holder.capacity // size))
    return graph, places


def _order(nodes: Sequence[StorageNode], partition: int) -> Mapping[int, bytes]:
    """A different order of the nodes for each partition, by rendezvous hashing.

    Without it the first nodes would share all their partitions with each other, and one lost
    node would be rebuilt from a few others instead of from all.
    """
    salt = partition.to_bytes(4, "big")
    return {
        index: blake2b(node.name, digest_size=8, salt=salt).digest()
        for index, node in enumerate(nodes)
    }
