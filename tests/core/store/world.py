"""A node's store without its web: real files in a temporary directory, real tables and blocks.

async with World(tmp_path) as w:
    version = await w.put(b"key", b"content")
    assert await w.get(b"key") == b"content"
    await w.nothing_left()
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from garage_lite.core.block.markers import DataDirectory
from garage_lite.core.block.resync import entry_key
from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.crdt import Lww
from garage_lite.core.disk.block_files import BlockFiles, BlockOptions
from garage_lite.core.disk.block_locks import BlockLeases
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore
from garage_lite.core.disk.replica import Replica
from garage_lite.core.errors import BadDigest
from garage_lite.core.ids import BlockHash, BucketId, NodeId
from garage_lite.core.model.buckets import Bucket, Versioning
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Checksum, ObjectVersion
from garage_lite.core.model.rowkeys import (
    SUFFIX_BYTES,
    Table,
    counter_row,
    everywhere_row,
    local_row,
)
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.store.body import PutRequest
from garage_lite.core.store.budget import Budget
from garage_lite.core.store.conditions import WriteCondition
from garage_lite.core.store.copies import Copies
from garage_lite.core.store.encryption import CustomerKey
from garage_lite.core.store.objects import Objects
from garage_lite.core.store.uploads import Uploads
from garage_lite.core.store.writing import Storage, StoreOptions
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.cascade import CascadeWorker
from garage_lite.core.workers.runner import State
from garage_lite.system import SystemEntropy
from tests.core.blocks_on_disk import lone_blocks
from tests.core.tables_on_disk import lone_tables

BLOCK = 1000
"""Bytes of a block here, so that objects of many blocks stay small."""
OPTIONS = StoreOptions(block_bytes=BLOCK, inline_bytes=100, part_bytes_min=0)


class Bytes:
    """A body that is there already, in chunks of `chunk` bytes."""

    def __init__(
        self,
        content: bytes,
        chunk: int = 333,
        digests: Iterable[str] = (),
        expected: Mapping[str, bytes] | None = None,
        announced: bool = True,
    ) -> None:
        self.size = len(content) if announced else None
        self.digests = frozenset(digests) | frozenset(expected or ())
        self.expected = dict(expected or {})
        self.asked = 0
        """How often it was read."""
        self._chunks = [content[at : at + chunk] for at in range(0, len(content), chunk)]

    async def read(self) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        return self._chunks.pop(0) if self._chunks else b""

    def finish(self, size: int, digests: Mapping[str, bytes]) -> Checksum | None:
        for name, value in self.expected.items():
            if digests[name] != value:
                raise BadDigest
        names = sorted(self.digests - {"MD5"})
        return Checksum(names[0], digests[names[0]]) if names else None


class TestClock:
    """Starts at a fixed time; each look is a microsecond later."""

    __test__ = False

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def now_us(self) -> int:
        self.us += 1
        return self.us

    def monotonic_us(self) -> int:
        return self.now_us()


@dataclass(frozen=True)
class Left:
    """How many rows there are of what must not be left behind."""

    pending: int
    cascades: int
    pages: int
    part_lists: int
    parts: int
    live_refs: int


class World:
    def __init__(
        self,
        directory: Path,
        options: StoreOptions = OPTIONS,
        budget: Budget | None = None,
        fsync: bool = False,
    ) -> None:
        self.directory = directory
        self.options = options
        self.budget = budget or Budget(1 << 20, patience_s=0.02)
        self.bucket = Bucket(BucketId(bytes(range(32))), created_ms=0)
        self.clock = TestClock()
        self.abandoned = False
        """Whether a test has already ended it in a way of its own."""
        self._fsync = fsync

    async def __aenter__(self) -> Self:
        entropy, files = SystemEntropy(), LocalFiles()
        options = MetadataOptions(dict(SUFFIX_BYTES), fsync=self._fsync, log_file_bytes=1 << 20)
        self.metadata = await MetadataStore.open(
            files, str(self.directory / "meta"), self.clock, entropy, options
        )
        replica = Replica(self.metadata)
        self.tables = lone_tables(replica, self.clock, entropy)
        self.files = await BlockFiles.open(
            files,
            [DataDirectory(str(self.directory / "data"))],
            NodeState(self.tables),
            entropy,
            BlockOptions(fsync=self._fsync),
        )
        node, leases = NodeId(bytes(32)), BlockLeases()
        self.blocks = lone_blocks(replica, self.tables, self.files, node, leases)
        self.storage = Storage(
            self.tables,
            self.blocks,
            self.budget,
            leases,
            node,
            entropy.token(16),
            options=self.options,
        )
        self.objects = Objects(self.storage)
        self.uploads = Uploads(self.storage)
        self.copies = Copies(self.storage, self.objects, self.uploads)
        await self.keep_bucket(self.bucket)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.storage.settle()
        if self.abandoned:
            return
        await self.tables.close()
        await self.files.close()
        await self.metadata.close()

    # --- verbs in short

    async def put(
        self,
        key: bytes,
        content: bytes | Bytes,
        *,
        guard: WriteCondition | None = None,
        customer_key: CustomerKey | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> ObjectVersion:
        body = Bytes(content) if isinstance(content, bytes) else content
        request = PutRequest(self.bucket, key, body, headers, customer_key, guard)
        return await self.objects.put(request)

    async def get(
        self,
        key: bytes,
        start: int = 0,
        end: int | None = None,
        *,
        version_id: str | None = None,
        customer_key: CustomerKey | None = None,
    ) -> bytes:
        version = await self.objects.head(self.bucket.id, key, version_id)
        stop = version.size if end is None else end
        stream = await self.objects.read(self.bucket.id, version, start, stop, customer_key)
        return b"".join([piece async for piece in stream])

    async def keep_bucket(self, bucket: Bucket) -> None:
        row = everywhere_row(Table.BUCKET, bucket.id)
        await self.tables.write([Update(row, bucket.encode())])

    def versioning(self, state: Versioning) -> None:
        self.bucket = replace(self.bucket, versioning=Lww(1, int(state)))

    def quotas(self, size: int | None, objects: int | None) -> None:
        self.bucket = replace(self.bucket, quotas=Lww(1, [size, objects]))

    # --- what is there

    async def rows(self, table: Table) -> AsyncIterator[tuple[bytes, bytes]]:
        async for keys, values in self.tables.scan(bytes((table,)), bytes((table + 1,))):
            for key, value in zip(keys, values, strict=True):
                yield key, value

    async def count(self, table: Table) -> int:
        return len([key async for key, _ in self.rows(table)])

    async def counters(self) -> Counters:
        row = await self.tables.get(counter_row(self.bucket.id))
        return Counters.decode(row) if row else Counters()

    async def barrier(self) -> None:
        """Until all that was on its way to the log, also of cancelled requests, is durable."""
        await self.tables.write([Update(local_row(Table.NODE, b"barrier"), b"1")])

    async def cascade(self) -> None:
        """Take back all that failed, and let the cascades eat."""
        await self.storage.settle()
        worker = CascadeWorker(self.tables, self.storage.leases)
        while (await worker.work()).state is not State.IDLE:
            pass

    async def left(self) -> Left:
        await self.cascade()
        live = [
            key
            async for key, value in self.rows(Table.BLOCK_REF)
            if not BlockRef.decode(value).deleted
        ]
        return Left(
            pending=await self.count(Table.PENDING),
            cascades=await self.count(Table.CASCADE),
            pages=await self.count(Table.PAGE),
            part_lists=await self.count(Table.PART_LIST),
            parts=await self.count(Table.PART),
            live_refs=len(live),
        )

    async def nothing_left(self) -> None:
        """No trace of data: what was written and is not part of an object is gone, and the
        memory is free again."""
        assert await self.left() == Left(0, 0, 0, 0, 0, 0)
        assert self.budget.free == self.budget.total
        for name in self.block_files():
            queued = await self.tables.get(entry_key(BlockHash(bytes.fromhex(name[:64]))))
            assert queued is not None, "a file without references that nobody will delete"

    def block_files(self) -> list[str]:
        """The names of all block files."""
        return [path.name for path in (self.directory / "data").glob("??/??/*")]


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that no two blocks have in common."""
    stamp = hashlib.sha256(seed.to_bytes(8, "big")).digest()
    return b"".join(
        hashlib.sha256(stamp + at.to_bytes(8, "big")).digest() for at in range(size // 32 + 1)
    )[:size]
