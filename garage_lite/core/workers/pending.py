"""Lets go of data whose writer died: pending rows of an earlier run, or with a lapsed lease.

In a cluster it is fenced first, at a quorum: where it became part of something meanwhile a replica
refuses, and then it stays. A node looks after what its own earlier runs left, the first holder of
a row after what others left, once its lease has run out. An upload that was fenced (the first step
of its abort) and not removed is removed here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import CallerError, Unavailable
from garage_lite.core.ids import NodeId
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.checks import Check, Rule
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.runner import IDLE, Progress, Step

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 3600.0


class LostDataWorker:
    """For node `node` in its run `boot`: looks at the start, and every hour."""

    name = "Lost upload worker"

    def __init__(self, tables: Tables, node: NodeId, boot: bytes) -> None:
        self._tables = tables
        self._node = node
        self._boot = boot
        self._lost = 0

    def is_lost(self, key: bytes, pending: Pending, now_ms: int) -> bool:
        if pending.state >= PendingState.DONE:
            return False
        if pending.state is PendingState.FENCED:
            return True
        if pending.writer == self._node and pending.boot != self._boot:
            return True
        return now_ms > pending.lease_until_ms and self._tables.leads(key)

    async def work(self) -> Step:
        now_ms = self._tables.now_ms()
        async for key, value in self._rows(Table.PENDING):
            pending = Pending.decode(value)
            if self.is_lost(key, pending, now_ms):
                await self._give_up(key, pending)
        async for key, value in self._rows(Table.UPLOAD):
            upload = Upload.decode(value)
            removed = upload.after("remove") if upload.state is UploadState.FENCED else None
            if removed is not None:
                await self._abort(key, upload, removed)
        return IDLE

    async def _rows(self, table: Table) -> AsyncIterator[tuple[bytes, bytes]]:
        """Those that this node holds."""
        for keys, values in self._tables.durable().scan(bytes((table,)), bytes((table + 1,))):
            for key, value in zip(keys, values, strict=True):
                yield key, value
            await asyncio.sleep(0)

    async def _give_up(self, key: bytes, pending: Pending) -> None:
        if not self._tables.alone:
            fenced = replace(pending, state=PendingState.FENCED)
            if not await self._fence(key, fenced.encode(), Rule.NOT_DONE):
                return
        removed = replace(pending, state=PendingState.REMOVED)
        self._lost += await self._write(key, removed.encode())

    async def _abort(self, key: bytes, upload: Upload, removed: Upload) -> None:
        if self._tables.alone or await self._fence(key, upload.encode(), Rule.NOT_COMPLETED):
            self._lost += await self._write(key, removed.encode())

    async def _fence(self, key: bytes, row: bytes, rule: Rule) -> bool:
        """Whether a quorum holds the fence. Where so many refuse that none can, what it was
        against has won, and this node's promise is void."""
        try:
            return await self._write(key, row, Check(rule, key))
        except CallerError:
            await self._tables.unlearn(key)
            return False

    async def _write(self, key: bytes, row: bytes, *checks: Check) -> bool:
        """False: not now; looked at again in the next round."""
        try:
            await self._tables.write([Update(key, row)], checks=checks, deletes_only=True)
        except Unavailable as error:
            log.debug("lost data is left for later: %s", error)
            return False
        return True

    async def wait(self) -> None:
        await asyncio.sleep(CHECK_SECONDS)

    def progress(self) -> Progress:
        return Progress(freeform=(f"{self._lost} since the start",))
