"""Forgets rows that only say "removed", once no older row can come back.

They were queued in the record that made them (TOMBSTONE rows, in order of due time). What must
hold before one is forgotten core/table/tombstones.py says; a node alone has nobody to ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from garage_lite.core.cluster.holdings import nodes_of
from garage_lite.core.cluster.table_sync import TableSync
from garage_lite.core.errors import Unavailable
from garage_lite.core.ids import NodeId
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import STAMP_BYTES, Table, stamp_of, undecided_row
from garage_lite.core.table.digest import place_of
from garage_lite.core.table.schema import Change, Removal
from garage_lite.core.table.tombstones import (
    done,
    due_before,
    not_yet,
    row_of,
    says_only_removed,
    try_again,
)
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.core.workers.runner import BUSY, IDLE, Progress, Step

log = logging.getLogger(__name__)

BATCH: Final = 96
"""Rows dropped in one record: what each brings along is worked out in one go."""
POLL_SECONDS: Final = 60.0

Todo = tuple[bytes, bytes]


class TombstoneWorker:
    """One step is one batch of tombstones that are due."""

    name = "Tombstone worker"

    def __init__(self, sync: TableSync) -> None:
        self._tables = sync.tables
        self._layout = sync.layout
        self._recovering = sync.recovering
        self._calls = sync.tombstones
        self._here = sync.cluster.node
        self._forgotten = 0

    async def work(self) -> Step:
        due = await self._due()
        if not due:
            return IDLE
        if self._tables.alone:
            changes: list[Change] = [done(todo) for todo, _ in due]
            changes += [Removal(row_of(todo)) for todo, _ in due if self._value(todo) is not None]
            await self._tables.write(changes, deletes_only=True)
            self._forgotten += len(due)
            return BUSY
        groups: dict[tuple[NodeId, ...], list[bytes]] = {}
        ended: list[Change] = []
        for todo, state in due:
            owners = self._owners(row_of(todo))
            if self._here not in owners or self._value(todo) is None:
                ended.append(done(todo))
            elif later := not_yet(todo, state, owners.index(self._here)):
                ended += later
            else:
                groups.setdefault(owners, []).append(todo)
        for owners, todos in groups.items():
            ended += await self._forget(owners, todos)
        await self._tables.write(ended, deletes_only=True)
        return BUSY

    async def _forget(self, owners: Sequence[NodeId], todos: Sequence[bytes]) -> list[Change]:
        """What becomes of the queue rows."""
        rows = []
        for todo in todos:
            value = self._value(todo)
            if value is not None and not self._is_open(row_of(todo)):
                rows.append((row_of(todo), value))
        dropped: list[tuple[bytes, bytes]] = []
        try:
            dropped = await self._calls.forget(owners, rows) if rows else []
        except (Unavailable, PeerFailed) as error:
            log.debug("%d tombstones are not forgotten yet: %s", len(rows), error)
        self._forgotten += len(dropped)
        gone = {key for key, _ in dropped}
        now_us = self._tables.clock.now_us()
        ended: list[Change] = []
        for todo in todos:
            ended += [done(todo)] if row_of(todo) in gone else try_again(todo, now_us)
        return ended

    def _owners(self, key: bytes) -> tuple[NodeId, ...]:
        place = place_of(key)
        return () if place is None else tuple(nodes_of(self._layout.lookup, place))

    def _value(self, todo: bytes) -> bytes | None:
        """The tombstone as it is; None where there is nothing left to forget."""
        key = row_of(todo)
        value = self._tables.durable().get(key)
        if value is None or not says_only_removed(key, value) or self._is_shown(key, value):
            return None
        return value

    def _is_shown(self, key: bytes, value: bytes) -> bool:
        """Whether it is a delete marker above or below which there are versions by now: those who
        list versions see it."""
        if key[0] != Table.OBJECT or ObjectVersion.decode(stamp_of(key), value).removed:
            return False
        return len(self._tables.durable().with_prefix(key[:-STAMP_BYTES], 2)) > 1

    def _is_open(self, key: bytes) -> bool:
        """Whether older rows may still come to be, or acknowledged ones be missing here."""
        place = place_of(key)
        if place is None or not self._recovering.sure or self._recovering.is_recovering(place):
            return True
        if key[0] != Table.OBJECT:
            return False
        return bool(self._tables.durable().with_prefix(undecided_row(key[:-STAMP_BYTES]), 1))

    async def wait(self) -> None:
        await asyncio.sleep(POLL_SECONDS)

    def progress(self) -> Progress:
        return Progress(freeform=(f"{self._forgotten} since the start",))

    async def _due(self) -> list[Todo]:
        found: list[Todo] = []
        async for keys, values in self._tables.scan(*due_before(self._tables.clock.now_us())):
            found += zip(keys, values, strict=True)
            if len(found) >= BATCH:
                break
        return found[:BATCH]
