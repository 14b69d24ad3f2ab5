"""Lets go of data whose writer died: pending rows of an earlier run, or with a lapsed lease.

A run's own pending data is its writer's business: it completes it or removes it itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.ids import NodeId
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.schema import Update

_START: Final = bytes((Table.PENDING,))
_END: Final = bytes((Table.PENDING + 1,))


class LostData:
    """The rules of the pending-data worker on node `node`, in its run `boot`."""

    def __init__(self, tables: Tables, node: NodeId, boot: bytes) -> None:
        self._tables = tables
        self._node = node
        self._boot = boot

    def is_lost(self, pending: Pending, now_ms: int) -> bool:
        if pending.writer == self._node:
            return pending.boot != self._boot
        return now_ms > pending.lease_until_ms

    async def run(self) -> int:
        """Remove all lost data (its cascade follows); returns how much was lost."""
        lost = 0
        now_ms = self._tables.now_ms()
        async for keys, values in self._tables.scan(_START, _END):
            for key, value in zip(keys, values, strict=True):
                pending = Pending.decode(value)
                if self.is_lost(pending, now_ms):
                    gone = replace(pending, state=PendingState.REMOVED)
                    await self._tables.write([Update(key, gone.encode())], deletes_only=True)
                    lost += 1
        return lost
