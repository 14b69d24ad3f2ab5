"""Rebalance and repair on a simulated node."""

from __future__ import annotations

import errno
import random

import pytest

from garage_lite.core.errors import StorageFailed
from garage_lite.core.workers.rebalance import BlockRepairWorker, RebalanceWorker, walk
from garage_lite.core.workers.resync import failed_entries
from garage_lite.core.workers.runner import State
from tests.core.blocks_on_disk import named, noise
from tests.core.workers.block_node import Node
from tests.sim.files import SimFiles
from tests.sim.loop import run

FILES = 30
ONE = {"/one": 1}
TWO = {"/one": 1, "/two": 2}


async def filled_then_grown() -> Node:
    node = await Node.open(directories=ONE)
    for number in range(FILES):
        await node.put(noise(number, 40), number)
    await node.close()
    return await Node.open(node.disk, TWO)


async def finish(worker: RebalanceWorker | BlockRepairWorker) -> None:
    while (await worker.work()).state is not State.DONE:
        pass


async def away_from_home(node: Node) -> int:
    files = node.store.files
    return len(
        [copy async for copy in walk(node.store) if files.home(copy.name.block) != copy.directory]
    )


def test_every_block_comes_home() -> None:
    async def scenario() -> None:
        node = await filled_then_grown()
        away = await away_from_home(node)
        assert away > FILES / 3
        worker = RebalanceWorker(node.store, node.variables)
        await finish(worker)
        assert (worker.moved, worker.stayed) == (away, 0)
        assert await away_from_home(node) == 0
        for number in range(FILES):
            assert await node.store.files.get(named(noise(number, 40))) == noise(number, 40)
        await node.close()
        again = await Node.open(node.disk, TWO)
        assert await away_from_home(again) == 0
        assert "0 stay" in worker.progress().freeform[0]

    run(scenario())


def test_what_cannot_move_stays_and_is_found() -> None:
    async def scenario() -> None:
        node = await filled_then_grown()
        away = await away_from_home(node)
        node.disk.fail_if(
            lambda call, path: errno.EIO if call == "write" and path.startswith("/two") else 0
        )
        worker = RebalanceWorker(node.store, node.variables)
        await finish(worker)
        node.disk.fail_if(None)
        assert (worker.moved, worker.stayed) == (0, away)
        for number in range(FILES):
            assert await node.store.files.get(named(noise(number, 40))) == noise(number, 40)

    run(scenario())


def test_a_walk_that_breaks_off_settles_nothing() -> None:
    async def scenario() -> None:
        node = await filled_then_grown()
        node.disk.fail_nth(4, errno.EIO, only="names")
        worker = RebalanceWorker(node.store, node.variables)
        with pytest.raises(StorageFailed):
            await finish(worker)
        node.disk.fail_if(None)
        await finish(worker)
        assert worker.stayed

    run(scenario())


def test_a_power_cut_while_moving_loses_nothing() -> None:
    async def before() -> tuple[SimFiles, int]:
        node = await filled_then_grown()
        start = len(node.disk.journal)
        await finish(RebalanceWorker(node.store, node.variables))
        return node.disk, start

    async def after(disk: SimFiles) -> None:
        node = await Node.open(disk, TWO)
        for number in range(FILES):
            assert await node.store.files.get(named(noise(number, 40))) == noise(number, 40)
        await finish(RebalanceWorker(node.store, node.variables))
        assert await away_from_home(node) == 0
        assert len([copy async for copy in walk(node.store)]) == FILES
        await node.close()

    disk, start = run(before(), 1)
    chance = random.Random(5)
    for point in range(start, len(disk.journal), 23):
        run(after(disk.crash(chance, chance.choice([0.0, 0.5, 1.0]), point)), point)


def test_repair_looks_at_all_that_is_referenced_or_there() -> None:
    async def scenario() -> None:
        node = await Node.open()
        kept = await node.put(b"kept", 1)
        await node.refer(kept, 2)
        lost = await node.put(b"lost", 3)
        node.peer[lost] = b"lost"
        await node.store.files.delete(lost)
        orphan = await node.orphan(b"orphan")
        worker = BlockRepairWorker(node.store)
        await finish(worker)
        assert worker.queued == 3
        assert worker.progress().freeform == ["3 blocks queued"]
        await node.settle()
        files = node.store.files
        assert files.has(kept) and files.has(lost) and not files.has(orphan)
        assert node.entries() == 0

    run(scenario())


def test_repair_leaves_what_waits_and_tries_again_what_failed() -> None:
    async def scenario() -> None:
        node = await Node.open()
        dying = await node.put(b"dying", 1)
        await node.forget(dying, 1)
        missing = named(b"missing")
        await node.refer(missing, 2)
        await node.store.look_again(missing)
        await node.drain()
        assert len(await failed_entries(node.store)) == 1
        node.peer[missing] = b"missing"
        worker = BlockRepairWorker(node.store)
        await finish(worker)
        assert worker.queued == 1
        await node.drain()
        assert node.store.files.has(missing) and node.store.files.has(dying)
        await node.settle()
        assert not node.store.files.has(dying)

    run(scenario())
