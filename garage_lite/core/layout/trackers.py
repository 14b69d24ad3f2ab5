"""How far each node has come on the way from one layout version to the next.

Three numbers a node, each the number of a layout version; a node raises only its own, and two
copies merge by maximum:

    ack        none of its running writes began under an older version
    sync       its rows of older versions are with their new holders
    sync_ack   it reads from this version or a newer one

Must not know connections; who may set what is the caller's matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from garage_lite.core.ids import NodeId


class Tracker(Enum):
    ACK = "ack"
    SYNC = "sync"
    SYNC_ACK = "sync_ack"


@dataclass(frozen=True, slots=True)
class Trackers:
    """A node that is not named stands at the oldest active version."""

    ack: Mapping[NodeId, int] = field(default_factory=dict)
    sync: Mapping[NodeId, int] = field(default_factory=dict)
    sync_ack: Mapping[NodeId, int] = field(default_factory=dict)

    def of(self, tracker: Tracker) -> Mapping[NodeId, int]:
        return {Tracker.ACK: self.ack, Tracker.SYNC: self.sync, Tracker.SYNC_ACK: self.sync_ack}[
            tracker
        ]

    def get(self, tracker: Tracker, node: NodeId, floor: int) -> int:
        return max(self.of(tracker).get(node, floor), floor)

    def least(self, tracker: Tracker, nodes: Iterable[NodeId], floor: int) -> int:
        """The least of `nodes`; `floor` where there are none."""
        return min((self.get(tracker, node, floor) for node in nodes), default=floor)

    def raised(self, tracker: Tracker, node: NodeId, version: int) -> Trackers:
        """With the node's number at `version` at least."""
        values = self.of(tracker)
        if values.get(node, -1) >= version:
            return self
        return replace(self, **{tracker.value: {**values, node: version}})

    def among(self, nodes: Iterable[NodeId], floor: int) -> Trackers:
        """Of `nodes` only, none below `floor`: what is worth keeping."""
        kept = tuple(nodes)
        return Trackers(
            *({node: self.get(tracker, node, floor) for node in kept} for tracker in Tracker)
        )

    def merge(self, other: Trackers) -> Trackers:
        return Trackers(*(_greatest(self.of(t), other.of(t)) for t in Tracker))

    def pack(self) -> list[Any]:
        return [[[node, of[node]] for node in sorted(of)] for of in map(self.of, Tracker)]

    @classmethod
    def unpack(cls, data: list[Any]) -> Trackers:
        ack, sync, sync_ack = data
        return cls(*({NodeId(n): number for n, number in of} for of in (ack, sync, sync_ack)))


def _greatest(mine: Mapping[NodeId, int], theirs: Mapping[NodeId, int]) -> dict[NodeId, int]:
    merged = dict(mine)
    for node, number in theirs.items():
        merged[node] = max(number, merged.get(node, number))
    return merged
