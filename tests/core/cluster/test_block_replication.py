"""Blocks on several nodes: what a put promises, whom a read asks, what slow and bad nodes do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from garage_lite.core.cluster.block_service import PUT, Reference
from garage_lite.core.errors import BlockMissing, NodeError
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.rowkeys import Table, everywhere_row
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.store.body import PutRequest
from garage_lite.core.table.schema import Update
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.node import Node
from tests.core.blocks_on_disk import named, noise
from tests.core.cluster.block_cluster import BUCKET, MIB, block_cluster, rows_of
from tests.core.store.world import Bytes
from tests.sim.loop import run

A = noise(1, 100_000)
TEXT = b"what compresses well and is sent so\n" * 3000


def test_a_block_is_at_a_quorum_when_it_is_acknowledged_and_at_all_soon_after() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            for number, plain in enumerate((A, TEXT)):
                block = await w.put(number, plain, number)
                durable = [n for n in range(3) if w.facts(n, block).live and w.has(n, block)]
                assert len(durable) >= 2
                await w.quiet()
                assert w.holders(block) == [0, 1, 2]
                for reader in range(3):
                    assert await w.get(reader, block) == plain

    for seed in range(3):
        run(scenario(), seed)


def test_a_put_takes_one_round_trip_and_a_read_of_what_is_here_none() -> None:
    async def scenario() -> None:
        async with block_cluster(delay=0.1) as w:
            start = w.loop.time()
            block = await w.put(0, A, 1)
            assert 0.2 <= w.loop.time() - start < 0.23
            start = w.loop.time()
            assert await w.get(0, block) == A
            assert w.loop.time() - start < 0.01

    run(scenario())


def test_an_object_of_one_block_takes_two_round_trips_and_a_read_of_it_one() -> None:
    async def scenario() -> None:
        async with block_cluster(delay=0.1) as w:
            bucket = Bucket(BUCKET, created_ms=0)
            row = Update(everywhere_row(Table.BUCKET, BUCKET), bucket.encode())
            await w.cluster.nodes[0].run(lambda node: node.tables.write([row]))
            start = w.loop.time()
            version = await w.cluster.nodes[0].run(
                lambda node: node.objects.put(PutRequest(bucket, b"key", Bytes(A), (), None, None))
            )
            assert w.loop.time() - start < 0.4 + 0.05

            async def read(node: Node) -> bytes:
                version = await node.objects.head(BUCKET, b"key", None)
                stream = await node.objects.read(BUCKET, version, 0, version.size)
                return b"".join([piece async for piece in stream])

            assert version.size == len(A)
            await w.quiet()
            start = w.loop.time()
            assert await w.cluster.nodes[1].run(read) == A
            assert w.loop.time() - start < 0.2 + 0.03

    run(scenario())


def test_a_dead_node_changes_nothing_and_two_are_too_many() -> None:
    async def scenario() -> None:
        async with block_cluster(delay=0.05) as w:
            w.cluster.nodes[2].kill(power=True)
            start = w.loop.time()
            block = await w.put(0, A, 1)
            assert w.loop.time() - start < 0.13
            assert await w.get(1, block) == A
            w.cluster.nodes[1].kill(power=False)
            await w.cluster.until(lambda: not w.node(0).cluster.peers.connected())
            start = w.loop.time()
            with pytest.raises(NodeError):
                await w.put(0, TEXT, 2)
            assert w.loop.time() - start < 5
            assert await w.get(0, block) == A

    run(scenario())


def test_a_frozen_node_makes_no_put_slower_and_holds_no_memory() -> None:
    async def scenario() -> None:
        async with block_cluster(delay=0.01) as w:
            w.cluster.freeze(2)
            stragglers = w.node(0).storage.blocks.sender.stragglers
            for number in range(12):
                start = w.loop.time()
                await w.put(0, noise(number, MIB), number)
                assert w.loop.time() - start < 0.2
                assert stragglers.held <= stragglers.total
            await w.cluster.until(lambda: not stragglers.held)

    run(scenario())


def test_a_node_that_was_given_up_is_told_and_fetches_the_block_itself() -> None:
    async def scenario() -> None:
        async with block_cluster(delay=0.01) as w:
            w.cluster.freeze(2)
            blocks = [await w.put(0, noise(number, MIB), number) for number in range(8)]
            await asyncio.sleep(2)
            w.cluster.thaw()
            await w.cluster.until(lambda: all(w.has(2, block) for block in blocks), 300)

    run(scenario())


@pytest.mark.parametrize(
    ("lie", "compressed", "size"),
    [
        (A + b"!", False, len(A) + 1),
        (A[:-1], False, len(A)),
        (A[:-1] + b"x", False, len(A)),
        (b"no frame", True, len(A)),
        (b"", False, 0),
    ],
)
def test_a_lying_sender_stores_nothing(lie: bytes, compressed: bool, size: int) -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            block = named(A)
            reference = rows_of(block, len(A), 1)[1]
            assert isinstance(reference, Update)
            references = [[reference.key, reference.value, None]]

            async def content() -> AsyncIterator[bytes]:
                yield lie

            async def send(node: Node) -> None:
                payload = [1, block, compressed, size, len(lie), references, False]
                other = w.node(1).key.node
                await node.cluster.call(other, PUT, payload, stream=content())

            with pytest.raises(PeerFailed):
                await w.cluster.nodes[0].run(send)
            assert not w.has(1, block)
            assert not w.facts(1, block).live

    run(scenario())


@pytest.mark.parametrize(
    "payload",
    [
        [1, named(A), False, 1 << 27, 1 << 27, [], False],
        [1, named(A)[:-1], False, 1, 1, [], False],
        [1, named(A), False, 1, 1, [[b"\x10" + bytes(49), b"", None]], False],
        [1, named(A), False, 1, 1, [[b"\x20" + bytes(49), BlockRef(BUCKET).encode(), None]], False],
        [1, named(A), False, 1, 1, [[rows_of(named(A), 1, 1)[1].key, b"?", None]], False],
        [0, named(A), False, 1, 1, [], False],
        [1, 2, 3],
        None,
    ],
)
def test_what_is_no_block_is_refused(payload: Any) -> None:
    async def scenario() -> None:
        async with block_cluster() as w:

            async def content() -> AsyncIterator[bytes]:
                yield A

            async def send(node: Node) -> None:
                other = w.node(1).key.node
                await node.cluster.call(other, PUT, payload, stream=content())

            with pytest.raises(PeerFailed):
                await w.cluster.nodes[0].run(send)
            assert not w.has(1, named(A))

    run(scenario())


def test_the_local_file_then_the_nearest_then_whoever_has_it() -> None:
    async def scenario() -> None:
        async with block_cluster(delay=0.05) as w:
            block = await w.put(0, A, 1)
            await w.quiet()
            for broken in (0, 1):
                w.rot(broken, block)
                assert await w.get(0, block) == A
                assert await w.get(broken, block) == A
            await w.cluster.until(lambda: w.holders(block) == [0, 1, 2], 300)
            assert [w.node(n).storage.blocks.store.files.counts.corrupted for n in range(3)] == [
                1,
                1,
                0,
            ]

    run(scenario())


def test_a_read_does_not_wait_for_a_frozen_node() -> None:
    async def scenario(frozen: int) -> None:
        async with block_cluster(spare=1, delay=0.02) as w:
            block = await w.put(0, A, 1)
            await w.quiet()
            w.cluster.freeze(frozen)
            start = w.loop.time()
            assert await w.get(3, block) == A
            assert w.loop.time() - start < 0.5
            start = w.loop.time()
            assert await w.get(3, block) == A
            assert w.loop.time() - start < 0.1, "the slow node is asked last the second time"

    for frozen in range(3):
        run(scenario(frozen))


def test_a_block_that_nobody_has_is_missing_and_says_so() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            with pytest.raises(BlockMissing):
                await w.get(0, named(A))
            w.cluster.isolate([0])
            await w.cluster.until(lambda: not w.node(0).cluster.peers.connected())
            with pytest.raises(NodeError, match="can't be read now"):
                await w.get(0, named(A))

    run(scenario())


def test_a_reference_alone_counts_only_where_the_file_is() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            assert await w.refer(0, A, 1) == [named(A)], "nobody has the block"
            block = await w.put(0, A, 2)
            await w.quiet()
            assert await w.refer(1, A, 3) == []
            files = w.node(2).storage.blocks.store.files
            await w.cluster.nodes[2].run(lambda node: files.delete(block))
            assert await w.refer(1, A, 4) == [], "two of three have it"
            files = w.node(1).storage.blocks.store.files
            await w.cluster.nodes[1].run(lambda node: files.delete(block))
            assert await w.refer(1, A, 5) == [block]
            await w.cluster.until(lambda: w.holders(block) == [0, 1, 2], 300)

    run(scenario())


def test_a_reference_meets_a_deletion_and_is_kept_or_refused() -> None:
    """Dedup while the last reference goes: acknowledged references have their file ever after."""

    async def scenario(delay: float) -> bool:
        async with block_cluster(delay=0.002) as w:
            block = await w.put(0, A, 1)
            await w.quiet()
            await w.forget(0, block, 1)
            await asyncio.sleep(600 + delay)
            missing = await w.refer(1, A, 2)
            if missing:
                await w.put(1, A, 2)
            assert len(w.holders(block)) >= 2
            await asyncio.sleep(650)
            assert w.holders(block) == [0, 1, 2]
            assert await w.get(2, block) == A
            return bool(missing)

    outcomes = {run(scenario(delay), seed) for seed, delay in enumerate((0, 3, 8))}
    assert outcomes == {True, False}


def test_a_reference_waits_for_the_end_of_a_deletion() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            block = await w.put(0, A, 1)
            await w.quiet()
            row = rows_of(block, len(A), 2)[1]
            assert isinstance(row, Update)

            async def work(node: Node) -> None:
                blocks = node.storage.blocks
                async with blocks.store.locks.hold(block):
                    asked = asyncio.create_task(blocks.service.refer([Reference(*row)]))
                    await asyncio.sleep(0.1)
                    assert not asked.done()
                    await blocks.store.files.delete(block)
                assert await asked == [False]

            await w.cluster.nodes[1].run(work)

    run(scenario())


def test_nothing_is_left_of_what_was_forgotten() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            blocks = [await w.put(n % 3, noise(n), n) for n in range(6)]
            for number, block in enumerate(blocks):
                await w.forget((number + 1) % 3, block, number)
            await asyncio.sleep(660)
            assert [w.holders(block) for block in blocks] == [[]] * 6

    run(scenario())


def test_a_put_without_quorum_fails_at_once_where_nodes_refuse() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            for number in (1, 2):
                files = w.cluster.nodes[number].files
                files.fail_if(lambda call, path: 28 if "data" in path and call == "open" else 0)
            with pytest.raises(NodeError, match="disk full"):
                await w.put(0, A, 1)

    run(scenario())
