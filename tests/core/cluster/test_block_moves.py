"""Blocks when the layout changes: they follow it, and are never fewer than a quorum on the way."""

from __future__ import annotations

import asyncio
import random

import pytest

from garage_lite.core.ids import BlockHash
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.table.schema import Update
from garage_lite.node import Node
from tests.core.blocks_on_disk import noise
from tests.core.cluster.block_cluster import BlockCluster, block_cluster
from tests.sim.loop import run

REFS = bytes((Table.BLOCK_REF,)), bytes((Table.BLOCK_REF + 1,))


async def sync_references(w: BlockCluster) -> None:
    """What anti-entropy does: every reference to all who hold it now; and say so."""
    rows: dict[bytes, bytes] = {}
    for one in w.cluster.up():
        for keys, values in w.node(one.number).tables.durable().scan(*REFS):
            rows.update(zip(keys, values, strict=True))

    async def take(node: Node) -> None:
        mine = [
            Update(*row)
            for row in rows.items()
            if node.layout.lookup.holds(node.key.node, row[0][1], data=True)
        ]
        await node.storage.blocks.store.replica.apply(mine, node.tables.now_ms(), None, False)
        await node.layout.synced(node.layout.history.current.number)

    for one in w.cluster.up():
        await one.run(take)


async def settle_layout(w: BlockCluster) -> None:
    """Until one version is left everywhere."""
    for _ in range(8):
        await w.cluster.spread_layout()
        await sync_references(w)
    await w.cluster.spread_layout()
    versions = {w.node(one.number).layout.lookup.versions for one in w.cluster.up()}
    assert len(versions) == 1 and len(versions.pop()) == 1


def owners(w: BlockCluster, block: BlockHash) -> list[int]:
    ids = w.node(0).layout.lookup.block_writers(block[0])
    return sorted(one.number for one in w.cluster.nodes if one.id in ids)


@pytest.mark.parametrize("seed", range(2))
def test_blocks_follow_the_layout_and_are_never_too_few(seed: int) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        async with block_cluster(4, 3, spare=1, seed=seed) as w:
            blocks = [await w.put(n % 4, noise(n, 500), n) for n in range(12)]
            await w.quiet()
            watching = asyncio.create_task(never_fewer_than(2, w, blocks))
            for chosen in ([0, 1, 2, 4], [0, 3, 4], [0, 1, 2, 3, 4]):
                await w.cluster.change_layout(0, chosen)
                await asyncio.sleep(rng.choice([0, 1, 40]))
                await settle_layout(w)
                await asyncio.sleep(rng.choice([0, 1, 40]))
            await w.cluster.until(
                lambda: all(w.holders(block) == owners(w, block) for block in blocks), 7200
            )
            assert not watching.done(), watching.exception()
            watching.cancel()
            for number, block in enumerate(blocks):
                assert await w.get(number % 5, block) == noise(number, 500)

    run(scenario(), seed)


async def never_fewer_than(least: int, w: BlockCluster, blocks: list[BlockHash]) -> None:
    while True:
        for block in blocks:
            assert len(w.holders(block)) >= least
        await asyncio.sleep(0.02)
