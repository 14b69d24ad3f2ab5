"""Several nodes' tables in one simulated loop: real replicas on simulated disks, calls that take
time, can be cut off, and can be left without an answer.

async def main():
    async with Replicas(3) as w:
        await w[0].write([...])
        w.freeze(1)
        assert await w[2].get(key) == value
run(main())
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any, Final, Self

import msgpack

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster, Endpoints, NotConnected
from garage_lite.core.cluster.row_service import READ, Question
from garage_lite.core.cluster.rpc import CALL_SECONDS, CallTimedOut, Reply, Request
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore
from garage_lite.core.disk.replica import Replica
from garage_lite.core.errors import CallerError, DamagedRow, GarageLiteError
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.limits import GIB
from garage_lite.core.model.rowkeys import SUFFIX_BYTES, Table
from garage_lite.core.quorum import Consistency
from garage_lite.core.table.schema import Update
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.core.wire.outbox import NORMAL
from tests.sim.files import SimFiles
from tests.sim.loop import SimClock, SimEntropy

_PAGED: Final = (Question.RANGE, Question.FOLD)
ROUND_TRIP: Final = 0.2
"""Seconds between any two nodes, unless told otherwise."""


def node_id(number: int) -> NodeId:
    return NodeId(bytes([number + 1]) * 32)


@dataclass
class Call:
    """One message, for those who count them."""

    source: int
    target: int
    endpoint: str
    payload: Any


class SlowPeers:
    """The door of one node of `Replicas`."""

    def __init__(self, world: Replicas, number: int) -> None:
        self._world = world
        self._number = number

    async def call(
        self,
        node: NodeId,
        endpoint: str,
        payload: Any,
        *,
        timeout: float = CALL_SECONDS,  # noqa: ASYNC109
        priority: int = NORMAL,
        stream: AsyncIterator[bytes] | None = None,
    ) -> Reply:
        world, target = self._world, node[0] - 1
        if not world.linked(self._number, target):
            raise NotConnected
        copied = msgpack.unpackb(msgpack.packb(payload))
        world.calls.append(Call(self._number, target, endpoint, copied))
        try:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(world.round_trip(self._number, target) / 2)
                await world.thawed(target)
                answer = await world.answer(self._number, target, endpoint, copied)
                await asyncio.sleep(world.round_trip(self._number, target) / 2)
        except TimeoutError as error:
            raise CallTimedOut from error
        if isinstance(answer, PeerFailed):
            raise answer
        return Reply(msgpack.unpackb(msgpack.packb(answer)))

    def connected(self) -> Collection[NodeId]:
        world = self._world
        others = (other for other in range(world.count) if other != self._number)
        return {node_id(other) for other in others if world.linked(self._number, other)}

    def round_trip(self, node: NodeId) -> float:
        return self._world.round_trip(self._number, node[0] - 1)


class Member:
    """One node."""

    def __init__(self, world: Replicas, number: int) -> None:
        self.number = number
        self.boots = 0
        self.files = SimFiles()
        self.endpoints = Endpoints()
        self.clock = SimClock()
        self.store: MetadataStore
        self.replica: Replica
        self.layout: ClusterLayout
        self.tables: Tables
        self._world = world

    async def open(self, mode: Consistency) -> None:
        entropy = SimEntropy(self.number + 1000 * self.boots)
        options = MetadataOptions(suffix_bytes=SUFFIX_BYTES)
        self.store = await MetadataStore.open(self.files, "/meta", self.clock, entropy, options)
        self.replica = Replica(self.store)
        copies = self._world.copies
        here = node_id(self.number)
        self.layout = ClusterLayout(self.replica, self.clock, here, Parameters(copies), mode)
        self.cluster = cluster = Cluster(here, self.endpoints, SlowPeers(self._world, self.number))
        self.tables = Tables(self.replica, self.layout, cluster, self.clock, entropy)

        async def pull(node: NodeId) -> None:
            await self.layout.merge(self._world.members[node[0] - 1].layout.history)

        self.tables.pull_layout_by(pull)

    async def close(self) -> None:
        vars(self.store).pop("commit", None)
        await self.tables.close()
        await self.store.close()

    async def plant(self, *rows: Update) -> None:
        """Put rows on this replica alone."""
        await self.replica.apply(rows, self.tables.now_ms(), None, False)

    async def damage(self) -> None:
        """All reads of what is durable fail from now on."""

        def damaged(*_: Any, **__: Any) -> Any:
            raise DamagedRow

        self.store.get = self.store.with_prefix = self.store.scan = damaged  # type: ignore[method-assign]

    def refuse(self, error: Exception) -> None:
        """All writes fail from now on, until it is closed."""

        def refused(*_: Any, **__: Any) -> Any:
            raise error

        self.store.commit = refused  # type: ignore[method-assign]

    def holds(self, key: bytes) -> bytes | None:
        return self.replica.durable.get(key)


class Replicas:
    """See the module. `w[n]` are the tables of node n, `w.members[n]` all of it."""

    def __init__(
        self,
        count: int,
        copies: int | None = None,
        mode: Consistency = Consistency.CONSISTENT,
        holding: int | None = None,
    ) -> None:
        """`holding`: only the first so many have a role at first."""
        self.count = count
        self.page_rows: int | None = None
        """Answer range reads with at most so many rows."""
        self._holding = holding or count
        self.copies = copies or count
        self.calls: list[Call] = []
        self.members = [Member(self, number) for number in range(count)]
        self.round_trips: dict[tuple[int, int], float] = {}
        self._mode = mode
        self._cut: set[int] = set()
        self._frozen: dict[int, asyncio.Event] = {}

    async def __aenter__(self) -> Self:
        for member in self.members:
            await member.open(self._mode)
        await self.move_to(*range(self._holding))
        return self

    async def __aexit__(self, *_: object) -> None:
        for number in list(self._frozen):
            self.thaw(number)
        for member in self.members:
            await member.close()

    def __getitem__(self, number: int) -> Tables:
        return self.members[number].tables

    def holders(self, key: bytes) -> list[int]:
        """Who holds the row."""
        readers = self.members[0].layout.lookup.read_set(key[1], data=key[0] == Table.BLOCK_REF)
        assert readers is not None
        return [node[0] - 1 for node in readers.nodes]

    # --- layouts

    async def move_to(self, *numbers: int) -> None:
        """Apply a layout of these nodes."""
        first = self.members[0].layout.history
        history = first if first.current.number else LayoutHistory.fresh(Parameters(self.copies))
        number = history.current.number + 1
        for other in range(self.count):
            role = Role(f"zone{other}", GIB) if other in numbers else None
            if role is not None or node_id(other) in history.current.roles:
                history = history.with_role(node_id(other), role, 10 * number)
        await self.know(history.applied(number, 10 * number + 5))

    async def finish_moving(self) -> None:
        """As if all rows had been synced."""
        number = self.members[0].layout.history.current.number
        for _ in range(3):
            for member in self.members:
                await member.layout.synced(number)
            await self.know(self.members[0].layout.history)

    async def forget_layout(self, number: int, history: LayoutHistory) -> None:
        """A node that was away: it knows what it knew then."""
        self.members[number].layout._show(history)

    async def know(self, history: LayoutHistory) -> None:
        """Tell every node of a layout, until all know what all know."""
        for _ in range(2):
            for member in self.members:
                await member.layout.merge(history)
                history = member.layout.history

    # --- the network

    def linked(self, one: int, two: int) -> bool:
        return one not in self._cut and two not in self._cut

    def round_trip(self, one: int, two: int) -> float:
        return self.round_trips.get((min(one, two), max(one, two)), ROUND_TRIP)

    def cut(self, *numbers: int) -> None:
        self._cut.update(numbers)

    def heal(self) -> None:
        self._cut.clear()

    def freeze(self, number: int) -> None:
        """It takes calls and does nothing, as when stopped by a signal."""
        self._frozen[number] = asyncio.Event()

    def thaw(self, number: int) -> None:
        self._frozen.pop(number).set()

    async def thawed(self, number: int) -> None:
        if number in self._frozen:
            await self._frozen[number].wait()

    async def answer(self, source: int, target: int, endpoint: str, payload: Any) -> Any:
        if self.page_rows is not None and endpoint == READ and payload[1] in _PAGED:
            payload[-1] = self.page_rows
        request = Request(node_id(source), payload)
        try:
            return await self.members[target].endpoints.handlers[endpoint](request)
        except GarageLiteError as error:
            status = 400 if isinstance(error, CallerError) else 503
            return PeerFailed(type(error).__name__, error.message, status)

    # --- what it cost

    def taken(self) -> Stopwatch:
        return Stopwatch(self)


class Stopwatch:
    """`with w.taken() as cost:` then `cost.round_trips`, `cost.calls`."""

    def __init__(self, world: Replicas) -> None:
        self._world = world
        self.seconds = 0.0
        self.calls: list[Call] = []

    def __enter__(self) -> Self:
        self._begun = asyncio.get_running_loop().time()
        self._made = len(self._world.calls)
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = asyncio.get_running_loop().time() - self._begun
        self.calls = self._world.calls[self._made :]

    @property
    def round_trips(self) -> float:
        """Rounded to a tenth, so that the time of simulated disks does not count."""
        return round(self.seconds / ROUND_TRIP, 1)
