"""Values that merge: last-writer-wins register and map.

Every merge here is commutative, associative and idempotent. On equal timestamps the greater
value wins by a total order on its canonical bytes, so that two replicas never disagree.
Shapiro et al., "Conflict-free Replicated Data Types", 2011.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from garage_lite.core.codec import canonical, encode

T = TypeVar("T")


def _order(value: Any) -> bytes:
    return encode(0, [canonical(value)])


@dataclass(frozen=True, slots=True)
class Lww(Generic[T]):
    """A register: the value with the highest timestamp (microseconds) wins."""

    stamp_us: int
    value: T

    def merge(self, other: Lww[T]) -> Lww[T]:
        if self.stamp_us != other.stamp_us:
            return self if self.stamp_us > other.stamp_us else other
        return self if _order(self.value) >= _order(other.value) else other

    def set(self, value: T, now_us: int) -> Lww[T]:
        """The register after a write made at `now_us`; always newer than before."""
        return Lww(max(now_us, self.stamp_us + 1), value)

    def pack(self) -> list[Any]:
        return [self.stamp_us, canonical(self.value)]

    @classmethod
    def unpack(cls, data: list[Any]) -> Lww[T]:
        stamp, value = data
        return cls(stamp, value)


@dataclass(frozen=True, slots=True)
class LwwMap(Generic[T]):
    """A map of registers. Keys are str; a removed key keeps its register with value None."""

    entries: Mapping[str, Lww[T | None]] = field(default_factory=dict)

    def get(self, key: str) -> T | None:
        register = self.entries.get(key)
        return register.value if register else None

    def items(self) -> Iterator[tuple[str, T]]:
        """The keys that have a value, sorted."""
        for key in sorted(self.entries):
            value = self.entries[key].value
            if value is not None:
                yield key, value

    def set(self, key: str, value: T | None, now_us: int) -> LwwMap[T]:
        old = self.entries.get(key)
        new: Lww[T | None] = old.set(value, now_us) if old else Lww(now_us, value)
        return LwwMap({**self.entries, key: new})

    def merge(self, other: LwwMap[T]) -> LwwMap[T]:
        merged = dict(self.entries)
        for key, register in other.entries.items():
            mine = merged.get(key)
            merged[key] = register if mine is None else mine.merge(register)
        return LwwMap(merged)

    def pack(self) -> list[Any]:
        return [[key, *self.entries[key].pack()] for key in sorted(self.entries)]

    @classmethod
    def unpack(cls, data: list[Any]) -> LwwMap[T]:
        return cls({key: Lww(stamp, value) for key, stamp, value in data})
