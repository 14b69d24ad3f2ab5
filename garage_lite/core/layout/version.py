"""One version of the layout: roles, parameters, and who holds each partition because of them.

A version never changes once computed. Nodes are numbered with the storage nodes first, each
group by id, so that a holder fits in one byte. Metadata and data may have different replication
factors, then there are two assignments over the same nodes. Must not know other versions.

    version = [1, number, parameters, [[node, role], ...], metadata, data | nil]
    metadata, data = [partition size, holders: copies bytes for each partition]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from garage_lite.core.codec import decode, encode
from garage_lite.core.errors import NotAllowedHere, StorageFailed
from garage_lite.core.ids import NODE_ID_BYTES, PARTITIONS, NodeId
from garage_lite.core.layout.assign import (
    Assignment,
    StorageNode,
    assign,
    largest_partition_size,
)
from garage_lite.core.layout.roles import STORAGE_NODES_MAX, Parameters, Role, Staging

TAG: Final = 1


@dataclass(frozen=True, slots=True)
class LayoutVersion:
    """Version `number` of the layout. Number 0 has no roles and holds nothing."""

    number: int
    parameters: Parameters
    roles: Mapping[NodeId, Role] = field(default_factory=dict)
    metadata: Assignment | None = None
    data_only: Assignment | None = None
    """The assignment of blocks, where it differs from that of metadata."""

    @property
    def ready(self) -> bool:
        """Whether it says where things are."""
        return self.metadata is not None

    @property
    def data(self) -> Assignment | None:
        return self.data_only or self.metadata

    @property
    def storage_nodes(self) -> tuple[NodeId, ...]:
        """Sorted; holders are indices into this."""
        return tuple(sorted(n for n, role in self.roles.items() if role.capacity is not None))

    @property
    def gateway_nodes(self) -> tuple[NodeId, ...]:
        return tuple(sorted(n for n, role in self.roles.items() if role.capacity is None))

    @property
    def copies(self) -> int:
        """Of metadata."""
        return self.parameters.replication_factor

    @property
    def data_copies(self) -> int:
        return self.parameters.data_replication_factor or self.copies

    def spread(self, copies: int) -> int:
        """The number of zones that each partition is spread over, at least."""
        asked = self.parameters.zone_redundancy
        zones = {role.zone for role in self.roles.values() if role.capacity is not None}
        return min(len(zones), copies) if asked is None else min(asked, copies)

    def partitions_on(self, node: NodeId) -> int:
        """How many data partitions `node` holds."""
        nodes = self.storage_nodes
        if self.data is None or node not in nodes:
            return 0
        index = nodes.index(node)
        return sum(index in held for held in self.data.holders)

    def next(self, staging: Staging) -> LayoutVersion:
        """The version that the staged changes make of this one.

        Raises NotAllowedHere in plain words where they make none.
        """
        return compute(
            self.number + 1, staging.staged_parameters, staging.applied_to(self.roles), self
        )

    def pack(self) -> list[Any]:
        return [
            self.number,
            self.parameters.pack(),
            [[node, self.roles[node].pack()] for node in sorted(self.roles)],
            _pack_assignment(self.metadata),
            _pack_assignment(self.data_only),
        ]

    @classmethod
    def unpack(cls, data: list[Any]) -> LayoutVersion:
        """Raises StorageFailed where the fields contradict each other."""
        try:
            number, parameters, roles, metadata, data_only = data
            version = cls(
                number,
                Parameters.unpack(parameters),
                {NodeId(node): Role.unpack(role) for node, role in roles},
            )
            return cls(
                version.number,
                version.parameters,
                version.roles,
                _unpack_assignment(metadata, version.copies),
                _unpack_assignment(data_only, version.data_copies),
            ).checked()
        except (TypeError, ValueError) as error:
            raise StorageFailed(f"a layout version can't be read: {error}") from error

    def encode(self) -> bytes:
        return encode(TAG, self.pack())

    @classmethod
    def decode(cls, data: bytes) -> LayoutVersion:
        return cls.unpack(decode(data, TAG))

    def checked(self) -> LayoutVersion:
        """This version; raises StorageFailed if its assignment breaks one of the rules."""
        if any(len(node) != NODE_ID_BYTES for node in self.roles):
            raise StorageFailed(f"layout version {self.number}: a node id has a wrong length")
        for assignment, copies in (
            (self.metadata, self.copies),
            (self.data_only, self.data_copies),
        ):
            if assignment is not None and (fault := _fault(self, assignment, copies)):
                raise StorageFailed(f"layout version {self.number}: {fault}")
        return self


def compute(
    number: int,
    parameters: Parameters,
    roles: Mapping[NodeId, Role],
    previous: LayoutVersion | None,
) -> LayoutVersion:
    """Version `number` with its assignments, as near to `previous` as the best size allows.

    Raises NotAllowedHere or InvalidArgument.
    """
    plan = LayoutVersion(number, parameters.checked(), dict(sorted(roles.items())))
    if len(plan.storage_nodes) > STORAGE_NODES_MAX:
        raise NotAllowedHere(
            f"There are more than {STORAGE_NODES_MAX} non-gateway nodes in the new layout."
            " This is not allowed."
        )
    nodes = _nodes(plan)
    metadata = assign(nodes, plan.copies, plan.spread(plan.copies), _held(plan, previous, False))
    data = None
    if plan.data_copies != plan.copies:
        spread = plan.spread(plan.data_copies)
        data = assign(nodes, plan.data_copies, spread, _held(plan, previous, True))
    return LayoutVersion(number, parameters, plan.roles, metadata, data)


def _nodes(version: LayoutVersion) -> list[StorageNode]:
    return [
        StorageNode(node, role.zone, role.capacity or 0)
        for node, role in ((node, version.roles[node]) for node in version.storage_nodes)
    ]


def _held(
    plan: LayoutVersion, previous: LayoutVersion | None, data: bool
) -> list[frozenset[int]] | None:
    """What `previous` holds, in the numbering of `plan`; nodes that have left are dropped."""
    if previous is None:
        return None
    assignment = previous.data if data else previous.metadata
    if assignment is None:
        return None
    place = {node: index for index, node in enumerate(plan.storage_nodes)}
    moved = [place.get(node) for node in previous.storage_nodes]
    return [
        frozenset(new for new in (moved[old] for old in held) if new is not None)
        for held in assignment.holders
    ]


def _fault(version: LayoutVersion, assignment: Assignment, copies: int) -> str | None:
    """The rule that an assignment breaks, if any."""
    nodes = _nodes(version)
    spread = version.spread(copies)
    held_by = [0] * len(nodes)
    if len(assignment.holders) != PARTITIONS:
        return "wrong number of partitions"
    for holders in assignment.holders:
        if len(set(holders)) != copies or not all(0 <= i < len(nodes) for i in holders):
            return f"a partition is not on {copies} different storage nodes"
        if len({nodes[i].zone for i in holders}) < spread:
            return f"a partition is in fewer than {spread} zones"
        for index in holders:
            held_by[index] += 1
    for node, count in zip(nodes, held_by, strict=True):
        if count * assignment.partition_size > node.capacity:
            return "a node holds more than its capacity"
    if largest_partition_size(nodes, copies, spread) != assignment.partition_size:
        return "the partition size is not the largest possible"
    return None


def _pack_assignment(assignment: Assignment | None) -> list[Any] | None:
    if assignment is None:
        return None
    holders = bytes(index for holders in assignment.holders for index in holders)
    return [assignment.partition_size, holders]


def _unpack_assignment(data: list[Any] | None, copies: int) -> Assignment | None:
    if data is None:
        return None
    size, flat = data
    if len(flat) != copies * PARTITIONS:
        raise ValueError("an assignment has a wrong length")
    holders = tuple(tuple(flat[start : start + copies]) for start in range(0, len(flat), copies))
    return Assignment(size, holders)
