"""The replicated tables: write to and read from a quorum of the replicas of each row.

Today a cluster is this node alone, its own quorum. What the verbs of core/store see stays as it
is when peers join: they never know how many replicas answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Final

from garage_lite.core.disk.replica import Guard, Listener, Replica
from garage_lite.core.hlc import HybridClock
from garage_lite.core.model.rowkeys import Table, local_row
from garage_lite.core.ports import Clock, Entropy
from garage_lite.core.table.history import rows_that_decide
from garage_lite.core.table.schema import Change, Update, View

_NEWEST_STAMP: Final = local_row(Table.NODE, b"newest stamp")
_STAMP_AHEAD_US: Final = 1_000_000
"""The persisted bound runs this far ahead, so that it is written once a second at most."""


class Tables:
    """Every row of the cluster, as the verbs see it."""

    def __init__(self, replica: Replica, clock: Clock, entropy: Entropy) -> None:
        self.clock = clock
        self.entropy = entropy
        self._replica = replica
        stored = replica.durable.get(_NEWEST_STAMP)
        self._bound = int.from_bytes(stored, "big") if stored else 0
        self._stamps = HybridClock(self._bound)

    def now_ms(self) -> int:
        return self.clock.now_us() // 1000

    def stamp(self, above: int = 0) -> int:
        """The next stamp of this node's hybrid clock, microseconds, greater than `above`."""
        return self._stamps.next(self.clock.now_us(), above)

    def latest(self) -> View:
        """Rows as a guard must see them: also what is written but not yet durable."""
        return self._replica.latest

    def durable(self) -> View:
        """Rows that a power cut can't take back."""
        return self._replica.durable

    async def wait_for_cascades(self) -> None:
        """Until a write may have left something for the cascade worker."""
        await self._replica.cascades.wait()
        self._replica.cascades.clear()

    def on_applied(self, listener: Listener) -> None:
        """Tell `listener(key, value)` of each durable change of a row that every node holds."""
        self._replica.listen(listener)

    async def write(
        self,
        changes: Sequence[Change],
        guard: Guard | None = None,
        *,
        deletes_only: bool = False,
    ) -> None:
        """Join the changes into their rows, with all they bring along, in one record.

        Durable at a write quorum on return. `guard` runs against `latest()` right before, with
        nothing in between; what it raises is raised here and nothing has changed. `deletes_only`
        lets the write use the room that a full disk keeps for deletions. Raises ValueError above
        TRANSACTION_BYTES_MAX.
        """
        if self._stamps.newest <= self._bound:
            await self._replica.apply(changes, self.now_ms(), guard, deletes_only)
            return
        bound = self._stamps.newest + _STAMP_AHEAD_US
        changes = [*changes, Update(_NEWEST_STAMP, bound.to_bytes(8, "big"))]
        await self._replica.apply(changes, self.now_ms(), guard, deletes_only)
        self._bound = max(bound, self._bound)

    async def get(self, key: bytes) -> bytes | None:
        return self._replica.durable.get(key)

    async def with_prefix(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """The rows whose key without its table's suffix is `prefix`, ascending."""
        return self._replica.durable.with_prefix(prefix)

    async def versions(
        self, prefix: bytes, named: Iterable[bytes] | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Rows of an object key, newest first, on which it is decided what its current version is
        and, with `named`, whether those and the null version survive (core/table/history.py).
        However many versions there are, these are few."""
        return rows_that_decide(self._replica.durable, prefix, named)

    def scan(self, start: bytes, end: bytes) -> AsyncIterator[tuple[list[bytes], list[bytes]]]:
        """Rows from `start` up to `end` (excluded), ascending, in batches."""
        return _Batches(self._replica.durable.scan(start, end))

    async def close(self) -> None:
        """Write down the newest stamp, so that a restart does not run ahead of the clock."""
        newest = self._stamps.newest
        if newest and newest != self._bound:
            self._bound = newest
            bound = Update(_NEWEST_STAMP, newest.to_bytes(8, "big"))
            await self._replica.apply([bound], self.now_ms(), None, True)


class _Batches:
    """An iterator as an asynchronous one. No generator: one that is left early would wait for
    the loop to close it, and keep the segments it reads alive meanwhile."""

    def __init__(self, batches: Iterator[tuple[list[bytes], list[bytes]]]) -> None:
        self._batches = batches

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> tuple[list[bytes], list[bytes]]:
        for batch in self._batches:
            return batch
        raise StopAsyncIteration
