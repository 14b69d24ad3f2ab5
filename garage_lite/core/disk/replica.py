"""This node's replica of the tables: updates in, one durable record out.

Knows the metadata store and the rules of core/table; knows no peer. Between reading the rows a
change depends on and entering the result in the writers' view nothing else runs, so a guard that
has looked at the writers' view decides for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.table.apply import plan_changes
from garage_lite.core.table.schema import Change, View, is_everywhere

Guard = Callable[[], None]
Listener = Callable[[bytes, bytes | None], None]


class LatestView:
    """Rows as the next writer must see them, durable or not yet."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store

    def get(self, key: bytes) -> bytes | None:
        return self._store.get(key, latest=True)

    def with_prefix(self, prefix: bytes, most: int | None = None) -> list[tuple[bytes, bytes]]:
        return self._store.with_prefix(prefix, most, latest=True)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[list[bytes], list[bytes]]]:
        return self._store.scan(start, end, latest=True)


class Replica:
    """Applies changes to this node's rows and tells who listens to the tables on every node."""

    def __init__(self, store: MetadataStore) -> None:
        self.latest: View = LatestView(store)
        self.durable: View = store
        self.cascades = asyncio.Event()
        """Set whenever a commit may have left work for the cascade worker."""
        self._store = store
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """`listener(key, value)` runs after each durable change of a row that every node holds."""
        self._listeners.append(listener)

    async def apply(
        self,
        changes: Sequence[Change],
        now_ms: int,
        guard: Guard | None,
        deletes_only: bool,
        *,
        alone: bool = False,
        decided: bool = False,
    ) -> None:
        """Durable on return. `alone`: no other node holds any of these rows. `decided`: they are
        known to be at a quorum, or chosen, so no fence stands against them.

        Raises what `guard` raises, DiskFull, StorageFailed, Unavailable; then nothing has changed,
        except after StorageFailed (unknown).
        """
        await self._store.room()
        if guard is not None:
            guard()
        rows = plan_changes(changes, self.latest, now_ms, alone=alone, decided=decided)
        if not rows:
            if any(self.durable.get(one.key) != self.latest.get(one.key) for one in changes):
                # Somebody else has written the same, and it is still on its way to the disk.
                await asyncio.shield(self._store.commit(()))
            return
        # What is on its way to the log can't be called back: whoever listens must hear of it even
        # when the caller goes away meanwhile.
        committed = self._store.commit(rows, reserve=deletes_only)
        committed.add_done_callback(lambda done: self._tell(rows, done))
        await asyncio.shield(committed)

    def _tell(self, rows: Sequence[tuple[bytes, bytes | None]], done: asyncio.Future[None]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        for key, value in rows:
            if is_everywhere(key):
                for listener in self._listeners:
                    listener(key, value)
            elif key[0] == Table.CASCADE and value is not None:
                self.cascades.set()
