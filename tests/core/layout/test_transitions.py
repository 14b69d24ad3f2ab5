"""No read misses an acknowledged write while layouts change, whatever the order of events.

A model of several nodes that each know their own copy of the history: writes that take a while,
sync rounds that take a while, gossip between two nodes at a time, new versions meanwhile. One
partition is enough: the rules treat each alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from garage_lite.core.ids import NodeId
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.layout.lookup import Lookup
from garage_lite.core.layout.roles import Role
from garage_lite.core.quorum import Consistency
from tests.core.layout.build import GB, history, node

PARTITION = 5
MODE = Consistency.CONSISTENT


@dataclass
class Write:
    number: int
    began_under: int
    sets: list[tuple[frozenset[NodeId], int]]
    delivered: set[NodeId] = field(default_factory=set)

    @property
    def acknowledged(self) -> bool:
        return all(len(nodes & self.delivered) >= needed for nodes, needed in self.sets)


@dataclass
class Member:
    """One node: what it knows of the layout, what it holds, what it is doing."""

    id: NodeId
    known: LayoutHistory
    rows: set[int] = field(default_factory=set)
    writes: list[Write] = field(default_factory=list)
    sync: tuple[int, set[int]] | None = None
    """The round under way: its label, and the rows it began with."""

    def lookup(self) -> Lookup:
        return Lookup(self.known, MODE)

    def advance(self) -> None:
        oldest = min((write.began_under for write in self.writes), default=None)
        self.known = self.known.advanced(self.id, oldest)


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        start = history((1, "a", GB), (2, "b", GB), (3, "c", GB)).settled(MODE)
        self.members = {node(n): Member(node(n), start) for n in range(1, 6)}
        self.acknowledged: set[int] = set()
        self.written = 0
        self.latest = start
        self.cut_off = node(5)
        """Hears nothing new of the layout for now, but writes and holds."""

    def step(self) -> None:
        member = self.random.choice(list(self.members.values()))
        often = [self.deliver, self.sync, self.gossip]
        rarely = [self.write, self.finish, self.read]
        self.random.choice([*often, *often, *rarely])(member)
        member.advance()

    def write(self, member: Member) -> None:
        sets = member.lookup().write_sets(PARTITION)
        self.written += 1
        write = Write(
            self.written,
            member.known.current.number,
            [(frozenset(asked.nodes), asked.needed) for asked in sets],
        )
        member.writes.append(write)

    def deliver(self, member: Member) -> None:
        if member.writes:
            write = self.random.choice(member.writes)
            nodes = sorted({target for targets, _ in write.sets for target in targets})
            target = self.random.choice(nodes)
            write.delivered.add(target)
            self.members[target].rows.add(write.number)

    def finish(self, member: Member) -> None:
        """The caller hears; the write no longer counts as running."""
        for write in list(member.writes):
            if write.acknowledged:
                self.acknowledged.add(write.number)
                member.writes.remove(write)

    def sync(self, member: Member) -> None:
        """Begin a round, or end it: all that was there at its beginning is with every holder."""
        if member.sync is None:
            member.sync = (member.known.ack_floor(), set(member.rows))
            return
        label, rows = member.sync
        member.sync = None
        for asked in member.lookup().write_sets(PARTITION):
            for target in asked.nodes:
                self.members[target].rows |= rows
        member.known = member.known.synced(member.id, label)

    def gossip(self, member: Member) -> None:
        other = self.random.choice(list(self.members.values()))
        if self.cut_off not in (member.id, other.id):
            member.known = member.known.merge(other.known)

    def read(self, member: Member) -> None:
        asked = member.lookup().read_set(PARTITION)
        assert asked is not None
        answering = self.random.sample(sorted(asked.nodes), asked.needed)
        seen = set().union(*(self.members[target].rows for target in answering))
        assert self.acknowledged <= seen, f"read under version {asked.version}"

    def apply(self) -> None:
        """One person changes the layout, by the newest version there is."""
        chosen = self.random.sample(range(1, 6), 3)
        staged = self.latest.reverted(1)
        for number in range(1, 6):
            role = Role("abcde"[number - 1], GB) if number in chosen else None
            staged = staged.with_role(node(number), role, 2)
        self.latest = staged.applied(self.latest.current.number + 1, 3)
        member = self.random.choice(list(self.members.values()))
        member.known = member.known.merge(self.latest)

    def run(self, versions: int, steps: int) -> None:
        for _ in range(versions):
            for _ in range(steps):
                self.step()
            self.apply()
            self.cut_off = node(self.random.randint(1, 5))
        self.settle()

    def settle(self) -> None:
        """With everybody up, every transition ends."""
        for _ in range(12):
            for member in self.members.values():
                for write in member.writes:
                    for targets, _ in write.sets:
                        write.delivered |= targets
                        for target in targets:
                            self.members[target].rows.add(write.number)
                self.finish(member)
                for other in self.members.values():
                    member.known = member.known.merge(other.known)
                member.advance()
                self.sync(member)
                self.read(member)
        newest = max(member.known.current.number for member in self.members.values())
        for member in self.members.values():
            assert [version.number for version in member.known.active] == [newest]


@pytest.mark.parametrize("seed", range(12))
def test_no_read_misses_an_acknowledged_write(seed: int) -> None:
    World(seed).run(versions=3, steps=100)


def test_the_model_sees_a_broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads that move to the newest version at once: the reason for the trackers."""
    monkeypatch.setattr(LayoutHistory, "read_version", lambda self: self.current.number)
    with pytest.raises(AssertionError, match="read under version"):
        for seed in range(60):
            World(seed).run(versions=3, steps=100)


def test_the_model_sees_rounds_that_begin_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync rounds labelled with the newest version while older writes still run."""
    monkeypatch.setattr(LayoutHistory, "ack_floor", lambda self: self.current.number)
    with pytest.raises(AssertionError, match="read under version"):
        for seed in range(40):
            World(seed).run(versions=3, steps=100)
