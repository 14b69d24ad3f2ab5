"""Repairs among several nodes: what a quorum knows counts, not what one replica happens to hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from garage_lite.core.ids import VersionId
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import Stamp, object_prefix, object_row
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.table.schema import Change, Update
from garage_lite.core.workers.repair import RepairWorker, reads_meet_writes
from garage_lite.core.workers.repair_rows import BlockRefRepair, VersionRepair
from garage_lite.core.workers.runner import State, WorkerStatus
from garage_lite.node import Node
from tests.core.blocks_on_disk import named, noise
from tests.core.cluster.block_cluster import BUCKET, BlockCluster, block_cluster, data_id, rows_of
from tests.sim.loop import run

BLOCK = named(noise(1, 100))
ROWS = rows_of(BLOCK, 100, 1)


def version_row() -> Update:
    """The object that stands on the data of ROWS."""
    stamp = Stamp(1, 0, VersionId(data_id(1)))
    version = ObjectVersion(stamp, Kind.BLOCKS, 0, 100, floor=Floor.ALL)
    return Update(object_row(object_prefix(BUCKET, b"film"), stamp), version.encode())


async def plant(w: BlockCluster, numbers: Sequence[int], rows: Sequence[Change]) -> None:
    """Put rows on some replicas alone."""

    async def work(node: Node) -> None:
        store = node.storage.blocks.store
        await store.replica.apply(rows, store.tables.now_ms(), None, False)

    for number in numbers:
        await w.cluster.nodes[number].run(work)


async def ended(node: Node) -> WorkerStatus:
    """What became of the worker that was added last."""
    async with asyncio.timeout(3000):
        while (  # noqa: ASYNC110 - its end is no event
            status := node.background.runner.status()[-1]
        ).state is not State.DONE:
            await asyncio.sleep(20)
    return status


async def repair(w: BlockCluster, number: int, kind: type[VersionRepair | BlockRefRepair]) -> int:
    """Run a repair on one node to its end; how much it mended."""

    async def work(node: Node) -> int:
        assert reads_meet_writes(node.layout.lookup)
        worker = RepairWorker(kind(node.tables), node.tables)
        node.background.runner.add(worker)
        assert (await ended(node)).errors == 0
        return worker.mended

    return await w.cluster.nodes[number].run(work)


def holds(w: BlockCluster, number: int, key: bytes) -> bytes | None:
    return w.node(number).tables.durable().get(key) or None


def is_live(w: BlockCluster, number: int, key: bytes) -> bool:
    row = holds(w, number, key)
    return row is not None and not BlockRef.decode(row).deleted


def test_data_whose_object_another_replica_knows_stays() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            await plant(w, [0, 1, 2], ROWS)
            await plant(w, [0, 1], [version_row()])
            assert await repair(w, 2, VersionRepair) == 0
            assert all(is_live(w, number, ROWS[1].key) for number in range(3))
            assert holds(w, 2, ROWS[0].key)

    run(scenario())


def test_data_that_no_replica_knows_an_object_of_goes_from_all() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            await plant(w, [1, 2], ROWS)
            await plant(w, [0], ROWS[1:])
            assert await repair(w, 2, VersionRepair) == 1
            await w.cluster.until(
                lambda: (
                    not any(
                        holds(w, n, ROWS[0].key) or is_live(w, n, ROWS[1].key) for n in range(3)
                    )
                ),
                300,
            )

    run(scenario())


def test_a_reference_is_judged_by_the_pages_of_a_quorum() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            other = rows_of(named(noise(2, 100)), 100, 2)
            await plant(w, [0, 1], ROWS[:1])
            await plant(w, [0, 1, 2], [ROWS[1], other[1]])
            assert await repair(w, 2, BlockRefRepair) == 1
            assert all(is_live(w, n, ROWS[1].key) for n in range(3))
            await w.cluster.until(lambda: not any(is_live(w, n, other[1].key) for n in range(3)))

    run(scenario())


def test_without_a_quorum_nothing_is_taken_away() -> None:
    async def scenario() -> None:
        async with block_cluster() as w:
            await plant(w, [2], ROWS)

            async def work(node: Node) -> RepairWorker:
                worker = RepairWorker(VersionRepair(node.tables), node.tables)
                node.background.runner.add(worker)
                return worker

            worker = await w.cluster.nodes[2].run(work)
            w.cluster.isolate([2])
            await asyncio.sleep(900)
            assert w.node(2).background.runner.status()[-1].errors > 2
            assert worker.mended == 0 and is_live(w, 2, ROWS[1].key)
            await w.cluster.mend()
            await ended(w.node(2))
            assert worker.mended == 1

    run(scenario())
