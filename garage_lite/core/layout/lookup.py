"""Which nodes to ask: a history as the questions that every read and write has.

Made once per change of the layout, asked often. Must not know which nodes are up; where an order
matters the caller brings a measure of distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from garage_lite.core.ids import NodeId
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.layout.version import LayoutVersion
from garage_lite.core.quorum import Consistency, quorums


class NodeSet(NamedTuple):
    """Nodes of one version, and how many of them must answer."""

    version: int
    nodes: tuple[NodeId, ...]
    needed: int


class _Holders(NamedTuple):
    """One version, unpacked: the nodes of each partition."""

    version: LayoutVersion
    metadata: tuple[tuple[NodeId, ...], ...]
    data: tuple[tuple[NodeId, ...], ...]


class Lookup:
    """Answers for one history and one consistency mode."""

    def __init__(self, history: LayoutHistory, mode: Consistency) -> None:
        self._mode = mode
        ready = [version for version in history.active if version.ready]
        self._active = [_unpacked(version) for version in ready]
        self._retired = [_unpacked(version) for version in history.retired]
        read = history.read_version()
        self._read = next((h for h in self._active if h.version.number == read), None)
        self.ready = bool(self._active)
        """False until the first layout is applied: there is nobody to ask."""
        self.versions = tuple(version.number for version in ready)
        """What a quorum message names."""
        self.ack_floor = history.ack_floor()
        """A replica refuses messages of writes that began under an older version."""
        self.nodes = history.nodes()

    def write_sets(self, partition: int, *, data: bool = False) -> list[NodeSet]:
        """A write succeeds with `needed` answers from each of these.

        `data`: by the assignment of blocks and block references, not that of the other rows.
        """
        return [self._set(holders, partition, data, write=True) for holders in self._active]

    def read_set(self, partition: int, *, data: bool = False) -> NodeSet | None:
        """A read succeeds with `needed` answers of this one; None until there is a layout."""
        holders = self._read or (self._active[-1] if self._active else None)
        return None if holders is None else self._set(holders, partition, data, write=False)

    def everywhere_sets(self) -> list[NodeSet]:
        """The write sets of rows that every node holds."""
        return [
            NodeSet(held.version.number, nodes, quorums(len(nodes), self._mode).write)
            for held in self._active
            for nodes in (tuple(sorted(held.version.roles)),)
        ]

    def everywhere_readers(self) -> list[NodeSet]:
        """What a quorum of each of these has of the rows that every node holds is all there is."""
        return [
            held._replace(needed=quorums(len(held.nodes), self._mode).read)
            for held in self.everywhere_sets()
        ]

    def holds(self, node: NodeId, partition: int, *, data: bool = False) -> bool:
        """Whether `node` holds the partition in an active version."""
        return any(
            node in (held.data if data else held.metadata)[partition] for held in self._active
        )

    def partitions_of(self, node: NodeId, *, data: bool = False) -> list[int]:
        """The partitions that `node` holds in an active version."""
        count = len(self._active[0].metadata) if self._active else 0
        return [p for p in range(count) if self.holds(node, p, data=data)]

    def block_writers(self, partition: int) -> tuple[NodeId, ...]:
        """Who stores a new block: the holders of the newest version. Blocks are not tracked."""
        return self._active[-1].data[partition] if self._active else ()

    def block_readers(self, partition: int, distance: Callable[[NodeId], float]) -> list[NodeId]:
        """Who may have a block, most promising first.

        The nearest holder of each active version, oldest version first, then the second nearest
        of each, and so on; then the holders of retired versions, newest first (Garage's order).
        """
        ranked = [sorted(held.data[partition], key=distance) for held in self._active]
        deepest = max((len(nodes) for nodes in ranked), default=0)
        order = [nodes[rank] for rank in range(deepest) for nodes in ranked if rank < len(nodes)]
        for held in reversed(self._retired):
            order += sorted(held.data[partition], key=distance)
        return list(dict.fromkeys(order))

    def _set(self, held: _Holders, partition: int, data: bool, *, write: bool) -> NodeSet:
        nodes = (held.data if data else held.metadata)[partition]
        sizes = quorums(len(nodes), self._mode)
        return NodeSet(held.version.number, nodes, sizes.write if write else sizes.read)


def _unpacked(version: LayoutVersion) -> _Holders:
    names = version.storage_nodes
    metadata, data = (
        tuple(tuple(names[index] for index in held) for held in assignment.holders)
        for assignment in (version.metadata, version.data)
        if assignment is not None
    )
    return _Holders(version, metadata, data)
