"""No node reads by its lease what a write has replaced, once that is acknowledged.

A model of some nodes with clocks of their own rate, calls that take any time or get lost, nodes
that restart and nodes that are cut off, by a random schedule; and the model without each of the
rules, to see that it would notice.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core import lease
from garage_lite.core.lease import (
    CLOCK_ERROR,
    GRANT_US,
    HOLD_US,
    NEVER,
    Grants,
    Lapsing,
    Lease,
    Outstanding,
)
from garage_lite.core.quorum import Consistency, quorums

END_US = 30_000_000


@dataclass
class Node:
    """One node. Its clock began anywhere and runs at its own rate."""

    number: int
    rate: float
    offset: float
    knows: bool = False
    """Whether it has applied the write."""
    grants: Grants[int] = field(init=False)
    lease: Lease[int] = field(init=False)

    def __post_init__(self) -> None:
        self.boot(0.0)

    def clock(self, now: float) -> int:
        return int(self.offset + now * self.rate)

    def boot(self, now: float) -> None:
        self.grants = Grants(self.clock(now))
        self.lease = Lease()


class Stale(AssertionError):
    """A node reads what the acknowledged write has replaced."""


class World:
    """One write, by a writer that has a clock of its own and may be one of the nodes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        count = self.random.choice((2, 3, 3, 4, 5))
        sizes = quorums(count, Consistency.CONSISTENT)
        everybody = tuple(range(count))
        self.readers, self.writers = [(everybody, sizes.read)], [(everybody, sizes.write)]
        self.nodes = [Node(n, self.rate(), self.random.uniform(0, 1e9)) for n in everybody]
        self.boots = [0] * count
        self.writer = Node(-1, self.rate(), self.random.uniform(0, 1e9))
        self.lapsing: Lapsing[int] | None = None
        self.settling = 0.0
        self.acknowledged: float | None = None
        self.lost = self.random.choice((0.0, 0.1, 0.5))
        numbers = [*everybody, self.writer.number]
        pairs = [{one, other} for one in numbers for other in numbers if one < other]
        self.cuts = [pair for pair in pairs if self.random.random() < 0.25]
        """Between them nothing ever passes."""
        self.delay = self.random.choice((1e4, 3e5, 5e6))

    def rate(self) -> float:
        return 1 + self.random.choice((-1, 0, 1)) * CLOCK_ERROR

    def later(self, after: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + after, self._count, event))

    def send(self, one: Node, other: Node, event: Callable[[], None]) -> None:
        """A message: it takes any time, or is lost."""
        cut = {one.number, other.number} in self.cuts
        if not cut and self.random.random() >= self.lost:
            self.later(self.random.random() * self.delay, event)

    def run(self) -> None:
        """Nodes restart, if at all, about when the write is made: that is what matters."""
        write_at = self.random.uniform(5e6, END_US / 2)
        self.later(write_at, self.write)
        for node in self.nodes:
            self.later(self.random.uniform(0, 2e6), partial(self.renew, node))
            if self.random.random() < 0.5:
                self.later(write_at + self.random.gauss(0, 2e6), partial(self.restart, node))
        while self._events and self._events[0][0] < END_US:
            self.now, _, event = heapq.heappop(self._events)
            event()
            self.check()

    # --- what happens

    def renew(self, node: Node) -> None:
        asked, boot = node.clock(self.now), self.boots[node.number]
        node.lease.granted(node.number, asked)
        for other in self.nodes:
            if other is not node:
                self.send(node, other, partial(self.grant, node, other, asked, boot))
        self.later(self.random.uniform(0, lease.RENEW_US * 3), partial(self.renew, node))

    def grant(self, node: Node, by: Node, asked: int, boot: int) -> None:
        by.grants.grant(node.number, by.clock(self.now))
        told = by.knows

        def granted() -> None:
            if boot == self.boots[node.number]:
                node.knows = node.knows or told
                node.lease.granted(by.number, asked)

        self.send(by, node, granted)

    def restart(self, node: Node) -> None:
        self.boots[node.number] += 1
        node.boot(self.now)

    def write(self) -> None:
        """A write quorum applies it, each when the message arrives; others may, or never."""
        ((everybody, needed),) = self.writers
        order = self.random.sample(everybody, len(everybody))
        applied = [self.random.random() * self.delay for _ in range(needed)]
        for number, after in zip(order, applied, strict=False):
            self.later(after, partial(self.apply, number))
        self.later(max(applied) + 1, self.settle)

    def apply(self, number: int) -> None:
        self.nodes[number].knows = True

    def settle(self) -> None:
        self.settling = self.now
        self.lapsing = Lapsing(self.writers, self.writer.clock(self.now))
        for node in self.nodes:
            self.send(self.writer, node, partial(self.tell, node))
        self.wait()

    def tell(self, node: Node) -> None:
        node.knows = True
        outstanding = node.grants.outstanding(node.clock(self.now))

        def applied() -> None:
            assert self.lapsing is not None
            self.lapsing.applied(node.number, outstanding, self.writer.clock(self.now))
            self.wait()

        self.send(node, self.writer, applied)

    def wait(self) -> None:
        assert self.lapsing is not None
        left = self.lapsing.over_us() - self.writer.clock(self.now)
        if left <= 0 and self.acknowledged is None:
            self.acknowledged = self.now
        elif self.acknowledged is None:
            self.later(left / self.writer.rate, self.wait)

    # --- what must hold

    def check(self) -> None:
        if self.acknowledged is None:
            return
        for node in self.nodes:
            if not node.knows and node.clock(self.now) < node.lease.until(self.readers):
                raise Stale(f"node {node.number} at {self.now}")


@given(st.integers(0, 2**32))
def test_what_is_acknowledged_is_read_by_nobody_any_more(seed: int) -> None:
    World(seed).run()


def test_every_write_is_acknowledged_within_a_lease() -> None:
    for seed in range(300):
        world = World(seed)
        world.run()
        assert world.acknowledged is not None
        assert world.acknowledged - world.settling <= GRANT_US / (1 - CLOCK_ERROR) + 10


def _nothing_outstanding(self: Any, now_us: int) -> Outstanding[int]:
    return Outstanding(0, {})


def _forgotten_by_a_restart(self: Any, now_us: int) -> Outstanding[int]:
    named = {node: until - now_us for node, until in self._until.items() if until > now_us}
    return Outstanding(0, named)


def _lapse_by_one(self: Any, holder: int, nodes: Any, needed: int) -> int:
    told = [self._told[node] for node in nodes if node in self._told]
    lapses: list[int] = [now_us + grants.by(holder) for now_us, grants in told]
    return min(lapses, default=1 << 62)


def _one_grant_is_enough(self: Any, nodes: Any, needed: int) -> int:
    lapses: list[int] = [self._lapse(node) for node in nodes]
    return max(lapses, default=NEVER)


@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (lease, "HOLD_US", GRANT_US),
        (lease, "GRANT_US", HOLD_US * 9 // 10),
        (Grants, "outstanding", _nothing_outstanding),
        (Grants, "outstanding", _forgotten_by_a_restart),
        (Lapsing, "_lapse", _lapse_by_one),
        (Lease, "_until", _one_grant_is_enough),
    ],
)
def test_the_model_notices_each_rule_that_is_left_out(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, wrong: Any
) -> None:
    monkeypatch.setattr(owner, name, wrong)

    def stale(seed: int) -> bool:
        try:
            World(seed).run()
        except Stale:
            return True
        return False

    assert any(stale(seed) for seed in range(2000))


def test_a_lease_lasts_from_when_it_was_asked_for() -> None:
    held: Lease[str] = Lease()
    three = [(("here", "one", "two"), 2)]
    held.granted("here", 9000)
    assert held.until(three) == NEVER
    held.granted("one", 1000)
    assert held.until(three) == 1000 + HOLD_US
    held.granted("two", 5000)
    held.granted("two", 3000)
    assert held.until(three) == 5000 + HOLD_US


def test_every_quorum_of_a_change_of_layout_is_needed() -> None:
    held: Lease[str] = Lease()
    held.granted("here", 1000)
    held.granted("one", 1000)
    assert held.until([(("here", "one", "two"), 2), (("here", "four", "five"), 2)]) == NEVER


def test_without_a_layout_nothing_is_held() -> None:
    assert Lease[str]().until([]) == NEVER


def test_nobody_is_waited_for_where_all_have_it() -> None:
    lapsing: Lapsing[str] = Lapsing([(("one", "two"), 2)], 0)
    for node in ("one", "two"):
        lapsing.applied(node, Outstanding(GRANT_US, {"one": 10, "two": 10}), 5)
    assert lapsing.over_us() == NEVER


def test_a_node_long_dead_is_not_waited_for() -> None:
    lapsing: Lapsing[str] = Lapsing([(("one", "two", "dead"), 2)], 0)
    lapsing.applied("one", Outstanding(0, {"two": GRANT_US}), 5)
    assert lapsing.over_us() == GRANT_US
    lapsing.applied("two", Outstanding(0, {"one": GRANT_US}), 7)
    assert lapsing.over_us() == 7


def test_a_node_that_has_left_the_layout_is_waited_for() -> None:
    lapsing: Lapsing[str] = Lapsing([(("one",), 1)], 0)
    lapsing.applied("one", Outstanding(0, {"gone": 1_000_000}), 5)
    assert lapsing.over_us() == 1_000_005


def test_grants_are_forgotten_when_they_have_lapsed() -> None:
    grants: Grants[str] = Grants(0)
    grants.grant("one", GRANT_US)
    assert grants.outstanding(GRANT_US + 1) == (0, {"one": GRANT_US - 1})
    assert grants.outstanding(2 * GRANT_US) == (0, {})
    assert Grants[str](7).outstanding(8) == (GRANT_US - 1, {})
