"""Nodes of `Replicas` that also sync their tables, for tests of all that sync brings about."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Self

from garage_lite.core.cluster.layout_exchange import LayoutExchange
from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.cluster.recovering import Recovering
from garage_lite.core.cluster.table_sync import TableSync
from garage_lite.core.cluster.throttle import Throttle
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.limits import GIB
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.quorum import Consistency
from garage_lite.core.table.digest import TABLES
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.runner import State
from garage_lite.core.workers.sync import SyncWorker
from garage_lite.core.workers.tombstones import TombstoneWorker
from tests.core.cluster.replicas import Member, Replicas, node_id

SHARED = [table for tables in TABLES.values() for table in tables] + [Table.INLINE]


class Syncing(Replicas):
    """`w.sync[n]` are the parts of node n that sync, `w.workers[n]` its worker."""

    def __init__(self, count: int, copies: int | None = None, **more: Any) -> None:
        super().__init__(count, copies, **more)
        self.sync: dict[int, TableSync] = {}
        self.workers: dict[int, SyncWorker] = {}
        self.sweepers: dict[int, TombstoneWorker] = {}
        self.exchanges: dict[int, LayoutExchange] = {}
        self.down: set[int] = set()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for member in self.members:
            await self._equip(member)
        return self

    async def __aexit__(self, *error: object) -> None:
        for number in set(self.sync) - self.down:
            await self.sync[number].stop()
            await self.exchanges[number].stop()
        await super().__aexit__(*error)

    async def _equip(self, member: Member) -> None:
        state = NodeState(member.tables)
        sync = TableSync.make(
            member.store,
            member.tables,
            state,
            member.layout,
            member.cluster,
            Recovering(member.store, state, member.layout),
            Throttle(member.clock),
        )
        self.sync[member.number] = sync
        self.workers[member.number] = SyncWorker(sync, consistent=True)
        self.sweepers[member.number] = TombstoneWorker(sync)
        exchange = LayoutExchange(member.layout, member.cluster)
        self.exchanges[member.number] = exchange
        exchange.start()
        await sync.start()

    def linked(self, one: int, two: int) -> bool:
        return super().linked(one, two) and not {one, two} & self.down

    async def stop(self, number: int) -> None:
        self.down.add(number)
        await self.sync[number].stop()
        await self.exchanges[number].stop()
        await self.members[number].close()

    async def start(self, number: int, files: Any = None) -> None:
        """On what its disk holds, or on another."""
        old = self.members[number]
        member = self.members[number] = Member(self, number)
        member.files = old.files if files is None else files
        member.boots = old.boots + 1
        await member.open(Consistency.CONSISTENT)
        await self._equip(member)
        self.down.discard(number)

    # --- time

    async def rounds(self, *numbers: int, seconds: float = 60.0) -> None:
        """Let the sync workers of these nodes (or all) run for a while."""
        chosen = numbers or tuple(set(self.workers) - self.down)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(run_worker(self.workers[number]) for number in chosen))

    async def until(self, holds: Callable[[], bool], *numbers: int, seconds: float = 600.0) -> None:
        """Run the workers until it holds; TimeoutError if it does not come to that."""
        running = asyncio.create_task(self.rounds(*numbers, seconds=10 * seconds))
        try:
            async with asyncio.timeout(seconds):
                while not holds():  # noqa: ASYNC110
                    await asyncio.sleep(0.5)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def lay_out(self, *numbers: int, copies: int, by: int = 0) -> None:
        """Apply a layout of these nodes at one node; the others hear of it."""
        history = self.members[by].layout.history
        at = 100 * history.current.number + 100
        history = history.with_parameters(Parameters(copies), at)
        for other in range(self.count):
            role = Role(f"zone{other}", GIB) if other in numbers else None
            if role is not None or node_id(other) in history.current.roles:
                history = history.with_role(node_id(other), role, at)
        await self.members[by].layout.merge(history.applied(history.current.number + 1, at + 1))

    def pass_time(self, milliseconds: int) -> None:
        """On every clock at once."""
        for member in self.members:
            member.clock.skew_us += milliseconds * 1000

    async def sweep(self, *numbers: int, seconds: float = 200.0) -> None:
        """Let the tombstone workers of these nodes (or all) run for a while."""
        chosen = numbers or tuple(set(self.sweepers) - self.down)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(run_worker(self.sweepers[number]) for number in chosen))

    def settled(self, number: int) -> bool:
        """Whether version `number` is the only one, wherever a node is up."""
        active = [member.layout.history.active for member in self.up()]
        return all(len(one) == 1 and one[0].number == number for one in active)

    def up(self) -> list[Member]:
        return [member for member in self.members if member.number not in self.down]

    # --- rows

    def rows(self, number: int) -> dict[bytes, bytes]:
        """All that replicas must agree on."""
        return {
            key: value
            for table in sorted(SHARED)
            for keys, values in self.members[number].store.scan(
                bytes((table,)), bytes((table + 1,))
            )
            for key, value in zip(keys, values, strict=True)
        }

    def differing(self) -> set[bytes]:
        """The keys that not all nodes that are up hold in the same bytes."""
        first, *others = (self.rows(member.number).items() for member in self.up())
        return {key for other in others for key, _ in first ^ other}

    async def plant(self, number: int, *rows: Update) -> None:
        for at in range(0, len(rows), 100):
            await self.members[number].plant(*rows[at : at + 100])


async def run_worker(worker: SyncWorker | TombstoneWorker) -> None:
    while True:
        step = await worker.work()
        if step.state is State.IDLE:
            await worker.wait()


__all__ = ["SHARED", "Syncing", "node_id", "run_worker"]
