"""What each verb of the store costs in a cluster, in round trips of a link of 200 ms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest

from garage_lite.core.errors import NoSuchKey
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    Stamp,
    Table,
    everywhere_row,
    object_prefix,
    object_row,
)
from garage_lite.core.store.body import PutRequest
from garage_lite.core.store.completion import CompleteRequest, PartClaim
from garage_lite.core.store.copies import CopyRequest, Source
from garage_lite.core.store.deletions import DeleteKey
from garage_lite.core.store.uploads import CreateRequest, PartRequest
from garage_lite.core.table.schema import Update
from garage_lite.node import Node
from tests.core.store.world import Bytes
from tests.sim.cluster import Cluster
from tests.sim.loop import SimLoop
from tests.sim.network import Weather

T = TypeVar("T")

ROUND_TRIP = 0.2
BUCKET = Bucket(BucketId(bytes(range(32))), created_ms=0)


class Far:
    """Three nodes, each far from the others; the first is asked."""

    def __init__(self, loop: SimLoop) -> None:
        weather = Weather(delay=ROUND_TRIP / 2, jitter=0)
        self.cluster = Cluster(loop, 7, weather=weather, block_bytes=1 << 20)
        self.costs: dict[str, float] = {}

    async def start(self) -> None:
        await self.cluster.start()
        row = Update(everywhere_row(Table.BUCKET, BUCKET.id), BUCKET.encode())
        await self.cluster.nodes[0].run(lambda node: node.tables.write([row]))
        await asyncio.sleep(2)

    async def cost(self, name: str, work: Callable[[Node], Awaitable[T]], by: int = 0) -> T:
        begun = self.cluster.loop.time()
        result = await self.cluster.nodes[by].run(work)
        self.costs[name] = round((self.cluster.loop.time() - begun) / ROUND_TRIP, 1)
        await asyncio.sleep(2)
        return result


async def put(node: Node, key: bytes, size: int) -> object:
    body = Bytes(bytes(size), chunk=256 * 1024)
    return await node.objects.put(PutRequest(BUCKET, key, body))


async def get(node: Node, key: bytes) -> bytes:
    version = await node.objects.head(BUCKET.id, key)
    stream = await node.objects.read(BUCKET.id, version, 0, version.size)
    return b"".join([piece async for piece in stream])


async def scenario(loop: SimLoop) -> dict[str, float]:
    far = Far(loop)
    await far.start()
    cost = far.cost
    await cost("put 1 KB", lambda node: put(node, b"small", 1000))
    await cost("put over", lambda node: put(node, b"small", 1001))
    assert len(await cost("get 1 KB", lambda node: get(node, b"small"))) == 1001
    await cost("put 100 KB", lambda node: put(node, b"middle", 100_000))
    assert len(await cost("get 100 KB", lambda node: get(node, b"middle"), by=1)) == 100_000
    await cost("head", lambda node: node.objects.head(BUCKET.id, b"small"))
    copy = CopyRequest(Source(BUCKET.id, b"small"), BUCKET, b"copied")
    await cost("copy 1 KB", lambda node: node.copies.copy_object(copy))
    page = await cost("list", lambda node: node.listing.objects(BUCKET.id))
    assert [entry.key for entry in page.entries] == [b"copied", b"middle", b"small"]

    create = CreateRequest(BUCKET, b"parts", "GK1")
    upload, _ = await cost("create", lambda node: node.uploads.create(create))
    part = PartRequest(BUCKET, b"parts", upload, 1, Bytes(bytes(50_000)))
    stored = await cost("part", lambda node: node.uploads.put_part(part))
    complete = CompleteRequest(BUCKET, b"parts", upload, [PartClaim(1, stored.etag_text)])
    await cost("complete", lambda node: node.uploads.complete(complete))
    assert len(await cost("get parts", lambda node: get(node, b"parts"), by=2)) == 50_000

    await cost("delete", lambda node: node.objects.delete(BUCKET, b"small"))
    with pytest.raises(NoSuchKey):
        await far.cluster.nodes[1].run(lambda node: node.objects.head(BUCKET.id, b"small"))
    many = [DeleteKey(b"key%d" % number) for number in range(1000)]
    await cost("delete 1000", lambda node: node.objects.delete_many(BUCKET, many))
    await cost("delete none", lambda node: node.objects.delete(BUCKET, b"never"))
    await list_folders(far)
    for node in far.cluster.nodes:
        await node.stop()
    return far.costs


async def list_folders(far: Far) -> None:
    """A hundred common prefixes of many keys each."""
    for folder in range(100):
        await far.cluster.nodes[0].run(partial(write_folder, folder=folder))
    await asyncio.sleep(2)
    folders = [b"folder%03d/" % folder for folder in range(100)]
    page = await far.cost(
        "list folders",
        lambda node: node.listing.objects(BUCKET.id, prefix=b"folder", delimiter=b"/"),
    )
    assert page.prefixes == folders
    versions = await far.cost(
        "list versions",
        lambda node: node.listing.versions(BUCKET.id, prefix=b"folder", delimiter=b"/", limit=100),
    )
    assert versions.prefixes == folders


async def write_folder(node: Node, folder: int) -> None:
    rows = []
    for number in range(50):
        stamp = Stamp(node.tables.stamp(), 0, VersionId(number.to_bytes(16, "big")))
        version = ObjectVersion(stamp, Kind.BLOCKS, 0, floor=Floor.ALL)
        key = object_prefix(BUCKET.id, b"folder%03d/%04d" % (folder, number))
        rows.append(Update(object_row(key, stamp), version.encode()))
    await node.tables.write(rows, new=False)


EXPECTED = {
    "put 1 KB": 1.0,
    "put over": 1.0,
    "get 1 KB": 1.0,
    "put 100 KB": 2.0,
    "get 100 KB": 1.0,
    "head": 1.0,
    "copy 1 KB": 2.0,
    "list": 1.0,
    "create": 1.0,
    "part": 3.0,
    "complete": 2.0,
    "get parts": 2.0,
    "delete": 1.0,
    "delete 1000": 1.0,
    "delete none": 1.0,
    "list folders": 1.0,
    "list versions": 1.0,
}


def test_verbs_cost_few_round_trips() -> None:
    loop = SimLoop(7)
    asyncio.set_event_loop(loop)
    try:
        costs = loop.run_until_complete(scenario(loop))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert costs == EXPECTED
