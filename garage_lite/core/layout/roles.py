"""What a person says of the nodes: roles, parameters, and changes staged for the next version.

Staged edits merge key by key as long as they were made on the same ground; applying or reverting
raises the ground (`Staging.stamp_us`), which discards on every node what was staged before.
Must not know how partitions are assigned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from garage_lite.core.crdt import Lww, LwwMap
from garage_lite.core.errors import InvalidArgument
from garage_lite.core.ids import NODE_ID_BYTES, NodeId

CAPACITY_BYTES_MIN: Final = 1024
"""Garage's: a smaller number is a capacity given in the wrong unit."""
CAPACITY_BYTES_MAX: Final = 1 << 60
"""So that sums over all nodes stay within what msgpack and JSON readers hold."""
NAME_CHARS_MAX: Final = 128
"""Of a zone or a tag."""
TAGS_MAX: Final = 64
STORAGE_NODES_MAX: Final = 256
"""A node is one byte in the partition table, as in Garage."""
REPLICATION_FACTOR_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Role:
    """What a node is for. `capacity` in bytes; None: a gateway, which stores no data."""

    zone: str
    capacity: int | None
    tags: tuple[str, ...] = ()

    def pack(self) -> list[Any]:
        return [self.zone, self.capacity, list(self.tags)]

    @classmethod
    def unpack(cls, data: list[Any]) -> Role:
        zone, capacity, tags = data
        return cls(zone, capacity, tuple(tags))

    def checked(self) -> Role:
        """This role; raises InvalidArgument in words fit for the person who typed it."""
        if self.capacity is not None and self.capacity < CAPACITY_BYTES_MIN:
            raise InvalidArgument("Capacity should be at least 1K (1024)")
        if self.capacity is not None and self.capacity > CAPACITY_BYTES_MAX:
            raise InvalidArgument("Capacity should be at most 1024P")
        if len(self.tags) > TAGS_MAX:
            raise InvalidArgument(f"A node may have at most {TAGS_MAX} tags")
        _check_name("The zone", self.zone)
        for tag in self.tags:
            _check_name("A tag", tag)
        return self


def _check_name(what: str, name: str) -> None:
    if not name:
        raise InvalidArgument(f"{what} must not be empty")
    if len(name) > NAME_CHARS_MAX:
        raise InvalidArgument(f"{what} must have at most {NAME_CHARS_MAX} characters")
    if not name.isprintable():
        raise InvalidArgument(f"{what} must have printable characters only")


@dataclass(frozen=True, slots=True)
class Parameters:
    """How a version of the layout is computed."""

    replication_factor: int
    """Copies of each metadata row, and of each block unless said otherwise."""
    data_replication_factor: int | None = None
    """Copies of each block, where it differs."""
    zone_redundancy: int | None = None
    """At least this many zones hold each partition; None: as many as possible."""

    def pack(self) -> list[Any]:
        return [self.replication_factor, self.data_replication_factor, self.zone_redundancy]

    @classmethod
    def unpack(cls, data: list[Any]) -> Parameters:
        factor, data_factor, redundancy = data
        return cls(factor, data_factor, redundancy)

    def checked(self) -> Parameters:
        """These parameters; raises InvalidArgument."""
        for factor in (self.replication_factor, self.data_replication_factor):
            if factor is not None and not 1 <= factor <= REPLICATION_FACTOR_MAX:
                raise InvalidArgument(
                    f"The replication factor must be between 1 and {REPLICATION_FACTOR_MAX}."
                )
        if self.zone_redundancy is None:
            return self
        if self.zone_redundancy < 1:
            raise InvalidArgument("The zone redundancy must be at least 1.")
        smallest = min(
            self.replication_factor, self.data_replication_factor or self.replication_factor
        )
        if self.zone_redundancy > smallest:
            raise InvalidArgument(
                f"The zone redundancy must be smaller or equal to the replication factor"
                f" ({smallest})."
            )
        return self


@dataclass(frozen=True, slots=True)
class Staging:
    """Changes that wait for the next version; a CRDT."""

    parameters: Lww[list[Any]]
    """Packed Parameters."""
    stamp_us: int = 0
    """The ground: of two stagings with different grounds the lower one is discarded."""
    roles: LwwMap[list[Any]] = field(default_factory=LwwMap)
    """Node id in hex -> packed Role; a register without value is a staged removal."""

    def merge(self, other: Staging) -> Staging:
        if self.stamp_us != other.stamp_us:
            return self if self.stamp_us > other.stamp_us else other
        return Staging(
            self.parameters.merge(other.parameters), self.stamp_us, self.roles.merge(other.roles)
        )

    def with_role(self, node: NodeId, role: Role | None, now_us: int) -> Staging:
        """Stage a role, or with None the node's removal. Raises InvalidArgument."""
        if len(node) != NODE_ID_BYTES:
            raise InvalidArgument("Invalid node identifier")
        packed = None if role is None else role.checked().pack()
        return replace(self, roles=self.roles.set(node.hex(), packed, now_us))

    def with_parameters(self, parameters: Parameters, now_us: int) -> Staging:
        """Raises InvalidArgument."""
        packed = parameters.checked().pack()
        return replace(self, parameters=self.parameters.set(packed, now_us))

    def emptied(self, parameters: Parameters, now_us: int) -> Staging:
        """Fresh ground, after an apply or a revert."""
        ground = max(now_us, self.stamp_us + 1)
        return Staging(Lww(ground, parameters.pack()), ground)

    @property
    def staged_parameters(self) -> Parameters:
        return Parameters.unpack(self.parameters.value)

    def staged_roles(self) -> dict[NodeId, Role | None]:
        """Sorted by node id; None: the node is to be removed."""
        return {
            NodeId(bytes.fromhex(node)): None if packed is None else Role.unpack(packed)
            for node, packed in (
                (node, self.roles.entries[node].value) for node in sorted(self.roles.entries)
            )
        }

    def applied_to(self, roles: Mapping[NodeId, Role]) -> dict[NodeId, Role]:
        """The roles after the staged changes, sorted by node id."""
        changed = {**roles, **self.staged_roles()}
        return {node: role for node, role in sorted(changed.items()) if role is not None}

    def pack(self) -> list[Any]:
        return [self.parameters.pack(), self.stamp_us, self.roles.pack()]

    @classmethod
    def unpack(cls, data: list[Any]) -> Staging:
        parameters, stamp, roles = data
        return cls(Lww.unpack(parameters), stamp, LwwMap.unpack(roles))
