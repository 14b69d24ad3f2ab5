"""Which node keys belong to the cluster: decided by people, the same on every node in the end.

One entry a key, (version, standing). An act of an administrator writes the next version; of two
entries the later wins, and of equal ones the removal. So entries merge in any order, and what a
partition hides arrives when it heals. Whoever is admitted is trusted to say who else is. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, Final

from garage_lite.core.errors import InvalidArgument
from garage_lite.core.ids import NODE_ID_BYTES, NodeId
from garage_lite.core.wire.frames import WireDamaged

MEMBERS_MAX: Final = 1024
"""Keys that were ever admitted by name or removed; some forty bytes each."""
VERSION_MAX: Final = 1 << 53


class Standing(IntEnum):
    ADMITTED = 1
    REMOVED = 2


class Mode(Enum):
    """Who may be a peer."""

    SECRET = "secret"
    """Whoever holds the cluster's secret and was not removed."""
    EXPLICIT = "explicit"
    """Whoever was admitted by name."""


@dataclass(frozen=True, slots=True)
class Members:
    """The entries."""

    entries: dict[NodeId, tuple[int, Standing]] = field(default_factory=dict)

    def standing(self, node: NodeId) -> Standing | None:
        entry = self.entries.get(node)
        return None if entry is None else entry[1]

    def admits(self, node: NodeId, mode: Mode, configured: Iterable[NodeId] = ()) -> bool:
        """Whether that key may be a peer. A removal beats the configuration."""
        standing = self.standing(node)
        if standing is not None:
            return standing is Standing.ADMITTED
        return mode is Mode.SECRET or node in configured

    def with_standing(self, node: NodeId, standing: Standing) -> Members:
        """After an administrator's act; the same if nothing changes. Raises InvalidArgument."""
        version, before = self.entries.get(node, (0, None))
        if before is standing:
            return self
        if version == 0 and len(self.entries) >= MEMBERS_MAX:
            raise InvalidArgument(f"the cluster remembers at most {MEMBERS_MAX} node keys")
        return Members({**self.entries, node: (version + 1, standing)})

    def merge(self, other: Members) -> Members:
        """Commutative, associative, idempotent, up to MEMBERS_MAX entries: beyond, what this node
        does not know yet stays unknown."""
        merged = dict(self.entries)
        for node, entry in sorted(other.entries.items()):
            if node in merged:
                merged[node] = max(merged[node], entry)
            elif len(merged) < MEMBERS_MAX:
                merged[node] = entry
        return self if merged == self.entries else Members(merged)

    def told(self) -> list[Any]:
        """As it travels and is stored."""
        return [[node, version, int(s)] for node, (version, s) in sorted(self.entries.items())]


def read_members(raw: Any) -> Members:
    """What `told` gave. Raises WireDamaged."""
    if not isinstance(raw, list) or len(raw) > MEMBERS_MAX:
        raise WireDamaged("a list of members is too long or no list")
    entries: dict[NodeId, tuple[int, Standing]] = {}
    for each in raw:
        match each:
            case [bytes() as node, int() as version, 1 | 2 as standing] if (
                len(node) == NODE_ID_BYTES and 0 < version <= VERSION_MAX
            ):
                entries[NodeId(node)] = (version, Standing(standing))
            case _:
                raise WireDamaged("a list of members names something that is no member")
    return Members(entries)
