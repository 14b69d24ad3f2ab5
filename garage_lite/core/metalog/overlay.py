"""Rows on their way to the log, over those that are durable: found by key and by prefix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from garage_lite.core.metalog.merge import in_ranges

Absent = TypeVar("Absent")


class Overlay:
    """`rows` (None: deleted) lie over everything older; `drops` are ranges deleted beneath them."""

    __slots__ = ("_by_prefix", "_suffix_bytes", "drops", "rows")

    def __init__(self, suffix_bytes: Mapping[int, int]) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self.drops: list[tuple[bytes, bytes]] = []
        self._suffix_bytes = suffix_bytes
        self._by_prefix: dict[bytes, list[bytes]] = {}
        """May name keys that a drop took away."""

    def add(self, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        suffixes, by_prefix = self._suffix_bytes, self._by_prefix
        for key, _ in rows:
            prefix = key[: len(key) - suffixes.get(key[0], 0)]
            by_prefix.setdefault(prefix, []).append(key)
        self.rows.update(rows)

    def drop(self, start: bytes, end: bytes) -> None:
        """Delete start <= key < end here and beneath."""
        self.rows = {k: v for k, v in self.rows.items() if not start <= k < end}
        self.drops.append((start, end))

    def get(self, key: bytes, absent: Absent) -> bytes | None | Absent:
        """The row's value; None: it is deleted; `absent`: what is beneath counts."""
        if key in self.rows:
            return self.rows[key]
        return None if self.drops and in_ranges(key, self.drops) else absent

    def lay_over(
        self, prefix: bytes, rows: Mapping[bytes, bytes | None]
    ) -> dict[bytes, bytes | None]:
        """`rows`, the older ones of a prefix, with this overlay's laid over them."""
        kept: Iterable[tuple[bytes, bytes | None]] = rows.items()
        if self.drops:
            kept = [(k, v) for k, v in kept if not in_ranges(k, self.drops)]
        merged = dict(kept)
        for key in self._by_prefix.get(prefix, ()):
            if key in self.rows:
                merged[key] = self.rows[key]
        return merged
