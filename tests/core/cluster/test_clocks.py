"""A node's clock among others' in a real mesh."""

from __future__ import annotations

import logging

import pytest

from garage_lite.core.cluster.clocks import Clocks
from garage_lite.core.wire.clock_check import GRACE_US, ClockState
from garage_lite.system import SystemClock

from .mesh_world import MeshNode, full_mesh, nodes, until

DAY = 86_400_000_000


@pytest.fixture(autouse=True)
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garage_lite.core.cluster.mesh_link.PING_SECONDS", 0.1)


class WrongClock(SystemClock):
    """The machine's clock, off by some time."""

    def __init__(self, off_us: int) -> None:
        self.off_us = off_us
        self.later_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.off_us

    def monotonic_us(self) -> int:
        return super().monotonic_us() + self.later_us


async def join_all(all_nodes: list[MeshNode]) -> None:
    for other in all_nodes[1:]:
        await all_nodes[0].running.connect_to(other.peer)
    await full_mesh(all_nodes)
    await until(lambda: all(len(n.running.skews_us()) == len(all_nodes) - 1 for n in all_nodes))


async def restart_with(node: MeshNode, clock: WrongClock, monkeypatch: pytest.MonkeyPatch) -> None:
    await node.stop()
    with monkeypatch.context() as patched:
        patched.setattr("tests.core.cluster.mesh_world.SystemClock", lambda: clock)
        await node.start()


async def test_one_wrong_clock_among_three(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    clock = WrongClock(DAY)
    async with nodes(3) as (a, b, c):
        await restart_with(c, clock, monkeypatch)
        await join_all([a, b, c])
        wrong, right = Clocks(c.running, clock, 0), Clocks(a.running, SystemClock(), 0)
        assert wrong.judgement().state is ClockState.INSANE
        assert not wrong.is_sane()
        assert "24 hours ahead" in c.running.complaints.alarms["clock"]
        assert right.is_sane()
        assert f"The clock of node {c.id.hex()[:16]} is more than 10 seconds ahead" in caplog.text
        clock.off_us = 0
        await until(lambda: wrong.judgement().state is ClockState.GOOD)
        wrong.look()
        assert wrong.is_sane()
        assert "clock" not in c.running.complaints.alarms
        assert "agrees with its peers' again" in caplog.text


async def test_a_clock_that_was_never_set_waits_for_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(2) as (a, b):
        clock = WrongClock(-20_000 * DAY)
        await restart_with(b, clock, monkeypatch)
        floor_us = SystemClock().now_us() - DAY
        unset = Clocks(b.running, clock, floor_us)
        assert unset.judgement().state is ClockState.WAITING
        await join_all([a, b])
        unset.look()
        assert unset.judgement().state is ClockState.INSANE
        assert Clocks(a.running, SystemClock(), floor_us).is_sane(), "who doubts has no vote"
        clock.off_us = 0
        await until(lambda: unset.judgement().state is ClockState.GOOD)


async def test_a_lone_node_takes_its_clock_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(1) as (a,):
        clock = WrongClock(-20_000 * DAY)
        alone = Clocks(a.running, clock, SystemClock().now_us())
        assert not alone.is_sane()
        clock.later_us = GRACE_US
        alone.look()
        assert alone.is_sane()
        assert "no peer shows another" in a.running.complaints.alarms["clock"]
