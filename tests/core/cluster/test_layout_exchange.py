"""Layouts reach every node; two that are applied at once become one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.layout_election import LayoutElection
from garage_lite.core.cluster.layout_exchange import LayoutExchange
from garage_lite.core.cluster.peers import Cluster, Endpoints
from garage_lite.core.errors import GarageLiteError, InvalidArgument, Unavailable
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.quorum import Consistency
from tests.core.cluster.direct_peers import Neighbourhood
from tests.core.layout.build import GB, node
from tests.core.tables_on_disk import TablesOnDisk


class Member:
    """One node's layout, on a disk of its own."""

    @classmethod
    async def open(cls, path: Path, number: int, street: Neighbourhood) -> Member:
        self = cls()
        self.node = node(number)
        self.disk = await TablesOnDisk.open(path / str(number))
        endpoints = Endpoints()
        peers = street.peers_of(self.node, endpoints)
        self.cluster = Cluster(self.node, endpoints, peers)
        replica, clock = self.disk.replica, self.disk.clock
        election = LayoutElection(replica, self.cluster, clock)
        self.layout = ClusterLayout(
            replica, clock, self.node, Parameters(2), Consistency.CONSISTENT, election.elect
        )
        self.exchange = LayoutExchange(self.layout, self.cluster)
        return self

    node = node(0)
    disk: TablesOnDisk
    cluster: Cluster
    layout: ClusterLayout
    exchange: LayoutExchange


class Street:
    """Three nodes that know each other."""

    def __init__(self) -> None:
        self.hood = Neighbourhood()
        self.members: list[Member] = []

    @classmethod
    async def open(cls, path: Path) -> Street:
        self = cls()
        self.members = [await Member.open(path, n, self.hood) for n in (1, 2, 3)]
        return self

    async def close(self) -> None:
        for member in self.members:
            await member.exchange.stop()
            await member.disk.close()

    async def exchange(self) -> None:
        for _ in range(3):
            for a in self.members:
                for b in sorted(a.cluster.peers.connected()):
                    await a.exchange.exchange_with(b)

    async def stage_all(self) -> None:
        roles = {m.node: Role(f"zone{at}", 100 * GB) for at, m in enumerate(self.members)}
        await self.members[0].layout.stage(roles)
        await self.exchange()


async def test_what_one_stages_and_another_applies_reaches_all(tmp_path: Path) -> None:
    street = await Street.open(tmp_path)
    await street.stage_all()
    await street.members[2].layout.apply(1)
    await street.exchange()
    histories = {m.layout.history.encode() for m in street.members}
    assert len(histories) == 1
    assert all(m.layout.ready and not m.layout.history.staged_roles() for m in street.members)
    await street.close()


async def test_rounds_run_by_themselves(tmp_path: Path) -> None:
    street = await Street.open(tmp_path)
    for member in street.members:
        member.exchange.start()
    arrived = asyncio.Event()
    street.members[1].layout.on_change(arrived.set)
    await street.members[0].layout.stage({node(2): Role("b", GB)})
    async with asyncio.timeout(10):
        await arrived.wait()
    assert street.members[1].layout.history.staged_roles() == {node(2): Role("b", GB)}
    await street.close()


async def test_two_who_apply_at_once_get_one_layout(tmp_path: Path) -> None:
    street = await Street.open(tmp_path)
    await street.stage_all()
    first, second, third = street.members
    await second.layout.stage({third.node: Role("elsewhere", 50 * GB)})
    results = await asyncio.gather(
        first.layout.apply(1), second.layout.apply(1), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) <= 1
    for result in results:
        assert not isinstance(result, BaseException) or isinstance(
            result, InvalidArgument | Unavailable
        )
    await street.exchange()
    versions = {m.layout.history.current.encode() for m in street.members}
    assert len(versions) == 1
    assert first.layout.history.current.number == 1
    await street.close()


async def test_a_minority_applies_nothing(tmp_path: Path) -> None:
    street = await Street.open(tmp_path)
    await street.stage_all()
    first, second, third = street.members
    await first.layout.apply(1)
    await street.exchange()
    street.hood.cut = {second.node, third.node}
    await first.layout.stage({first.node: Role("moved", 70 * GB)})
    with pytest.raises(Unavailable, match="agreement of 2 of the 3 nodes"):
        await first.layout.apply(2)
    assert first.layout.history.current.number == 1
    street.hood.cut = {third.node}
    await first.layout.stage({third.node: None})
    await first.layout.apply(2)
    assert list(first.layout.history.current.roles) == [first.node, second.node]
    await street.close()


async def test_a_running_write_holds_the_acknowledgement(tmp_path: Path) -> None:
    street = await Street.open(tmp_path)
    await street.stage_all()
    first, second, _ = street.members
    await first.layout.apply(1)
    await street.exchange()
    with second.layout.writing() as lookup:
        assert lookup.versions == (1,)
        await first.layout.stage({first.node: Role("moved", 70 * GB)})
        await first.layout.apply(2)
        await street.exchange()
        assert second.layout.lookup.versions == (1, 2)
        assert second.layout.lookup.ack_floor == 1
        await second.layout.advance()
        await street.exchange()
        assert first.layout.lookup.ack_floor == 1, "a write runs under version 1"
    await second.layout.advance()
    await street.exchange()
    assert first.layout.lookup.ack_floor == 2
    await street.close()


async def test_the_end_of_the_last_old_write_is_told_at_once(tmp_path: Path) -> None:
    street = await Street.open(tmp_path)
    await street.stage_all()
    first, second, _ = street.members
    await first.layout.apply(1)
    await street.exchange()
    told = asyncio.Event()
    with second.layout.writing(), second.layout.writing():
        await first.layout.stage({first.node: Role("moved", 70 * GB)})
        await first.layout.apply(2)
        await street.exchange()
        second.layout.on_release(told.set)
        with second.layout.writing():
            pass
        assert not told.is_set(), "that one ran under the newest version"
    assert told.is_set() and second.layout.may_advance
    await street.close()


async def test_nonsense_is_refused(tmp_path: Path) -> None:
    street = await Street.open(tmp_path)
    first, second, _ = street.members
    before = second.layout.history
    for payload in (None, [], [b"x"], [b"x", b"y"], [1, 2], {"a": 1}):
        for endpoint in ("layout/exchange", "layout/promise", "layout/accept"):
            with pytest.raises(GarageLiteError):
                await first.cluster.call(second.node, endpoint, payload)
    assert second.layout.history == before
    await street.close()
