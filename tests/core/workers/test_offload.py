"""The resync worker of a node that does not own its blocks any more, or may have lost rows."""

from __future__ import annotations

import asyncio

from garage_lite.core.block.resync import Standing
from garage_lite.core.cluster.block_offload import Owners
from garage_lite.core.workers.resync import failed_entries
from garage_lite.core.workers.runner import State
from garage_lite.core.workers.scrub import ScrubWorker
from tests.core.blocks_on_disk import noise
from tests.core.workers.block_node import Node
from tests.sim.loop import run

A = noise(1)


def test_a_block_that_others_own_stays_until_a_quorum_of_them_has_it() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        node.owned = False
        node.owners = Owners([Standing.HELD, Standing.NEEDED, Standing.STRANGER], 2, 2)
        await node.store.look_again(block)
        await node.settle(30)
        assert node.store.files.has(block)
        assert len(await failed_entries(node.store)) == 1
        node.owners = Owners([Standing.HELD, Standing.HELD, Standing.STRANGER], 2, 2)
        with node.store.leases.hold(block):
            await node.settle(60)
            assert node.store.files.has(block)
        await node.settle(10)
        assert not node.store.files.has(block)
        assert node.entries() == 0

    run(scenario())


def test_a_block_that_its_owners_do_not_want_goes_after_the_delay() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        node.owned = False
        node.owners = Owners([Standing.UNWANTED, Standing.SPARE, Standing.STRANGER], 2, 2)
        await node.store.look_again(block)
        await node.drain()
        await node.settle(8)
        assert node.store.files.has(block)
        await node.settle(4)
        assert not node.store.files.has(block)
        assert node.entries() == 0

    run(scenario())


def test_a_block_that_comes_back_while_it_is_offered_stays() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        node.owned = False
        node.owners = Owners([Standing.HELD, Standing.HELD], 2, 1)
        await node.store.look_again(block)
        offering = asyncio.create_task(node.drain())
        await asyncio.sleep(0.008)
        node.owned = True
        await offering
        await node.settle(3)
        assert node.store.files.has(block)
        assert node.entries() == 0

    for seed in range(5):
        run(scenario(), seed)


def test_a_node_that_may_have_lost_references_deletes_nothing() -> None:
    async def scenario() -> None:
        node = await Node.open()
        node.complete = False
        block = await node.put(A, 1)
        await node.forget(block, 1)
        await node.settle(60)
        assert node.store.files.has(block)
        node.complete = True
        await node.settle(30)
        assert not node.store.files.has(block)

    run(scenario())


def test_the_scrub_finds_a_file_that_belongs_to_others() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        scrub = ScrubWorker(node.store, node.state, node.variables)

        async def run_once() -> None:
            await scrub.command("start")
            while (await scrub.work()).state is not State.IDLE:
                pass

        await run_once()
        assert node.entries() == 0
        node.owned = False
        node.owners = Owners([Standing.HELD, Standing.HELD], 2, 1)
        await run_once()
        assert node.entries() == 2
        await node.drain()
        assert not node.store.files.has(block)

    run(scenario())
