"""Bytes that a kind of traffic may hold, and what a straggler may."""

from __future__ import annotations

import asyncio

import pytest

from garage_lite.core.cluster.block_stragglers import STUCK_SECONDS, Sending, Stragglers
from garage_lite.core.cluster.permits import WAITING_MAX, Permits
from garage_lite.core.cluster.throttle import Throttle
from garage_lite.core.errors import Unavailable
from tests.sim.loop import SimClock, run


def test_who_comes_first_is_served_first_and_nothing_is_lost() -> None:
    async def scenario() -> None:
        permits = Permits(10)
        order: list[int] = []

        async def user(name: int, amount: int, seconds: float) -> None:
            async with permits.hold(amount):
                order.append(name)
                await asyncio.sleep(seconds)

        users = []
        for name, amount in enumerate((6, 6, 1, 50, 3)):
            users.append(asyncio.create_task(user(name, amount, 1)))
            await asyncio.sleep(0.01)
        assert order == [0], "a small one does not overtake a big one"
        users[1].cancel()
        await asyncio.sleep(0.01)
        assert order == [0, 2]
        await asyncio.gather(*users, return_exceptions=True)
        assert order == [0, 2, 3, 4]
        assert permits.free == 10

    for seed in range(5):
        run(scenario(), seed)


def test_who_is_called_off_while_he_is_served_gives_back() -> None:
    async def scenario() -> None:
        permits = Permits(4)
        rounds = [asyncio.create_task(_hold(permits)) for _ in range(3)]
        for _ in range(30):
            waiting = [asyncio.create_task(_hold(permits)) for _ in range(9)]
            for task in waiting[::2]:
                await asyncio.sleep(0)
                task.cancel()
            rounds += waiting
        await asyncio.gather(*rounds, return_exceptions=True)
        async with asyncio.timeout(1), permits.hold(4):
            assert permits.free == 0
        assert permits.free == 4

    for seed in range(20):
        run(scenario(), seed)


def test_too_many_are_refused() -> None:
    async def scenario() -> None:
        permits = Permits(1)
        async with permits.hold(1):
            waiting = [asyncio.create_task(_hold(permits)) for _ in range(WAITING_MAX)]
            await asyncio.sleep(0.01)
            with pytest.raises(Unavailable):
                await _hold(permits)
            for task in waiting[::2]:
                task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert permits.free == 1

    run(scenario())


async def _hold(permits: Permits) -> None:
    async with permits.hold(1):
        await asyncio.sleep(0)


async def _endless() -> None:
    await asyncio.sleep(1e6)


def _sending() -> Sending:
    sending = Sending()
    sending.task = asyncio.create_task(_endless())
    return sending


def test_stragglers_keep_to_their_bound_and_the_stuck_go_first() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        stragglers = Stragglers(10)
        moving, stuck = _sending(), _sending()
        await stragglers.adopt(5, [moving], 1)
        await stragglers.adopt(5, [stuck], 1)
        for _ in range(4):
            await asyncio.sleep(STUCK_SECONDS / 2)
            moving.moves()
        start = loop.time()
        third = _sending()
        await stragglers.adopt(5, [third], 1)
        assert loop.time() - start < 0.01
        assert [one.is_over for one in (moving, stuck, third)] == [False, True, False]
        assert stragglers.held == 10
        start = loop.time()

        async def move() -> None:
            while True:
                moving.moves()
                third.moves()
                await asyncio.sleep(0.1)

        mover = asyncio.create_task(move())
        fourth = _sending()
        await stragglers.adopt(20, [fourth], 0.3)
        assert loop.time() - start >= 0.3, "those that move are waited for"
        assert [one.is_over for one in (moving, third, fourth)] == [True, True, False]
        assert stragglers.held == 20
        mover.cancel()
        await stragglers.close(1)
        assert stragglers.held == 0

    run(scenario())


def test_a_block_whose_sends_end_meanwhile_takes_no_room() -> None:
    async def scenario() -> None:
        stragglers = Stragglers(10)
        first, second = _sending(), _sending()
        await stragglers.adopt(10, [first], 1)
        adopting = asyncio.create_task(stragglers.adopt(10, [second], 0.4))
        await asyncio.sleep(0.1)
        second.task.cancel()
        first.task.cancel()
        await adopting
        assert stragglers.held == 0

    run(scenario())


def test_background_traffic_keeps_to_its_rate_and_follows_a_new_one() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        throttle = Throttle(SimClock())
        rate = 1000
        throttle.rate = lambda: rate
        start = loop.time()
        for _ in range(11):
            await throttle.spend(1000)
        assert 9.5 <= loop.time() - start <= 10.5
        rate = 0
        start = loop.time()
        for _ in range(100):
            await throttle.spend(1000)
        assert loop.time() - start <= 1.1

    run(scenario())
