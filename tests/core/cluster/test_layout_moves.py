"""Rows move with the layout, and whatever was acknowledged is read all the time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Final

import pytest

from garage_lite.core.cluster.quorum_rows import WrittenLate
from garage_lite.core.errors import Unavailable
from garage_lite.core.model.objects import Kind
from garage_lite.core.model.rowkeys import Table, object_prefix
from tests.core.cluster.syncing import Syncing
from tests.core.cluster.test_table_sync import bucket, reference, version
from tests.sim.loop import run

PARTITIONS: Final = (7, 8, 100, 255)


class Clients:
    """Write and read keys of one object each through random nodes, and remember what they may
    rely on."""

    def __init__(self, w: Syncing, nodes: list[int], seed: int) -> None:
        self.w = w
        self.nodes = nodes
        self.at = 0
        self.written: dict[tuple[int, str], bytes] = {}
        """The newest row of each key that was acknowledged."""
        self.failed = 0
        self._random = random.Random(seed)

    async def write(self) -> None:
        where, key = self._random.choice(PARTITIONS), f"k{self._random.randrange(20)}"
        self.at += 1
        at = self.w[0].clock.now_us() - 1_700_000_000_000_000 + self.at
        kind = self._random.choice([Kind.INLINE, Kind.INLINE, Kind.DELETE_MARKER])
        rows = version(key, at, where=where, kind=kind)
        try:
            await self.w[self._random.choice(self.nodes)].write(rows)
        except (Unavailable, WrittenLate):
            self.failed += 1
            return
        self.written[where, key] = min(rows[0].key, self.written.get((where, key), b"\xff"))

    async def read(self) -> None:
        if not self.written:
            return
        (where, key), newest = self._random.choice(list(self.written.items()))
        prefix = object_prefix(bucket(where), key.encode())
        try:
            rows = await self.w[self._random.choice(self.nodes)].versions(prefix)
        except Unavailable:
            self.failed += 1
            return
        assert rows, f"{key} is gone"
        assert rows[0][0] <= newest, f"{key} is older than what was acknowledged"

    async def work(self) -> None:
        while True:
            await asyncio.gather(self.write(), self.read())
            await asyncio.sleep(self._random.uniform(0, 0.3))

    @contextlib.asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        await asyncio.sleep(1)  # until all have greeted each other
        task = asyncio.create_task(self.work())
        try:
            yield
        finally:
            done = task.done()
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            if done and results[0] is not None:
                raise results[0]

    async def check_all(self) -> None:
        for where, key in list(self.written):
            prefix = object_prefix(bucket(where), key.encode())
            for node in self.nodes:
                rows = await self.w[node].versions(prefix)
                assert rows and rows[0][0] <= self.written[where, key]


def owned(w: Syncing, node: int) -> list[bytes]:
    """The rows there that not every node holds."""
    return [key for key in w.rows(node) if key[0] >= Table.OBJECT]


@pytest.mark.parametrize("seed", range(2))
def test_i13_i20_what_was_acknowledged_is_read_while_one_node_becomes_two_and_three(
    seed: int,
) -> None:
    async def main() -> None:
        async with Syncing(3, copies=1, holding=1) as w:
            clients = Clients(w, [0], seed)
            async with clients.busy():
                await w.rounds(seconds=20)
                await w.lay_out(0, 1, copies=2)
                await w.until(lambda: w.settled(2))
                clients.nodes = [0, 1]
                await w.lay_out(0, 1, 2, copies=3, by=1)
                await w.until(lambda: w.settled(3))
                clients.nodes = [0, 1, 2]
                await w.rounds(seconds=20)
            await clients.check_all()
            assert clients.failed == 0
            await w.until(lambda: not w.differing())

    run(main(), seed)


@pytest.mark.parametrize("seed", range(2))
def test_i13_i20_what_was_acknowledged_is_read_while_a_node_is_replaced(seed: int) -> None:
    async def main() -> None:
        async with Syncing(4, copies=3, holding=3) as w:
            clients = Clients(w, [0, 1], seed)
            async with clients.busy():
                await w.rounds(seconds=20)
                await w.lay_out(0, 1, 3, copies=3)
                await w.until(lambda: w.settled(2))
                clients.nodes = [0, 1, 3]
                await w.rounds(seconds=30)
            await clients.check_all()
            assert clients.failed == 0
            await w.until(lambda: not owned(w, 2), seconds=2000)

    run(main(), seed)


@pytest.mark.parametrize("dead", [2, 3])
def test_i22_a_dead_node_of_the_old_or_the_new_layout_stops_no_change(dead: int) -> None:
    async def main() -> None:
        async with Syncing(4, copies=3, holding=3) as w:
            clients = Clients(w, [0, 1], 1)
            await asyncio.sleep(1)
            for _ in range(20):
                await clients.write()
            await w.rounds(seconds=20)
            await w.stop(dead)
            await w.lay_out(0, 1, 3, copies=3)
            alive = [member.cluster.node for member in w.up()]
            history = w.members[0].layout.history
            await w.members[0].layout.merge(history.skipping_dead(2, alive, False))
            await w.until(lambda: read_version(w) == 2)
            assert clients.failed == 0
            await clients.check_all()

    run(main())


def read_version(w: Syncing) -> int:
    readers = w.members[0].layout.lookup.read_set(7)
    assert readers is not None
    return readers.version


def test_a_node_that_was_retired_never_pushes_what_it_had() -> None:
    async def main() -> None:
        async with Syncing(3, copies=2, holding=2) as w:
            for node in (0, 1):
                await w.plant(node, *version("k", 1), reference(1))
            await w.rounds(seconds=20)
            await w.lay_out(0, 2, copies=2)
            await w.until(lambda: w.settled(2) and not owned(w, 1), seconds=2000)
            old = version("old", 2)
            await w.plant(1, *old)
            w.workers[1].everything_now()
            await w.rounds(seconds=60)
            assert old[0].key not in {**w.rows(0), **w.rows(2)}
            assert not owned(w, 1)

    run(main())
