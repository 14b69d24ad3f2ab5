"""A whole node below its doors on a simulated disk, and the power goes, again and again.

Clients put, overwrite, copy, complete and delete; at a random moment the run ends and the disk is
what a power cut may leave of it. The next node on that disk must hold, for each key, what was
last acknowledged or something that was on its way; whole, listed as it is, and in the end without
anything left over that nobody refers to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from garage_lite.config import Config, from_table
from garage_lite.config.secret_files import Flags
from garage_lite.core.block.resync import entry_key
from garage_lite.core.cluster.identity import load_or_create_node_key
from garage_lite.core.errors import NoSuchKey
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.rowkeys import Table, block_refs_prefix
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.store.body import PutRequest
from garage_lite.core.store.completion import CompleteRequest, PartClaim
from garage_lite.core.store.copies import CopyRequest, Source
from garage_lite.core.store.uploads import CreateRequest, PartRequest
from garage_lite.core.workers.rebalance import walk
from garage_lite.node import Node, World, running_node
from tests.core.store.world import Bytes
from tests.sim.files import SimFiles
from tests.sim.loop import SimClock, SimEntropy, run

SEEDS = int(os.environ.get("POWER_CUT_SEEDS", "30"))
CUTS = 4
CLIENTS = 3
KEYS_EACH = 3
LOG_FILE_BYTES = 128 * 1024
SIZES = (0, 1, 700, 3072, 3073, 9000, 30_000)


def config() -> Config:
    table = {
        "metadata_dir": "/node/meta",
        "data_dir": "/node/data",
        "replication_factor": 1,
        "block_size": 4096,
        "disable_scrub": True,
        "rpc_bind_addr": "127.0.0.1:3901",
        "s3_api": {"s3_region": "garage"},
    }
    return from_table(table, None, Flags())


@dataclass
class Expected:
    """What a key may hold: the acknowledged content, or any that was begun after it."""

    acked: bytes | None = None
    begun: list[bytes | None] = field(default_factory=list)

    def may_be(self, content: bytes | None) -> bool:
        return content == self.acked or content in self.begun

    @contextlib.asynccontextmanager
    async def becoming(self, content: bytes | None) -> AsyncIterator[None]:
        self.begun.append(content)
        yield
        self.acked, self.begun = content, []


class Client:
    """One client with keys of its own, doing one thing after another."""

    def __init__(self, node: Node, bucket: Bucket, keys: dict[bytes, Expected], seed: int) -> None:
        self._node = node
        self._bucket = bucket
        self._keys = keys
        self._random = random.Random(seed)

    async def work(self) -> None:
        while True:
            key = self._random.choice(list(self._keys))
            action = self._random.choices(
                (self._put, self._complete, self._copy, self._delete), (5, 2, 2, 2)
            )[0]
            await action(key)

    def _content(self) -> bytes:
        return self._random.randbytes(self._random.choice(SIZES))

    async def _put(self, key: bytes) -> None:
        content = self._content()
        async with self._keys[key].becoming(content):
            await self._node.objects.put(PutRequest(self._bucket, key, Bytes(content)))

    async def _complete(self, key: bytes) -> None:
        content = self._content() or b"parts are not empty"
        uploads = self._node.uploads
        upload_id, _ = await uploads.create(CreateRequest(self._bucket, key, "GK"))
        part = await uploads.put_part(PartRequest(self._bucket, key, upload_id, 1, Bytes(content)))
        if self._random.random() < 0.2:
            return await uploads.abort(self._bucket.id, key, upload_id)
        async with self._keys[key].becoming(content):
            claim = PartClaim(1, part.etag_text)
            await uploads.complete(CompleteRequest(self._bucket, key, upload_id, [claim]))

    async def _copy(self, key: bytes) -> None:
        source = self._random.choice([name for name in self._keys if name != key])
        content = self._keys[source].acked
        if content is not None:
            async with self._keys[key].becoming(content):
                request = CopyRequest(Source(self._bucket.id, source), self._bucket, key)
                await self._node.copies.copy_object(request)

    async def _delete(self, key: bytes) -> None:
        async with self._keys[key].becoming(None):
            await self._node.objects.delete(self._bucket, key)


async def content_of(node: Node, bucket: Bucket, key: bytes) -> bytes | None:
    try:
        version = await node.objects.head(bucket.id, key)
    except NoSuchKey:
        return None
    stream = await node.objects.read(bucket.id, version, 0, version.size)
    return b"".join([piece async for piece in stream])


async def check(node: Node, bucket: Bucket, keys: dict[bytes, Expected]) -> None:
    """Every key holds what it may; what it holds is acknowledged from now on."""
    listed = {entry.key for entry in (await node.listing.objects(bucket.id)).entries}
    for key, expected in keys.items():
        content = await content_of(node, bucket, key)
        assert expected.may_be(content), f"{key!r} holds something else"
        assert (key in listed) == (content is not None), f"{key!r} is listed wrongly"
        expected.acked, expected.begun = content, []


async def check_nothing_left_over(node: Node) -> None:
    """Nothing pending, no cascade; every file is referred to or queued to go."""
    tables = node.tables
    for table in (Table.PENDING, Table.CASCADE):
        async for keys, _ in tables.scan(bytes((table,)), bytes((table + 1,))):
            raise AssertionError(f"{len(keys)} rows of {table.name} are left")
    store = node.background.store
    async for copy in walk(store):
        refs = await tables.with_prefix(block_refs_prefix(copy.name.block))
        live = any(not BlockRef.decode(value).deleted for _, value in refs)
        queued = await tables.get(entry_key(copy.name.block)) is not None
        assert live or queued, f"block {copy.name.block.hex()} belongs to nobody"


async def one_run(files: SimFiles, keys: dict[bytes, Expected], seed: int) -> SimFiles:
    """Check what the last cut left, work on, and cut the power; the disk after it."""
    chance = random.Random(seed)
    world = World(files, SimClock(seed % 7 * 1_000_000_000), SimEntropy(seed))
    key = load_or_create_node_key(files, "/node/meta", world.entropy)
    async with running_node(config(), key, world, LOG_FILE_BYTES) as node:
        if not node.directory.buckets():
            await node.buckets.create(global_alias="photos")
        bucket = node.directory.resolve("photos")
        await check(node, bucket, keys)
        await asyncio.sleep(8)  # longer than the cascade worker waits for a reader
        await check_nothing_left_over(node)
        names = list(keys)
        shares = [names[at::CLIENTS] for at in range(CLIENTS)]
        clients = [
            asyncio.create_task(
                Client(node, bucket, {name: keys[name] for name in share}, seed + at).work()
            )
            for at, share in enumerate(shares)
        ]
        await asyncio.sleep(chance.uniform(0.0005, 0.2))
        failed = [task.exception() for task in clients if task.done()]
        assert not failed, failed
        left = files.crash(chance)
        # What is done from here on is done to a disk that nobody will look at again.
        before = {name: (state.acked, list(state.begun)) for name, state in keys.items()}
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    for name, (acked, begun) in before.items():
        keys[name].acked, keys[name].begun = acked, begun
    return left


@pytest.mark.parametrize("seed", range(SEEDS))
def test_power_cuts_lose_nothing_that_was_acknowledged(seed: int) -> None:
    keys = {b"key %d" % number: Expected() for number in range(CLIENTS * KEYS_EACH)}
    files = SimFiles()
    for cut in range(CUTS):
        files = run(one_run(files, keys, seed * 1000 + cut), seed * 1000 + cut)
