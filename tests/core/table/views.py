"""A View over a dict, for tests of pure rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from garage_lite.core.model.rowkeys import SUFFIX_BYTES
from garage_lite.core.table.apply import plan_changes
from garage_lite.core.table.schema import Change


class DictView:
    """Rows in a dict; `apply` plays the changes the way a replica does."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def with_prefix(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        length = len(prefix) + SUFFIX_BYTES.get(prefix[0], 0)
        found = [
            (key, value)
            for key, value in self.rows.items()
            if len(key) == length and key.startswith(prefix)
        ]
        return sorted(found)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[list[bytes], list[bytes]]]:
        keys = sorted(key for key in self.rows if start <= key < end)
        for at in range(0, len(keys), 3):
            batch = keys[at : at + 3]
            yield batch, [self.rows[key] for key in batch]

    def apply(self, changes: Sequence[Change], now_ms: int = 1) -> list[bytes]:
        """Play the changes; returns the keys that were touched."""
        planned = plan_changes(changes, self, now_ms)
        for key, value in planned:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        return [key for key, _ in planned]

    def of(self, table: int) -> dict[bytes, bytes]:
        return {key: value for key, value in sorted(self.rows.items()) if key[0] == table}
