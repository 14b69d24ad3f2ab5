"""The rows that are durable in the log but not yet in a segment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from garage_lite.core.disk.segment_files import ABSENT, lesser
from garage_lite.core.metalog.manifest import Range
from garage_lite.core.metalog.memtable import Batch, Memtable
from garage_lite.core.metalog.merge import in_ranges, without_ranges


@dataclass(slots=True)
class Frozen:
    """A memtable that takes no more rows and is being written out."""

    table: Memtable
    sequence: int
    """Of the newest record in it."""
    drops: list[Range] = field(default_factory=list)
    """Ranges dropped since it was frozen."""


class Memory:
    """The active memtable and, while one is written out, the frozen one."""

    def __init__(self, active: Memtable) -> None:
        self.active = active
        self.frozen: Frozen | None = None

    def freeze(self, sequence: int) -> None:
        """`sequence`: of the newest durable record; the active table holds nothing above it."""
        assert self.frozen is None
        self.active.keys()
        self.frozen = Frozen(self.active, sequence)
        self.active = Memtable()

    def drop(self, dropped: Range) -> None:
        self.active.drop(*dropped)
        if self.frozen is not None:
            self.frozen.drops.append(dropped)

    def get(self, key: bytes) -> bytes | None:
        """The value, None of a deletion, or ABSENT."""
        absent: bytes | None = ABSENT
        value = self.active.rows.get(key, absent)
        frozen = self.frozen
        if value is ABSENT and frozen is not None and not in_ranges(key, frozen.drops):
            value = frozen.table.rows.get(key, absent)
        return value

    def with_prefix(
        self, prefix: bytes, rows: dict[bytes, bytes | None], most: int | None = None
    ) -> bytes | None:
        """Lay the rows whose key starts with `prefix`, the first `most` of each table, over
        `rows`. Returns up to which key that is all, None: they are all."""
        known = None
        frozen = self.frozen
        if frozen is not None:
            keys = frozen.table.with_prefix(prefix, most)
            for key in keys:
                if not in_ranges(key, frozen.drops):
                    rows[key] = frozen.table.rows[key]
            if len(keys) == most:
                known = keys[-1]
        keys = self.active.with_prefix(prefix, most)
        for key in keys:
            rows[key] = self.active.rows[key]
        return lesser(known, keys[-1]) if len(keys) == most else known

    def sources(self, start: bytes, end: bytes | None) -> list[Iterator[Batch]]:
        found = [self.active.blocks(start, end)]
        if self.frozen is not None:
            blocks = self.frozen.table.blocks(start, end)
            drops = self.frozen.drops
            found.append(without_ranges(blocks, drops) if drops else blocks)
        return found
