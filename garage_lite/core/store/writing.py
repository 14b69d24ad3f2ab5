"""Writing a run of bytes as blocks: the attempt that becomes part of an object, or of nothing.

    pending row -> for each block: page and block_ref rows, then the file -> one last write,
                                                              by which the pending row is done

A run of one block takes its pending row along with that block.

The block is hashed in a thread (all digests of the stream and the block's name in one job, one
job of a stream after another); up to three blocks of a stream are on their way to the disk while
the next is read. Whatever goes wrong before the last write (an error, a client that went away),
the pending row is marked removed and its cascade takes back everything: nothing leaks, and what
was visible before still is. A crash is the same, found by the worker that sees an earlier run's
pending rows.

Knows nothing of objects or uploads: what the data becomes is in the rows of the last write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from blake3 import blake3

from garage_lite.core.block.chunker import Chunker
from garage_lite.core.cluster.blocks import Blocks
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.block_locks import BlockLeases
from garage_lite.core.errors import GarageLiteError, Unavailable
from garage_lite.core.ids import BlockHash, BucketId, DataId, NodeId
from garage_lite.core.limits import (
    BLOCK_BYTES,
    BLOCKS_IN_FLIGHT_PER_REQUEST,
    INLINE_BYTES_MAX,
    PART_BYTES_MIN,
    PENDING_LEASE_MS,
)
from garage_lite.core.model.rowkeys import block_ref_row, page_row, pending_row
from garage_lite.core.model.versions import (
    BlockEntry,
    BlockRef,
    Pending,
    PendingState,
    encode_page,
)
from garage_lite.core.ports import Buffer
from garage_lite.core.store.budget import Budget
from garage_lite.core.store.digests import MD5, Digests
from garage_lite.core.store.encryption import Cipher
from garage_lite.core.store.placing import Write
from garage_lite.core.table.checks import Check, Rule
from garage_lite.core.table.schema import Change, Update

log = logging.getLogger(__name__)

_RENEW_MS: Final = PENDING_LEASE_MS // 2


@dataclass(frozen=True, slots=True)
class StoreOptions:
    block_bytes: int = BLOCK_BYTES
    inline_bytes: int = INLINE_BYTES_MAX
    part_bytes_min: int = PART_BYTES_MIN
    compress: bool = True
    blocks_in_flight: int = BLOCKS_IN_FLIGHT_PER_REQUEST


@dataclass(slots=True)
class Storage:
    """What every verb that touches data works with: one for the node."""

    tables: Tables
    blocks: Blocks
    budget: Budget
    leases: BlockLeases
    node: NodeId
    boot: bytes
    """Random id of this run."""
    pool: Executor | None = None
    """Where hashing and encryption run; None: the loop's own threads."""
    options: StoreOptions = StoreOptions()
    _cleanups: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    def attempt(
        self,
        bucket: BucketId,
        data: DataId,
        digests: Iterable[str] = (),
        cipher: Cipher | None = None,
    ) -> Attempt:
        """Begin to write `data`; MD5 and `digests` of the plain bytes are computed."""
        return Attempt(self, bucket, data, Digests({MD5, *digests}), cipher)

    async def settle(self) -> None:
        """Until every failed attempt has been given to its cascade."""
        while self._cleanups:
            await asyncio.wait(self._cleanups)

    def clean_up(self, attempt: Attempt) -> asyncio.Task[None]:
        task = asyncio.create_task(attempt.abandon())
        self._cleanups.add(task)
        task.add_done_callback(self._cleanups.discard)
        return task


class Attempt:
    """One run of bytes being written: `add` chunks, `end`, then `commit`.

    An async context: left without a commit, everything is taken back.
    """

    def __init__(
        self,
        storage: Storage,
        bucket: BucketId,
        data: DataId,
        digests: Digests,
        cipher: Cipher | None,
    ) -> None:
        self.data = data
        self._storage = storage
        self._bucket = bucket
        self._digests = digests
        self._cipher = cipher
        self._chunker = Chunker(storage.options.block_bytes)
        self._hold = storage.budget.hold(self._cut)
        self._offset = 0
        self._hashing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._lease_until_ms = 0
        self._begun: asyncio.Task[None] | None = None
        self._last_write: asyncio.Task[None] | None = None
        self._committed = False

    async def __aenter__(self) -> Attempt:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._committed:
            self._hold.close()
        else:
            # Shielded: who cancels the request does not cancel the tidying up.
            await asyncio.shield(self._storage.clean_up(self))

    async def begin(self) -> None:
        """The pending row is durable on return. `add` does this by itself when it must."""
        self._begin_soon()
        assert self._begun is not None
        await asyncio.shield(self._begun)

    def _begin_soon(self) -> None:
        if self._begun is None:
            self._begun = asyncio.create_task(self._storage.tables.write([self._lease()]))

    async def add(self, chunk: Buffer) -> None:
        """Take the next bytes. Waits while too much is on its way. Raises what storing raised."""
        await self._hold.take(len(chunk), self._storage.options.block_bytes - self._chunker.held)
        for parts in self._chunker.feed(chunk):
            self._begin_soon()
            self._launch(parts)
        await self._wait_below(self._storage.options.blocks_in_flight)

    async def end(self) -> dict[str, bytes]:
        """Every block is durable on return; gives the digests of the whole."""
        self._cut()
        self._hold.close()
        await self._wait_below(1)
        return self._digests.results()

    @property
    def size(self) -> int:
        """Plain bytes written."""
        return self._offset

    async def commit(
        self,
        changes: Sequence[Change],
        guard: Callable[[], None] | None = None,
        *,
        checks: Sequence[Check] = (),
        by: Write | None = None,
    ) -> None:
        """Make the data part of something, which ends the pending state.

        As `by`, else `Tables.write`. If it raises, it may be called again. Once begun it is not
        cancelled with the request, for what is committed must not be taken back.
        """
        if self._begun is not None:
            if self._storage.tables.now_ms() > self._lease_until_ms:
                raise Unavailable("this upload took too long and was given up")
            checks = [Check(Rule.STILL_WRITING, self._row), *checks]
        write: Write = by or self._storage.tables.write
        self._last_write = asyncio.create_task(_awaited(write(changes, guard, checks=checks)))
        await asyncio.shield(self._last_write)
        self._committed = True

    async def abandon(self) -> None:
        """Wait for what is under way, then let the cascade take it all back."""
        self._hold.close()
        while self._tasks:
            await asyncio.wait(self._tasks)
        try:
            if self._last_write is not None and not await _failed(self._last_write):
                return
            if self._begun is None:
                return
            tables = self._storage.tables
            if await _failed(self._begun) and tables.alone and not tables.latest().get(self._row):
                # Nothing was written: what refused writes take must not eat the room that a full
                # disk keeps for deletions.
                return
            if self._last_write is not None and not tables.alone:
                # It may have reached some replicas: is it done at too many, it stays.
                fence = Check(Rule.NOT_DONE, self._row)
                fenced = self._pending(PendingState.FENCED)
                await tables.write([fenced], checks=[fence], deletes_only=True)
            await tables.write([self._pending(PendingState.REMOVED)], deletes_only=True)
        except GarageLiteError as error:
            # Its row stays: the worker that looks for an earlier run's data finds it.
            log.warning("data %s of a failed upload is left for later: %s", self.data.hex(), error)

    # --- blocks

    def _cut(self) -> None:
        """End the block here (the end of the stream, or others need the memory)."""
        if parts := self._chunker.cut():
            self._launch(parts)

    def _launch(self, parts: list[Buffer]) -> None:
        size = sum(len(part) for part in parts)
        offset, self._offset = self._offset, self._offset + size
        first = self._begun is None
        task = asyncio.create_task(self._store(parts, offset, size, self._hold.leave(size), first))
        if first:
            self._begun = task
        self._tasks.add(task)
        task.add_done_callback(self._stored)

    def _stored(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._failure = self._failure or asyncio.CancelledError()
        elif error := task.exception():
            self._failure = self._failure or error

    async def _wait_below(self, count: int) -> None:
        while len(self._tasks) >= count and self._failure is None:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        if self._failure is not None:
            raise self._failure

    async def _store(
        self, parts: list[Buffer], offset: int, size: int, borrowed: int, first: bool
    ) -> None:
        """`first`: the pending row is written with this block."""
        try:
            loop = asyncio.get_running_loop()
            async with self._hashing:
                if self._failure is not None:
                    return
                block, stored = await loop.run_in_executor(
                    self._storage.pool, hash_block, self._digests, parts, self._cipher, offset
                )
            del parts
            if not first:
                await self.begin()
            await self._storage.blocks.put(
                block,
                stored,
                self._rows_of(block, sum(len(part) for part in stored), offset + size),
                compress=self._storage.options.compress and self._cipher is None,
            )
        finally:
            self._storage.budget.give(borrowed)

    def _rows_of(self, block: BlockHash, stored_size: int, end: int) -> list[Change]:
        page = encode_page([BlockEntry(stored_size, block)])
        rows: list[Change] = [
            Update(page_row(self._bucket, self.data, end=end), page),
            Update(block_ref_row(block, self.data), BlockRef(self._bucket).encode()),
        ]
        if self._storage.tables.now_ms() > self._lease_until_ms - _RENEW_MS:
            rows.append(self._lease())
        return rows

    # --- the pending row

    @property
    def _row(self) -> bytes:
        return pending_row(self._bucket, self.data)

    def _lease(self) -> Update:
        self._lease_until_ms = self._storage.tables.now_ms() + PENDING_LEASE_MS
        return self._pending(PendingState.WRITING)

    def _pending(self, state: PendingState) -> Update:
        storage = self._storage
        pending = Pending(state, self._lease_until_ms, storage.node, storage.boot)
        return Update(self._row, pending.encode())


def hash_block(
    digests: Digests, parts: list[Buffer], cipher: Cipher | None, offset: int
) -> tuple[BlockHash, list[Buffer]]:
    """Feed the digests, encrypt where asked, name the block. For a thread.

    Returns the name and the bytes to store. One BLAKE3 thread a block: blocks are hashed side by
    side, and more threads are slower at this size.
    """
    digests.update(parts)
    stored = parts
    if cipher is not None:
        stored = [cipher.encrypt(b"".join(parts), offset)]
    name = blake3(max_threads=1)
    for part in stored:
        name.update(part)
    return BlockHash(name.digest()), stored


async def _awaited(write: Awaitable[None]) -> None:
    await write


async def _failed(task: asyncio.Task[None]) -> bool:
    """Wait for a task; whether it raised."""
    await asyncio.wait([task])
    return task.cancelled() or task.exception() is not None
