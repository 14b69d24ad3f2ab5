"""When a node that has lost rows may be asked again. Pure.

A write is acknowledged when W of a place's n owners have it. One of them that may have lost rows
(its store is new, restored from an older state, damaged, or missed the end of tombstones) has
them all again once it has merged the rows of n - W + 1 other owners that have lost nothing: any
W owners meet those and itself. All the other owners together are always enough: there is no more.

A store that is *stale* (restored from an older state, or away while tombstones were forgotten)
may hold rows that were deleted since, with nothing left anywhere that says so. They must not
spread: such a place is hidden from all, and emptied as soon as enough others are whole.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from garage_lite.core.codec import decode, encode, row_decoder
from garage_lite.core.ids import NodeId
from garage_lite.core.table.digest import Place, Realm

TAG = 1


class Sources(NamedTuple):
    """Whose rows must be merged."""

    others: frozenset[NodeId]
    needed: int


def recovered(wanted: Sources, whole: Collection[NodeId], partial: Collection[NodeId]) -> bool:
    """`whole`: nodes whose rows were merged and that lost nothing; `partial`: that may have."""
    merged = wanted.others & {*whole, *partial}
    return len(wanted.others & set(whole)) >= wanted.needed or merged == wanted.others


@dataclass(frozen=True, slots=True)
class Recovery:
    """A recovery under way, as it is kept over restarts."""

    why: str
    stale: bool
    shown: frozenset[Place] = frozenset()
    """Places that hold nothing stale any more."""
    done: frozenset[Place] = frozenset()
    """Places that have all their rows again."""

    def hides(self, place: Place) -> bool:
        return self.stale and place not in self.shown and place not in self.done

    def encode(self) -> bytes:
        places = [
            [[int(p.realm), p.partition] for p in sorted(of)] for of in (self.shown, self.done)
        ]
        return encode(TAG, [self.why, self.stale, *places])

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> Recovery:
        why, stale, *places = decode(data, TAG)
        shown, done = (frozenset(Place(Realm(realm), at) for realm, at in of) for of in places)
        return cls(why, stale, shown, done)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node remembers of another's store."""

    store: bytes
    """Its random id; empty before the first word from it."""
    sequence: int
    """Of its newest durable record."""
    at_ms: int
    """When it was heard of last."""
    missed: bool = False
    """Tombstones were forgotten without it: older rows may be left there."""

    def follows(self, store: bytes, sequence: int) -> bool:
        """Whether a store that says so of itself can be the one remembered, grown."""
        return not self.missed and (
            not self.store or (self.store == store and self.sequence <= sequence)
        )

    def encode(self) -> bytes:
        return encode(TAG, [self.store, self.sequence, self.at_ms, self.missed])

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> Seen:
        store, sequence, at_ms, missed = decode(data, TAG)
        return cls(store, sequence, at_ms, missed)
