"""Lets go of data whose writer died: pending rows of an earlier run, or with a lapsed lease.

A run's own pending data is its writer's business: it completes it or removes it itself. An upload
that was fenced (the first step of its abort) and not removed is removed here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.ids import NodeId
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.runner import IDLE, Progress, Step

CHECK_SECONDS: Final = 3600.0


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
        async for key, value in self._rows(Table.PENDING):
            pending = Pending.decode(value)
            if self.is_lost(pending, now_ms):
                await self._remove(key, replace(pending, state=PendingState.REMOVED).encode())
        async for key, value in self._rows(Table.UPLOAD):
            upload = Upload.decode(value)
            removed = upload.after("remove") if upload.state is UploadState.FENCED else None
            if removed is not None:
                await self._remove(key, removed.encode())
        return IDLE

    async def _rows(self, table: Table) -> AsyncIterator[tuple[bytes, bytes]]:
        async for keys, values in self._tables.scan(bytes((table,)), bytes((table + 1,))):
            for key, value in zip(keys, values, strict=True):
                yield key, value

    async def _remove(self, key: bytes, row: bytes) -> None:
        await self._tables.write([Update(key, row)], deletes_only=True)
        self._lost += 1

    async def wait(self) -> None:
        await asyncio.sleep(CHECK_SECONDS)

    def progress(self) -> Progress:
        return Progress(freeform=(f"{self._lost} since the start",))
