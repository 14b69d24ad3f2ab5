"""The resync worker on a simulated node, against what must be so in the end."""

from __future__ import annotations

import asyncio
import errno
import random

import pytest

from garage_lite.core.block.resync import entry_key, resync_rows
from garage_lite.core.errors import InvalidArgument
from garage_lite.core.ids import BlockHash
from garage_lite.core.model.rowkeys import block_refs_prefix
from garage_lite.core.workers.resync import ResyncWorker, failed_entries
from garage_lite.core.workers.runner import IDLE, State, WorkerRunner
from garage_lite.core.workers.variables import (
    RESYNC_BANDWIDTH,
    RESYNC_TRANQUILITY,
    RESYNC_WORKER_COUNT,
    LiveVariables,
)
from tests.core.blocks_on_disk import named, noise
from tests.core.workers.block_node import Node
from tests.sim.loop import run

A = noise(1)


def test_a_block_goes_ten_minutes_after_its_last_reference() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        await node.refer(block, 2)
        await node.forget(block, 1)
        await node.settle()
        assert node.store.files.has(block)
        await node.forget(block, 2)
        await asyncio.sleep(595)
        assert await node.drain() == 0
        assert node.store.files.has(block)
        await asyncio.sleep(10)
        assert await node.drain() == 1
        assert not node.store.files.has(block)
        assert node.entries() == 0
        await node.close()

    run(scenario())


def test_a_block_that_is_used_again_stays() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        await node.forget(block, 1)
        await asyncio.sleep(300)
        await node.put(A, 2)
        await node.settle()
        assert await node.store.files.get(block) == A
        assert node.entries() == 0

    run(scenario())


def test_a_long_read_holds_its_blocks_back() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 7)
        await node.forget(block, 7)
        for name in (block, node.references(block)[0].data):
            with node.store.leases.hold(name):
                await node.settle(30)
                assert node.store.files.has(block)
        await node.settle(6)
        assert not node.store.files.has(block)
        assert node.entries() == 0

    run(scenario())


def test_a_missing_block_is_fetched_or_asked_for_ever_more_seldom() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = named(A)
        await node.refer(block, 1)
        await node.store.look_again(block)
        await node.settle(60)
        assert node.fetches == 6  # after 0, 1, 3, 7, 15, 31 minutes
        ((failed, entry),) = await failed_entries(node.store)
        assert failed == block and entry.errors == 6
        assert await failed_entries(node.store, 0) == []
        await node.queue.step()
        assert (node.queue.length, node.queue.persistent_errors) == (1, 1)
        node.peer[block] = A
        await node.settle(1)
        assert not node.store.files.has(block)
        await node.settle(60)
        assert await node.store.files.get(block) == A
        assert node.entries() == 0 and not await failed_entries(node.store)

    run(scenario())


def test_a_look_asked_for_now_does_not_wait_for_the_backoff() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = named(A)
        await node.refer(block, 1)
        await node.store.look_again(block)
        await node.settle(20)
        node.peer[block] = A
        await node.store.look_again(block)
        await node.drain()
        assert node.store.files.has(block)
        await node.settle(60)
        assert node.entries() == 0

    run(scenario())


def test_a_peer_that_sends_something_else_is_a_failure() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = named(A)
        node.peer[block] = A + b"!"
        await node.refer(block, 1)
        await node.store.look_again(block)
        await node.drain()
        assert not node.store.files.has(block)
        assert len(await failed_entries(node.store)) == 1

    run(scenario())


def test_a_corrupt_block_is_healed_from_a_peer() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        node.peer[block] = A
        (path,) = (path for path in node.disk.paths() if block.hex() in path)
        node.disk.rot(path, 5)
        with pytest.raises(Exception, match="corrupt"):
            await node.store.files.get(block)
        await node.drain()
        assert await node.store.files.get(block) == A
        assert node.entries() == 0

    run(scenario())


def test_a_look_asked_for_while_the_block_is_looked_at_is_not_lost() -> None:
    """The peer answers slowly; meanwhile the reference goes and the block is queued again."""

    async def scenario() -> None:
        node = await Node.open()
        block = named(A)
        node.peer[block] = A
        await node.refer(block, 1)
        await node.store.look_again(block)
        looking = asyncio.create_task(node.drain())
        await asyncio.sleep(0.008)
        await node.forget(block, 1)
        await looking
        await node.settle(12)
        assert not node.store.files.has(block)
        assert node.entries() == 0

    for seed in range(10):
        run(scenario(), seed)


def test_several_workers_never_meet_at_one_block() -> None:
    async def scenario() -> None:
        node = await Node.open()
        blocks = [named(noise(seed, 64)) for seed in range(30)]
        for seed, block in enumerate(blocks):
            node.peer[block] = noise(seed, 64)
            await node.refer(block, 1)
            await node.store.look_again(block)
        await asyncio.gather(*(node.drain() for _ in range(4)))
        assert node.fetches == 30
        assert all(map(node.store.files.has, blocks))
        assert node.entries() == 0

    run(scenario(), 3)


def test_a_row_that_cannot_be_read_deletes_nothing() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.orphan(A)
        key = b"\x20" + block[:1] + block + bytes(16)
        await node.metadata.commit([(key, b"\xff")])
        await node.tables.write([])
        await node.store.write(resync_rows(block, node.clock.now_us(), 0, 1))
        await node.settle(30)
        assert node.store.files.has(block)
        assert len(await failed_entries(node.store)) == 1

    run(scenario())


def test_a_deletion_that_fails_is_tried_again() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        await node.forget(block, 1)
        await asyncio.sleep(601)
        node.disk.fail_if(lambda call, _: errno.EIO if call == "remove" else 0)
        await node.drain()
        assert node.store.files.has(block)
        assert len(await failed_entries(node.store)) == 1
        node.disk.fail_if(None)
        await node.settle(3)
        assert not node.store.files.has(block) and node.entries() == 0

    run(scenario())


def test_whatever_happens_in_whatever_order_ends_well() -> None:
    """References come and go, files rot, looks are asked for, four workers eat, all at once."""

    async def scenario(seed: int) -> None:
        rng = random.Random(seed)
        node = await Node.open()
        contents = [noise(number, 40) for number in range(4)]
        for content in contents:
            node.peer[named(content)] = content
        live: dict[int, set[int]] = {number: set() for number in range(4)}
        serial = iter(range(1, 10**6))

        async def user() -> None:
            for _ in range(25):
                number = rng.randrange(4)
                what = rng.random()
                if what < 0.5:
                    data = next(serial)
                    await node.put(contents[number], data)
                    live[number].add(data)
                elif what < 0.85 and live[number]:
                    await node.forget(named(contents[number]), live[number].pop())
                elif what < 0.9:
                    await node.store.look_again(named(contents[number]))
                await asyncio.sleep(rng.choice([0, 0, 0.01, 5, 300]))

        async def eater() -> None:
            while True:
                await node.drain()
                await asyncio.sleep(rng.uniform(0.01, 30))

        eaters = [asyncio.create_task(eater()) for _ in range(3)]
        await asyncio.gather(*(user() for _ in range(4)))
        for task in eaters:
            task.cancel()
        await asyncio.gather(*eaters, return_exceptions=True)
        await node.settle(30)
        for number, content in enumerate(contents):
            assert node.store.files.has(named(content)) == bool(live[number])
        assert node.entries() == 0
        assert len(node.store.locks) == 0

    for seed in range(6):
        run(scenario(seed), seed)


async def dead_for_long(node: Node) -> BlockHash:
    block = await node.put(A, 1)
    await node.forget(block, 1)
    await asyncio.sleep(601)
    return block


def test_a_put_that_meets_the_deletion_wins_or_comes_after_it() -> None:
    async def scenario(delay: float) -> None:
        node = await Node.open()
        block = await dead_for_long(node)
        deleting = asyncio.create_task(node.drain())
        await asyncio.sleep(delay)
        await node.put(A, 2)
        await deleting
        assert await node.store.files.get(block) == A
        await node.settle(2)
        assert await node.store.files.get(block) == A

    for seed in range(20):
        run(scenario(seed * 0.0002), seed)


def test_a_reference_added_alone_during_the_deletion_leaves_the_entry() -> None:
    """Copy writes its rows first and asks for the file then; gone, it is put again."""

    async def scenario(delay: float, busy: int) -> tuple[bool, bool]:
        node = await Node.open()
        block = await dead_for_long(node)
        others = [asyncio.create_task(node.orphan(noise(seed, 9))) for seed in range(busy)]
        await asyncio.sleep(0)
        deleting = asyncio.create_task(node.queue.step())
        await asyncio.sleep(delay)
        await node.refer(block, 2)
        async with node.store.locks.hold(block):
            found = node.store.files.has(block)
        await deleting
        assert node.store.files.has(block) == found, "it was acknowledged, and went after that"
        outcome = not node.store.files.has(block), node.entries() > 0
        if outcome == (True, False):
            await node.put(A, 2)
        node.peer[block] = A
        await node.settle(2)
        assert await node.store.files.get(block) == A
        await asyncio.gather(*others)
        return outcome

    # Before the recount, between it and the end of the deletion, after that.
    outcomes = {run(scenario(seed * 0.0002, seed % 2 * 20), seed) for seed in range(20)}
    assert outcomes == {(False, False), (True, True), (True, False)}


def test_a_reference_counts_in_either_view() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        adding = asyncio.create_task(node.refer(named(b"new"), 1))
        removing = asyncio.create_task(node.forget(block, 1))
        for _ in range(10):
            await asyncio.sleep(0)  # both are written; the log has not begun
        assert node.tables.latest().with_prefix(block_refs_prefix(named(b"new")))
        assert node.store.entry(block)
        assert not node.references(named(b"new")) and not node.references(block)[0].deleted
        assert node.store.facts(named(b"new")).live == 1
        assert node.store.facts(block).live == 1
        await asyncio.gather(adding, removing)
        assert node.store.facts(block).live == 0

    run(scenario())


def test_a_look_asked_for_later_stays_when_an_earlier_one_is_done() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        now_us = node.clock.now_us()
        await node.store.write(resync_rows(block, now_us))
        await node.store.write(resync_rows(block, now_us + 100_000_000))
        assert await node.drain() == 1
        assert node.entries() == 2
        await asyncio.sleep(101)
        assert await node.drain() == 1
        assert node.entries() == 0

    run(scenario())


def test_an_entry_that_lands_before_the_last_one_taken_is_found() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        await node.store.look_again(block)
        assert await node.queue.step()
        await node.store.write(resync_rows(block, node.clock.now_us() - 10**9))
        assert await node.queue.step()
        assert node.entries() == 0

    run(scenario())


def test_after_a_power_cut_nothing_referenced_is_gone_and_nothing_else_stays() -> None:
    """Cut at moments while blocks are put, forgotten and deleted; the next run cleans up."""

    async def before() -> Node:
        node = await Node.open()
        for number in range(3):
            await node.put(noise(number, 40), number)
            node.disk.mark(number)
        for number in (0, 1):
            await node.forget(named(noise(number, 40)), number)
        await node.put(noise(0, 40), 9)
        node.disk.mark(0)
        await node.settle(11)
        return node

    async def after(files: object, marks: list[object]) -> None:
        node = await Node.open(files)  # type: ignore[arg-type]
        await node.settle(30)
        for number in range(3):
            block = named(noise(number, 40))
            live = any(not reference.deleted for reference in node.references(block))
            if live and number in marks:
                assert await node.store.files.get(block) == noise(number, 40)
            if not live and node.references(block):
                assert not node.store.files.has(block)
        await node.close()

    node = run(before(), 1)
    chance = random.Random(2)
    for point in range(5, len(node.disk.journal), 9):
        marks = node.disk.marks(point)
        run(after(node.disk.crash(chance, chance.choice([0.0, 0.5, 1.0]), point), marks), point)


def test_workers_above_the_count_rest_and_the_others_pace_themselves() -> None:
    async def scenario() -> None:
        node = await Node.open()
        workers = [ResyncWorker(node.queue, number, node.variables) for number in (1, 2)]
        assert [await worker.work() for worker in workers] == [IDLE, IDLE]
        block = await node.put(A, 1)
        await node.store.look_again(block)
        step = await workers[0].work()
        assert step.state is State.THROTTLED and step.rest_us > 0
        assert workers[0].progress().tranquility == 2
        assert workers[1].progress().freeform == ("not in use",)
        await node.variables.set(RESYNC_WORKER_COUNT, "2")
        await node.variables.set(RESYNC_TRANQUILITY, "0")
        await node.store.look_again(block)
        assert await workers[1].work() == (State.THROTTLED, 0)

    run(scenario())


def test_the_runner_wakes_for_what_falls_due() -> None:
    async def scenario() -> None:
        node = await Node.open()
        runner = WorkerRunner(node.clock)
        for number in (1, 2, 3):
            runner.add(ResyncWorker(node.queue, number, node.variables))
        await node.variables.set(RESYNC_WORKER_COUNT, "2")
        runner.start()
        block = await node.put(A, 1)
        await node.forget(block, 1)
        await asyncio.sleep(620)
        assert not node.store.files.has(block)
        node.peer[block] = A
        await node.refer(block, 2)
        await node.store.look_again(block)
        node.queue.notify()
        await asyncio.sleep(0.2)
        assert node.store.files.has(block)
        await runner.stop()
        await node.close()

    run(scenario())


def test_variables_are_checked_and_kept() -> None:
    async def scenario() -> None:
        node = await Node.open()
        assert node.variables.all() == {
            "resync-bandwidth": "0",
            "resync-tranquility": "2",
            "resync-worker-count": "1",
            "scrub-tranquility": "4",
        }
        await node.variables.set(RESYNC_WORKER_COUNT, "8")
        for name, value in [
            (RESYNC_WORKER_COUNT, "0"),
            (RESYNC_WORKER_COUNT, "9"),
            (RESYNC_TRANQUILITY, "-1"),
            (RESYNC_TRANQUILITY, "fast"),
            (RESYNC_TRANQUILITY, "9" * 5000),
            (RESYNC_TRANQUILITY, "²"),
            (RESYNC_BANDWIDTH, "fast"),
            (RESYNC_BANDWIDTH, "2M 8-23"),
            ("colour", "1"),
        ]:
            with pytest.raises(InvalidArgument):
                await node.variables.set(name, value)
        with pytest.raises(InvalidArgument, match="there are resync-bandwidth"):
            node.variables.get("colour")
        assert LiveVariables(node.state)[RESYNC_WORKER_COUNT] == 8
        assert node.variables.get(RESYNC_WORKER_COUNT) == "8"
        await node.variables.set(RESYNC_BANDWIDTH, "2M 08:00-23:00")
        again = LiveVariables(node.state)
        assert again.get(RESYNC_BANDWIDTH) == "2M 08:00-23:00"
        assert [again.bandwidth.rate_at(60 * hour) for hour in (7, 8)] == [0, 2_000_000]

    run(scenario())


def test_a_stale_index_row_is_forgotten() -> None:
    async def scenario() -> None:
        node = await Node.open()
        block = await node.put(A, 1)
        rows = resync_rows(block, node.clock.now_us())
        await node.store.write([rows[0]])
        await node.drain()
        assert node.entries() == 0
        assert node.tables.latest().get(entry_key(block)) is None

    run(scenario())
