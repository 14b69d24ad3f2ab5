"""The budget: fair, never exceeded, and never held by who waits for his client."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from garage_lite.core.ids import BlockHash
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.store.budget import Budget
from garage_lite.core.store.reading import PIECE_BYTES
from garage_lite.core.store.writing import StoreOptions
from tests.core.store.world import BLOCK, Bytes, World, pattern


def nobody() -> None:
    raise AssertionError("there is enough for all")


async def test_what_is_free_is_had_at_once() -> None:
    budget = Budget(100)
    hold = budget.hold(nobody)
    await hold.take(10, 60)
    assert (budget.free, hold.used, hold.reserved) == (40, 10, 60)
    await hold.take(50, 50)
    assert budget.free == 40
    borrowed = hold.leave(60)
    assert (borrowed, budget.free, budget.leaving) == (60, 40, 60)
    budget.give(borrowed)
    hold.close()
    assert (budget.free, budget.leaving) == (100, 0)


async def test_first_come_first_served() -> None:
    budget = Budget(100, patience_s=60)
    holds = [budget.hold(lambda: None) for _ in range(4)]
    order: list[int] = []
    await holds[0].take(10, 100)

    async def want(number: int, size: int) -> None:
        await holds[number].take(size, size)
        order.append(number)

    tasks = [asyncio.create_task(want(1, 90)), asyncio.create_task(want(2, 5))]
    await asyncio.sleep(0)
    assert not holds[3].try_take(1), "nobody goes before those who wait"
    assert order == []
    holds[0].trim()
    await asyncio.gather(tasks[0])
    assert order == [1] and budget.free == 0
    holds[1].close()
    await asyncio.gather(*tasks)
    assert order == [1, 2]


async def test_what_is_reserved_and_not_used_is_taken_back() -> None:
    budget = Budget(100, patience_s=0.01)
    slow, fast = budget.hold(nobody), budget.hold(nobody)
    await slow.take(1, 100)
    await asyncio.wait_for(fast.take(40, 40), 5)
    assert slow.reserved == 1 and budget.free == 59


async def test_the_largest_slow_holder_is_asked_to_let_go() -> None:
    budget = Budget(100, patience_s=0.01)
    asked: list[str] = []
    small = budget.hold(lambda: asked.append("small"))
    await small.take(30, 30)

    def let_go() -> None:
        asked.append("large")
        asyncio.get_running_loop().call_later(0.005, budget.give, large.leave(70))

    large = budget.hold(let_go)
    await large.take(70, 70)
    needy = budget.hold(nobody)
    await asyncio.wait_for(needy.take(50, 50), 5)
    assert asked == ["large"]


async def test_more_than_all_is_all() -> None:
    budget = Budget(100, patience_s=0.01)
    hold = budget.hold(lambda: None)
    await asyncio.wait_for(hold.take(1000, 1000), 5)
    assert budget.free == 0
    budget.give(hold.leave(1000))
    hold.close()
    assert budget.free == 100


async def test_who_gives_up_waiting_leaves_no_trace() -> None:
    budget = Budget(100, patience_s=60)
    first, second, third = (budget.hold(lambda: None) for _ in range(3))
    await first.take(60, 60)
    waiting = asyncio.create_task(second.take(90, 90))
    behind = asyncio.create_task(third.take(40, 40))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(behind, 5)
    for hold in (first, second, third):
        hold.close()
    assert budget.free == 100


class Dripping(Bytes):
    """A client that is slow, or stops altogether until all others have finished."""

    def __init__(self, content: bytes, seed: int, stopped: asyncio.Event | None = None) -> None:
        super().__init__(content, chunk=170)
        self._random = random.Random(seed)
        self._stopped = stopped

    async def read(self) -> bytes:
        if self._stopped is not None and self.asked == 4:
            await self._stopped.wait()
        await asyncio.sleep(self._random.choice([0, 0, 0.001, 0.003]))
        return await super().read()


async def test_a_hundred_slow_uploads_share_four_blocks(tmp_path: Path) -> None:
    """Each holds a part of a block: with a permit a block, they would wait for each other."""
    budget = Budget(4 * BLOCK, patience_s=0.01)
    async with World(tmp_path, budget=budget) as w:
        contents = {b"%03d" % number: pattern(1500, seed=number) for number in range(100)}
        puts = [
            w.put(key, Dripping(content, seed=at))
            for at, (key, content) in enumerate(contents.items())
        ]
        async with asyncio.timeout(30):
            await asyncio.gather(*puts)
        for key, content in contents.items():
            assert await w.get(key) == content
        assert budget.free == budget.total


async def test_stalled_clients_stop_nobody(tmp_path: Path) -> None:
    """Uploads and downloads whose clients stand still give way to one that does not."""
    budget = Budget(4 * BLOCK, patience_s=0.01)
    async with World(tmp_path, budget=budget) as w:
        content = pattern(5 * BLOCK)
        version = await w.put(b"read", content)
        resume = asyncio.Event()
        uploads = [
            asyncio.create_task(w.put(b"%d" % at, Dripping(content, at, resume)))
            for at in range(20)
        ]
        downloads = [await w.objects.read(w.bucket.id, version, 0, version.size) for _ in range(6)]
        starts = [await anext(stream) for stream in downloads]
        async with asyncio.timeout(20):
            for number in range(3):
                await w.put(b"fast%d" % number, Bytes(content, chunk=500))
                assert await w.get(b"fast%d" % number) == content
        resume.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*uploads)
            for start, stream in zip(starts, downloads, strict=True):
                assert start + b"".join([piece async for piece in stream]) == content
        for at in range(20):
            assert await w.get(b"%d" % at) == content
        assert budget.free == budget.total
        assert await w.count(Table.PENDING) == 0


async def test_a_stalled_reader_loses_its_block_and_reads_it_again(tmp_path: Path) -> None:
    block = 2 * PIECE_BYTES
    options = StoreOptions(block_bytes=block, inline_bytes=100)
    async with World(tmp_path, options, Budget(8 * block, patience_s=0.01)) as w:
        content = pattern(2 * block)
        version = await w.put(b"key", Bytes(content, chunk=100_000))
        w.budget.total = w.budget.free = block
        stalled = await w.objects.read(w.bucket.id, version, 0, version.size)
        first = await anext(stalled)
        assert len(first) == PIECE_BYTES and w.budget.free < block
        read, get = [], w.files.get

        async def counted(name: BlockHash) -> bytes:
            read.append(name)
            return await get(name)

        w.files.get = counted  # type: ignore[method-assign,assignment]
        async with asyncio.timeout(20):
            assert await w.get(b"key") == content
            rest = b"".join([piece async for piece in stalled])
        assert first + rest == content
        assert len(read) == 2 + 2, "its first block was read again"


async def test_fast_uploads_keep_whole_blocks(tmp_path: Path) -> None:
    """Waiting for memory alone must not make blocks short."""
    async with World(tmp_path, budget=Budget(3 * BLOCK, patience_s=60)) as w:
        content = pattern(8 * BLOCK)
        puts = (w.put(b"%d" % at, Bytes(content, chunk=BLOCK // 4)) for at in range(10))
        async with asyncio.timeout(20):
            await asyncio.gather(*puts)
        assert await w.count(Table.PAGE) == 80


async def test_uploads_that_only_wait_for_each_other_go_on_at_once(tmp_path: Path) -> None:
    """Chunks that cross a block's end leave each with a bit of the next: together, all there is."""
    async with World(tmp_path, budget=Budget(3 * BLOCK, patience_s=60)) as w:
        content = pattern(8 * BLOCK)
        puts = (w.put(b"%d" % at, Bytes(content, chunk=350)) for at in range(10))
        async with asyncio.timeout(20):
            await asyncio.gather(*puts)
        assert await w.get(b"9") == content
        assert w.budget.free == w.budget.total
