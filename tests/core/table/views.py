"""A View over a dict, for tests of pure rules."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from garage_lite.core.model.rowkeys import SUFFIX_BYTES
from garage_lite.core.table.apply import plan_changes
from garage_lite.core.table.schema import Change


class DictView:
    """Rows in a dict; `apply` plays the changes the way a replica does."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.rows_read = 0
        """By `with_prefix`."""
        self._keys: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def settle(self) -> None:
        """Sort the keys of rows that were put in by hand."""
        self._keys = sorted(self.rows)

    def with_prefix(self, prefix: bytes, most: int | None = None) -> list[tuple[bytes, bytes]]:
        length = len(prefix) + SUFFIX_BYTES.get(prefix[0], 0)
        keys = self._keys
        found: list[tuple[bytes, bytes]] = []
        for place in range(bisect_left(keys, prefix), len(keys)):
            key = keys[place]
            if len(found) == most or not key.startswith(prefix):
                break
            if len(key) == length:
                found.append((key, self.rows[key]))
        self.rows_read += len(found)
        return found

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[list[bytes], list[bytes]]]:
        keys = sorted(key for key in self.rows if start <= key < end)
        for at in range(0, len(keys), 3):
            batch = keys[at : at + 3]
            yield batch, [self.rows[key] for key in batch]

    def plan(self, changes: Sequence[Change], now_ms: int = 1) -> list[tuple[bytes, bytes | None]]:
        return plan_changes(changes, self, now_ms, alone=True)

    def apply(self, changes: Sequence[Change], now_ms: int = 1) -> list[bytes]:
        """Play the changes; returns the keys that were touched."""
        planned = self.plan(changes, now_ms)
        for key, value in planned:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.settle()
        return [key for key, _ in planned]

    def of(self, table: int) -> dict[bytes, bytes]:
        return {key: value for key, value in sorted(self.rows.items()) if key[0] == table}
