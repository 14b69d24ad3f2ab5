"""Finds references to blocks that nothing leads to: what a crash in the middle of a write left.

A write sends the pending row that owns the data, the page that names a block, and the block with
its reference, all at once to different nodes, and only when all three are at their quorums the
last write that makes the data part of something. So a crash of the writer may leave any subset:

    pending row at a replica     the lost-data worker gives it up, its cascade eats the pages that
                                 it finds and deletes the references they name
    page at a replica            without a pending row nothing leads to it, and nothing reads it;
                                 with its reference deleted here it is only a row
    reference at an owner        if its page reached its replicas, the cascade finds it by that;
                                 else it is found here

Each owner has noted such a reference, with the key of its page, in the record that brought it
(block_service.py). A lease later, when no such write can still be under way, it asks the owners
of the metadata: is there a page that names the block, or pending data whose writer may still be
at work? If neither, the reference is deleted everywhere. A reference whose page is on this very
node needs no question: the page's own cascade leads to it.

A read by quorum meets every acknowledged page, so a reference that anything depends on is never
taken for a lost one. Where reads are not by quorum (consistency modes `degraded` and `dangerous`)
nothing is deleted.
"""

from __future__ import annotations

import asyncio
from typing import Final

from garage_lite.core.block.pace import Pace
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.ids import BlockHash, BucketId, DataId
from garage_lite.core.limits import PENDING_LEASE_MS
from garage_lite.core.model.rowkeys import (
    Table,
    checked_ref,
    local_row,
    pending_row,
    ref_check_row,
)
from garage_lite.core.model.versions import BlockRef, Pending, PendingState, decode_page
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.runner import IDLE, Progress, State, Step

POLL_SECONDS: Final = 60.0
BATCH: Final = 64
_TRANQUILITY: Final = 2
_START: Final = local_row(Table.REF_CHECK, b"")
_UNDER_WAY: Final = (PendingState.WRITING, PendingState.FENCED)


class RefCheckWorker:
    """One step is one batch."""

    name = "Block reference check worker"

    def __init__(self, store: BlockStore, layout: ClusterLayout) -> None:
        self._store = store
        self._layout = layout
        self._pace = Pace()
        self._checked = 0
        self._lost = 0

    async def work(self) -> Step:
        clock = self._store.tables.clock
        start_us = clock.monotonic_us()
        due = self._due(clock.now_us())
        if not due:
            return IDLE
        done: list[tuple[bytes, bytes]] = []
        for key, page in due:
            done += await self._check(key, page)
            done.append((key, b""))
        await self._store.write(done)
        self._checked += len(due)
        rest = self._pace.rest_us(clock.monotonic_us() - start_us, _TRANQUILITY)
        return Step(State.THROTTLED, rest)

    async def wait(self) -> None:
        await asyncio.sleep(POLL_SECONDS)

    def progress(self) -> Progress:
        lines = (f"{self._checked} checked since the start, {self._lost} led nowhere",)
        return Progress(freeform=lines)

    def _due(self, now_us: int) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        end = local_row(Table.REF_CHECK, (now_us + 1).to_bytes(8, "big"))
        for keys, values in self._store.tables.durable().scan(_START, end):
            found += zip(keys, values, strict=True)
            if len(found) >= BATCH:
                break
        return found[:BATCH]

    async def _check(self, key: bytes, page_key: bytes) -> list[tuple[bytes, bytes]]:
        """Deal with one reference; the row that notes it anew, if it must be asked after again."""
        tables = self._store.tables
        reference = checked_ref(key)
        block, data = BlockHash(reference[2:34]), DataId(reference[34:])
        bucket = BucketId(page_key[2:34])
        row = tables.durable().get(reference)
        if row is None or BlockRef.decode(row).deleted:
            return []
        if _names(tables.durable().get(page_key), block) or _names(
            await tables.get(page_key), block
        ):
            return []
        owner = await tables.get(pending_row(bucket, data))
        under_way = owner is not None and Pending.decode(owner).state in _UNDER_WAY
        if under_way or not self._reads_meet_writes(bucket):
            due_us = tables.clock.now_us() + PENDING_LEASE_MS * 1000
            return [(ref_check_row(due_us, reference), page_key)]
        dead = BlockRef(bucket, deleted=True).encode()
        await tables.write([Update(reference, dead)], deletes_only=True)
        self._lost += 1
        return []

    def _reads_meet_writes(self, bucket: BucketId) -> bool:
        lookup = self._layout.lookup
        read = lookup.read_set(bucket[0])
        if read is None:
            return False
        return all(
            read.needed + write.needed > len(read.nodes)
            for write in lookup.write_sets(bucket[0])
            if write.version == read.version
        )


def _names(page: bytes | None, block: BlockHash) -> bool:
    """Whether a page row (None: there is none; empty: removed) names the block."""
    return bool(page) and any(entry.hash == block for entry in decode_page(page or b""))
