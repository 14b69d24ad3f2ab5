"""The record that is being put together from changes and what they bring along. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from garage_lite.core.ids import BucketId
from garage_lite.core.limits import BLOCK_DELETE_DELAY_MS
from garage_lite.core.model import rowkeys
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.rowkeys import CascadeKind, Table
from garage_lite.core.table.schema import View

CASCADE_DELAY_MS: Final = BLOCK_DELETE_DELAY_MS // 2
"""How long the data of a version that was removed is left to those who read it at other nodes;
those who read it at this one hold a lease."""
FENCE_DELAY_MS: Final = 30_000
"""How long whoever fenced something has to remove it."""
TOMBSTONE_DELAY_MS: Final = 25 * 3_600_000
"""A day, and longer than any message may live: after it no replica can bring an older row back."""


@dataclass(slots=True)
class Plan:
    """The record being put together; reads see it over the view."""

    view: View
    now_ms: int
    alone: bool
    rows: dict[bytes, bytes | None] = field(default_factory=dict)
    counters: dict[BucketId, Counters] = field(default_factory=dict)
    by_prefix: dict[bytes, list[bytes]] = field(default_factory=dict)
    """Bloom prefix -> keys among `rows` that the changes themselves named."""

    def put(self, key: bytes, value: bytes | None) -> None:
        suffix = rowkeys.SUFFIX_BYTES.get(key[0])
        if suffix:
            self.by_prefix.setdefault(key[:-suffix], []).append(key)
        self.rows[key] = value

    def get(self, key: bytes) -> bytes | None:
        return self.rows[key] if key in self.rows else self.view.get(key)

    def siblings(
        self, prefix: bytes, before: Sequence[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        """The rows under a bloom prefix as they will be, ascending; `before`: as they are."""
        rows = dict(before)
        for key in self.by_prefix.get(prefix, ()):
            value = self.rows[key]
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        return sorted(rows.items())

    def count(self, bucket: BucketId, change: Counters) -> None:
        before = self.counters.get(bucket)
        if before is not None:
            change = Counters(*map(sum, zip(before, change, strict=True)))
        self.counters[bucket] = change

    def cascade(self, bucket: BucketId, removed: bytes, kind: bytes, cause: bytes) -> None:
        if self.alone and kind == CascadeKind.FENCE:
            return
        """`cause`: key of the row that went, or whose state says that the thing goes."""
        due_us = 0
        if not self.alone:
            data = kind in (CascadeKind.DATA, CascadeKind.PARTS)
            read = CASCADE_DELAY_MS if data and cause[0] == Table.OBJECT else 0
            fence = FENCE_DELAY_MS if kind == CascadeKind.FENCE else 0
            due_us = (self.now_ms + read + fence) * 1000
        self.rows[rowkeys.cascade_row(bucket, removed, kind, due_us)] = cause

    def end(self, key: bytes) -> None:
        """The row only says "removed" from now on; where it could come back from no other
        replica it goes."""
        if self.alone:
            self.rows[key] = None
        else:
            self.forget_later(key)

    def forget_later(self, key: bytes) -> None:
        due_us = (self.now_ms + TOMBSTONE_DELAY_MS) * 1000
        self.rows[rowkeys.local_row(Table.TOMBSTONE, due_us.to_bytes(8, "big") + key)] = b"\x01"
