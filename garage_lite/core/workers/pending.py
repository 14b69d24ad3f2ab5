"""Lets go of data whose writer died: pending rows of an earlier run, or with a lapsed lease.

A run's own pending data is its writer's business: it completes it or removes it itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.ids import NodeId
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.runner import IDLE, Progress, Step

CHECK_SECONDS: Final = 3600.0
_START: Final = bytes((Table.PENDING,))
_END: Final = bytes((Table.PENDING + 1,))


class LostDataWorker:
    """For node `node` in its run `boot`: looks at the start, and every hour."""

    name = "Lost upload worker"

    def __init__(self, tables: Tables, node: NodeId, boot: bytes) -> None:
        self._tables = tables
        self._node = node
        self._boot = boot
        self._lost = 0

    def is_lost(self, pending: Pending, now_ms: int) -> bool:
        if pending.writer == self._node:
            return pending.boot != self._boot
        return now_ms > pending.lease_until_ms

    async def work(self) -> Step:
        now_ms = self._tables.now_ms()
        async for keys, values in self._tables.scan(_START, _END):
            for key, value in zip(keys, values, strict=True):
                pending = Pending.decode(value)
                if self.is_lost(pending, now_ms):
                    gone = replace(pending, state=PendingState.REMOVED)
                    await self._tables.write([Update(key, gone.encode())], deletes_only=True)
                    self._lost += 1
        return IDLE

    async def wait(self) -> None:
        await asyncio.sleep(CHECK_SECONDS)

    def progress(self) -> Progress:
        return Progress(freeform=(f"{self._lost} since the start",))
