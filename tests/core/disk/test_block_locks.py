"""Locks and leases of blocks."""

from __future__ import annotations

import asyncio
import random

import pytest

from garage_lite.core.disk.block_locks import BlockLeases, BlockLocks
from garage_lite.core.ids import BlockHash

BLOCKS = [BlockHash(bytes([number]) * 32) for number in range(5)]


async def test_holders_of_one_block_take_turns() -> None:
    locks = BlockLocks()
    inside: set[BlockHash] = set()
    rng = random.Random(3)

    async def work() -> None:
        wanted = rng.choices(BLOCKS, k=rng.randint(1, 4))
        async with locks.hold(*wanted):
            assert inside.isdisjoint(wanted)
            inside.update(wanted)
            for _ in range(rng.randint(0, 3)):
                await asyncio.sleep(0)
            inside.difference_update(wanted)

    async with asyncio.timeout(10):
        await asyncio.gather(*(work() for _ in range(300)))
    assert len(locks) == 0


async def test_a_holder_that_fails_or_is_cancelled_lets_go() -> None:
    locks = BlockLocks()
    with pytest.raises(ValueError):
        async with locks.hold(BLOCKS[0]):
            raise ValueError
    async with locks.hold(BLOCKS[0]):
        waiting = asyncio.create_task(_enter(locks))
        await asyncio.sleep(0)
        assert len(locks) == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert len(locks) == 0


async def _enter(locks: BlockLocks) -> None:
    async with locks.hold(BLOCKS[0]):
        return


def test_leases_last_as_long_as_their_last_holder() -> None:
    leases = BlockLeases()
    with leases.hold(BLOCKS[0], b"data id"):
        with leases.hold(BLOCKS[0]):
            assert leases.held(BLOCKS[0])
        assert leases.held(BLOCKS[0]) and leases.held(b"data id")
        assert not leases.held(BLOCKS[1])
    assert not leases.held(BLOCKS[0]) and len(leases) == 0
