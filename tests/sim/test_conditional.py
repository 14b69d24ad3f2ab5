"""Conditional verbs of the store on three simulated nodes: one winner, wherever it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from garage_lite.core.crdt import Lww
from garage_lite.core.errors import (
    AliasTaken,
    BucketAlreadyExists,
    GarageLiteError,
    NoSuchKey,
    PreconditionFailed,
)
from garage_lite.core.ids import BucketId
from garage_lite.core.model.buckets import Alias, Bucket, Versioning
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import Table, everywhere_row
from garage_lite.core.store.body import PutRequest
from garage_lite.core.store.completion import CompleteRequest, PartClaim
from garage_lite.core.store.conditions import WriteCondition
from garage_lite.core.store.copies import CopyRequest, Source
from garage_lite.core.store.deletions import DeleteKey, DeleteResult
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
VERSIONED = Bucket(BucketId(bytes(32)), 0, versioning=Lww(1, int(Versioning.ENABLED)))
ABSENT = WriteCondition(if_none_match="*")
RACERS = {"inline": (50, 100), "blocks": (12, 10_000)}


def run_on(test: Callable[[Cluster], Coroutine[Any, Any, None]], *, seed: int = 7) -> None:
    loop = SimLoop(seed)

    async def main() -> None:
        weather = Weather(delay=ROUND_TRIP / 2, jitter=0)
        cluster = Cluster(loop, seed, weather=weather, block_bytes=1 << 20)
        await cluster.start()
        rows = [
            Update(everywhere_row(Table.BUCKET, bucket.id), bucket.encode())
            for bucket in (BUCKET, VERSIONED)
        ]
        await cluster.nodes[0].run(lambda node: node.tables.write(rows))
        await asyncio.sleep(2)
        await test(cluster)
        cluster.thaw()
        for node in cluster.nodes:
            await node.stop()

    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def at(cluster: Cluster, number: int, work: Callable[[Node], Awaitable[T]]) -> T:
    return await cluster.nodes[number].run(work)


async def put(
    cluster: Cluster,
    number: int,
    content: bytes,
    condition: WriteCondition | None = ABSENT,
    bucket: Bucket = BUCKET,
) -> ObjectVersion:
    request = PutRequest(bucket, b"key", Bytes(content, chunk=256 * 1024), guard=condition)
    return await at(cluster, number, lambda node: node.objects.put(request))


async def get(cluster: Cluster, number: int, bucket: Bucket = BUCKET) -> bytes:
    async def read(node: Node) -> bytes:
        version = await node.objects.head(bucket.id, b"key")
        stream = await node.objects.read(bucket.id, version, 0, version.size)
        return b"".join([piece async for piece in stream])

    return await at(cluster, number, read)


@pytest.mark.parametrize("size", RACERS)
@pytest.mark.parametrize("bucket", [BUCKET, VERSIONED], ids=["off", "versioned"])
def test_of_many_racers_one_wins_and_is_read_everywhere(bucket: Bucket, size: str) -> None:
    async def test(cluster: Cluster) -> None:
        racers, repeat = RACERS[size]
        contents = [b"%03d" % number * repeat for number in range(racers)]
        results = await asyncio.gather(
            *(
                put(cluster, number % 3, content, bucket=bucket)
                for number, content in enumerate(contents)
            ),
            return_exceptions=True,
        )
        won = [n for n, result in enumerate(results) if isinstance(result, ObjectVersion)]
        assert len(won) == 1
        assert sum(isinstance(one, PreconditionFailed) for one in results) == racers - 1
        for number in range(3):
            assert await get(cluster, number, bucket) == contents[won[0]]

    run_on(test)


def test_what_they_cost() -> None:
    async def test(cluster: Cluster) -> None:
        async def cost(work: Awaitable[Any]) -> float:
            begun = cluster.loop.time()
            await asyncio.gather(work, return_exceptions=True)
            spent = (cluster.loop.time() - begun) / ROUND_TRIP
            await asyncio.sleep(2)
            return round(spent, 1)

        etag = WriteCondition(if_match="*")
        assert await cost(put(cluster, 0, b"1")) == 2.0
        assert await cost(put(cluster, 1, b"2", etag)) == 2.0

    run_on(test)


def test_compare_and_set_loses_no_update() -> None:
    async def test(cluster: Cluster) -> None:
        await put(cluster, 0, b"0")

        async def count(number: int) -> None:
            while True:
                version = await at(
                    cluster, number, lambda node: node.objects.head(BUCKET.id, b"key")
                )
                now = int(await get(cluster, number))
                condition = WriteCondition(if_match=version.etag_text)
                try:
                    await put(cluster, number, b"%d" % (now + 1), condition)
                except PreconditionFailed:
                    continue
                return

        await asyncio.gather(*(count(number % 3) for number in range(9)))
        assert await get(cluster, 1) == b"9"

    run_on(test)


def test_racers_beside_blind_writes_and_deletes() -> None:
    async def test(cluster: Cluster) -> None:
        async def delete(number: int) -> DeleteResult:
            return await at(cluster, number, lambda node: node.objects.delete(BUCKET, b"key"))

        await asyncio.gather(
            *(put(cluster, number % 3, b"if%d" % number) for number in range(12)),
            *(put(cluster, number, b"blind%d" % number, None) for number in range(3)),
            delete(1),
            return_exceptions=True,
        )
        await asyncio.sleep(5)
        seen = set()
        for number in range(3):
            try:
                seen.add(await get(cluster, number))
            except NoSuchKey:
                seen.add(b"")
        assert len(seen) == 1

    run_on(test)


def test_one_frozen_node_delays_nothing_beyond_a_deadline() -> None:
    async def test(cluster: Cluster) -> None:
        cluster.freeze(2)
        begun = cluster.loop.time()
        results = await asyncio.gather(
            *(put(cluster, number % 2, b"%d" % number) for number in range(20)),
            return_exceptions=True,
        )
        assert cluster.loop.time() - begun < 10
        assert sum(isinstance(one, ObjectVersion) for one in results) == 1
        assert sum(isinstance(one, PreconditionFailed) for one in results) == 19

    run_on(test)


def test_conditional_deletes_complete_and_copy() -> None:
    async def test(cluster: Cluster) -> None:
        first = await put(cluster, 0, b"one")
        wrong = DeleteKey(b"key", None, WriteCondition(if_match="0" * 32))
        right = DeleteKey(b"key", None, WriteCondition(if_match=first.etag_text))

        async def delete(key: DeleteKey) -> Any:
            return (await at(cluster, 1, lambda n: n.objects.delete_many(BUCKET, [key])))[0]

        assert isinstance(await delete(wrong), PreconditionFailed)
        assert await delete(right) == DeleteResult()
        assert isinstance(await delete(right), NoSuchKey)
        with pytest.raises(NoSuchKey):
            await get(cluster, 2)

        create = CreateRequest(BUCKET, b"key", "GK1")
        upload, _ = await at(cluster, 0, lambda node: node.uploads.create(create))
        part = PartRequest(BUCKET, b"key", upload, 1, Bytes(b"part" * 5000))
        stored = await at(cluster, 1, lambda node: node.uploads.put_part(part))
        claims = [PartClaim(1, stored.etag_text)]
        complete = CompleteRequest(BUCKET, b"key", upload, claims, guard=ABSENT)
        done = await at(cluster, 2, lambda node: node.uploads.complete(complete))
        assert await get(cluster, 0) == b"part" * 5000
        again = await at(cluster, 1, lambda node: node.uploads.complete(complete))
        assert again == done

        copy = CopyRequest(Source(BUCKET.id, b"key"), BUCKET, b"key", (), guard=ABSENT)
        with pytest.raises(GarageLiteError) as refused:
            await at(cluster, 1, lambda node: node.copies.copy_object(copy))
        assert isinstance(refused.value, PreconditionFailed)

    run_on(test)


def test_of_many_creations_of_one_bucket_name_one_succeeds() -> None:
    async def test(cluster: Cluster) -> None:
        async def create(number: int) -> BucketId:
            return await at(
                cluster, number % 3, lambda node: node.buckets.create(global_alias="mine")
            )

        results = await asyncio.gather(*(create(n) for n in range(12)), return_exceptions=True)
        won = [result for result in results if isinstance(result, bytes)]
        assert len(won) == 1
        assert sum(isinstance(one, BucketAlreadyExists) for one in results) == 11
        for number in range(3):
            row = await at(
                cluster, number, lambda n: n.tables.get(everywhere_row(Table.ALIAS, b"mine"))
            )
            assert row is not None
            assert Alias.decode(row).target.value == won[0]

        bucket = BucketId(won[0])
        await at(cluster, 1, lambda node: node.buckets.add_alias(bucket, "other"))
        with pytest.raises(AliasTaken):
            other = await at(cluster, 2, lambda node: node.buckets.create(global_alias="second"))
            await at(cluster, 0, lambda node: node.buckets.add_alias(other, "mine"))
        await at(cluster, 2, lambda node: node.buckets.delete(bucket))
        again = await at(cluster, 0, lambda node: node.buckets.create(global_alias="mine"))
        assert again != bucket

    run_on(test)
