"""The newest rows, in memory: a dict, and its keys in order when somebody asks for order.

Keys are only ever added (a deletion is a row whose value is None), so the fresh ones are the
last of the dict and are sorted in when they are needed, or every SETTLE_EVERY so that no single
sort takes long. Timsort of a long sorted run and a short tail is close to linear.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

Batch = tuple[list[bytes], list[bytes | None]]

ROW_OVERHEAD_BYTES: Final = 180
"""Two bytes objects, a dict entry, a list slot."""
SETTLE_EVERY: Final = 512
_INSORT_MAX: Final = 12
SCAN_ROWS: Final = 64


class Memtable:
    """Rows by key; `bytes` estimates what they cost."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}
        self.bytes = 0
        self._sorted: list[bytes] = []

    def __len__(self) -> int:
        return len(self.rows)

    def update(self, rows: Mapping[bytes, bytes | None], size: int) -> None:
        """Take `rows`, newer than all that is here; `size` is their bytes with overhead."""
        self.rows.update(rows)
        self.bytes += size
        if len(self.rows) - len(self._sorted) >= SETTLE_EVERY:
            self.keys()

    def drop(self, start: bytes, end: bytes) -> None:
        """Forget the rows of start <= key < end."""
        if any(start <= key < end for key in self.rows):
            self.rows = {k: v for k, v in self.rows.items() if not start <= k < end}
            self._sorted = sorted(self.rows)

    def keys(self) -> list[bytes]:
        """All keys, ascending. The list is the table's own: read it before the next update."""
        fresh = len(self.rows) - len(self._sorted)
        if fresh:
            new = islice(reversed(self.rows), fresh)
            if fresh <= _INSORT_MAX:
                for key in new:
                    insort(self._sorted, key)
            else:
                self._sorted.extend(new)
                self._sorted.sort()
        return self._sorted

    def with_prefix(self, prefix: bytes, most: int | None = None) -> list[bytes]:
        """Keys that start with `prefix`, ascending, at most the first `most`."""
        keys = self.keys()
        found: list[bytes] = []
        for place in range(bisect_left(keys, prefix), len(keys)):
            if len(found) == most or not keys[place].startswith(prefix):
                break
            found.append(keys[place])
        return found

    def blocks(self, start: bytes, end: bytes | None) -> Iterator[Batch]:
        """Rows of start <= key < end (None: to the last) in small batches; the table may grow
        meanwhile, rows added ahead of the reader are met."""
        while True:
            keys = self.keys()
            first = bisect_left(keys, start)
            found = keys[first : first + SCAN_ROWS]
            if end is not None and found and found[-1] >= end:
                del found[bisect_left(found, end) :]
            if not found:
                return
            rows = self.rows
            yield found, [rows[key] for key in found]
            start = found[-1] + b"\x00"
