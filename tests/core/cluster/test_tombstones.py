"""Tombstones are forgotten when all owners hold them, and whatever they removed stays away."""

from __future__ import annotations

import asyncio

from garage_lite.core.model.rowkeys import Table
from garage_lite.core.table.plan import TOMBSTONE_DELAY_MS
from garage_lite.core.table.tombstones import DEAD_MS, RETRY_US, TURN_US
from tests.core.cluster.syncing import Syncing, node_id
from tests.core.cluster.test_table_sync import deletion, reference, version
from tests.sim.loop import run

DAY_MS = 86_400_000
LATER_MS = 3 * TURN_US // 1000


def queued(w: Syncing, node: int) -> int:
    start, end = bytes((Table.TOMBSTONE,)), bytes((Table.TOMBSTONE + 1,))
    return sum(len(keys) for keys, _ in w.members[node].store.scan(start, end))


async def write_and_delete(w: Syncing) -> None:
    await asyncio.sleep(1)
    await w[0].write(version("k", 1))
    await w[0].write([reference(5)])
    await w[0].write(deletion("k", 2))
    await w[0].write([reference(5, deleted=True)])
    await asyncio.sleep(1)


def test_i26_i29_tombstones_are_forgotten_by_all_when_their_day_has_passed() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await write_and_delete(w)
            await w.sweep()
            assert len(w.rows(0)) == 2 and not w.differing()
            w.pass_time(TOMBSTONE_DELAY_MS + LATER_MS)
            await w.sweep()
            w.pass_time(LATER_MS)
            await w.sweep()
            assert [w.rows(node) for node in range(3)] == [{}, {}, {}]
            assert [queued(w, node) for node in range(3)] == [0, 0, 0]

    run(main())


def test_i26_a_replica_that_missed_the_deletion_holds_it_before_it_is_forgotten() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await asyncio.sleep(1)
            for node in range(3):
                await w.members[node].replica.apply(version("k", 1), w[0].now_ms(), None, False)
            for node in (0, 1):
                await w.members[node].replica.apply(deletion("k", 2), w[0].now_ms(), None, False)
            w.pass_time(TOMBSTONE_DELAY_MS + LATER_MS)
            await w.sweep()
            w.pass_time(LATER_MS)
            await w.sweep()
            assert [w.rows(node) for node in range(3)] == [{}, {}, {}]

    run(main())


def test_i26_an_owner_that_is_away_for_a_while_is_waited_for() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await write_and_delete(w)
            w.cut(2)
            w.pass_time(TOMBSTONE_DELAY_MS + LATER_MS)
            await w.sweep(0, 1)
            w.pass_time(6 * DAY_MS)
            await w.sweep(0, 1)
            assert len(w.rows(0)) == len(w.rows(1)) == 2
            w.heal()
            await asyncio.sleep(3)
            w.pass_time(RETRY_US // 1000 + LATER_MS)
            await w.sweep()
            assert [w.rows(node) for node in range(3)] == [{}, {}, {}]
            assert w.sync[2].recovering.why is None

    run(main())


def test_i27_i29_a_dead_owner_stops_no_collection_and_brings_nothing_back() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await asyncio.sleep(1)
            await w[0].write(version("k", 1))
            await w.rounds(seconds=30)
            w.cut(2)
            await asyncio.sleep(20)
            await w[0].write(deletion("k", 2))
            await asyncio.sleep(1)
            w.pass_time(DEAD_MS + DAY_MS)
            await asyncio.sleep(20)
            await w.sweep(0, 1)
            w.pass_time(LATER_MS)
            await w.sweep(0, 1)
            assert w.rows(0) == w.rows(1) == {}
            assert w.rows(2)
            assert w.sync[0].peers.seen(node_id(2)).missed
            w.heal()
            await asyncio.sleep(3)
            assert w.sync[2].recovering.why is not None
            await w.until(lambda: w.sync[2].recovering.why is None)
            await w.rounds(seconds=30)
            assert [w.rows(node) for node in range(3)] == [{}, {}, {}]

    run(main())


def test_an_owner_dead_to_one_alone_is_waited_for() -> None:
    async def main() -> None:
        async with Syncing(3) as w:
            await write_and_delete(w)
            w.cut(2)
            w.pass_time(DEAD_MS + DAY_MS)
            await asyncio.sleep(20)
            heard = w.sync[1].peers
            await heard._heard(node_id(2), b"s" * 16, 1, aware=True)
            await w.sweep(0, 1)
            assert len(w.rows(0)) == len(w.rows(1)) == 2

    run(main())
