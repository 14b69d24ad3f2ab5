"""The versions of the layout that still matter, how far each node is, and what is staged.

While more than one version is *active*, writes go to the holders of every active version and
reads to those of one, so that no read misses an acknowledged write while data moves:

    apply       version n+1 becomes active beside n
    ack         every node's running writes name n+1: nobody writes to n's holders alone
    sync        n's holders, a write quorum of each partition, have pushed their rows: reads move
    sync_ack    all nodes of the newest version read from n+1: n is retired

The history is a CRDT: versions by union above the highest floor, trackers by maximum, staging by
its own rule. Two versions with one number and different content are a *fork*: the election of
core/layout/election.py makes them rare, `forks` tells, and who merges must ask first, because
between them acknowledged writes may be missed; the merge itself keeps the same one everywhere.
Design: Garage 1.0, "Preserving read-after-write consistency", 2023. Must not know time, tables or
connections.

    history = [1, [version, ...], [retired version, ...], trackers, staging]
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from garage_lite.core.codec import decode, encode
from garage_lite.core.crdt import Lww
from garage_lite.core.errors import InvalidArgument, StorageFailed
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.roles import Parameters, Role, Staging
from garage_lite.core.layout.trackers import Tracker, Trackers
from garage_lite.core.layout.version import LayoutVersion
from garage_lite.core.quorum import Consistency, quorums

TAG: Final = 1
RETIRED_MAX: Final = 5
"""Retired versions kept, only to find blocks that have not moved yet (Garage's number)."""


@dataclass(frozen=True, slots=True)
class LayoutHistory:
    active: tuple[LayoutVersion, ...]
    """Ascending by number; never empty."""
    staging: Staging
    retired: tuple[LayoutVersion, ...] = ()
    """Ascending by number."""
    trackers: Trackers = Trackers()

    @classmethod
    def fresh(cls, parameters: Parameters) -> LayoutHistory:
        """Version 0: nobody holds anything yet."""
        staging = Staging(Lww(0, parameters.checked().pack()))
        return cls((LayoutVersion(0, parameters),), staging)

    # --- what holds

    @property
    def current(self) -> LayoutVersion:
        """The newest version."""
        return self.active[-1]

    @property
    def floor(self) -> int:
        """Number of the oldest active version."""
        return self.active[0].number

    def nodes(self) -> tuple[NodeId, ...]:
        """Every node with a role in an active version, sorted."""
        return tuple(sorted({node for version in self.active for node in version.roles}))

    def storage_nodes(self) -> tuple[NodeId, ...]:
        return tuple(sorted({node for version in self.active for node in version.storage_nodes}))

    def ack_floor(self) -> int:
        """No write that began under an older version than this one still runs anywhere."""
        return self.trackers.least(Tracker.ACK, self.nodes(), self.floor)

    def read_version(self) -> int:
        """The newest version whose holders together have met every acknowledged write.

        For each partition and each version but the newest, a write quorum of its holders must
        have pushed what they have; those of the newest have nothing to push.
        """
        if len(self.active) == 1:
            return self.current.number
        safe = self.current.number
        seen: set[frozenset[NodeId]] = set()
        for version in self.active[:-1]:
            if not version.ready:
                continue
            names = version.storage_nodes
            for assignment, needed in _write_quorums(version):
                for holders in assignment:
                    nodes = frozenset(names[index] for index in holders)
                    if nodes not in seen:
                        seen.add(nodes)
                        safe = min(safe, self._pushed(nodes, needed))
        return max(safe, self.floor)

    def _pushed(self, nodes: Collection[NodeId], needed: int) -> int:
        """The newest version that `needed` of `nodes` have synced to."""
        reached = sorted(self.trackers.get(Tracker.SYNC, node, self.floor) for node in nodes)
        return reached[len(reached) - needed]

    # --- what people do

    def with_role(self, node: NodeId, role: Role | None, now_us: int) -> LayoutHistory:
        """Stage a role, or with None a removal. Raises InvalidArgument."""
        return replace(self, staging=self.staging.with_role(node, role, now_us))

    def with_parameters(self, parameters: Parameters, now_us: int) -> LayoutHistory:
        """Stage parameters. Raises InvalidArgument."""
        return replace(self, staging=self.staging.with_parameters(parameters, now_us))

    def staged_roles(self) -> dict[NodeId, Role | None]:
        """Staged changes that would change something."""
        roles = self.current.roles
        return {n: r for n, r in self.staging.staged_roles().items() if roles.get(n) != r}

    def staged_parameters(self) -> Parameters | None:
        """Staged parameters, where they differ from the current ones."""
        staged = self.staging.staged_parameters
        return None if staged == self.current.parameters else staged

    def applied(self, number: int, now_us: int) -> LayoutHistory:
        """With the staged changes made into version `number`, which must be the next.

        Deterministic but for the new staging ground. Raises InvalidArgument for a wrong number,
        NotAllowedHere where the changes make no layout.
        """
        if number != self.current.number + 1:
            raise InvalidArgument(
                f"Invalid new layout version: {number} was given, the next is"
                f" {self.current.number + 1}."
            )
        version = self.current.next(self.staging)
        return self.with_version(version, self.staging.emptied(version.parameters, now_us))

    def with_version(self, version: LayoutVersion, staging: Staging) -> LayoutHistory:
        """With `version`, the next, as the newest, and `staging` as what is staged now."""
        return replace(self, active=(*self.active, version), staging=staging)

    def reverted(self, now_us: int) -> LayoutHistory:
        """With nothing staged."""
        return replace(self, staging=self.staging.emptied(self.current.parameters, now_us))

    def skipping_dead(
        self, number: int, alive: Collection[NodeId], allow_missing_data: bool
    ) -> LayoutHistory:
        """As if the nodes that are not `alive` had acknowledged version `number`.

        With `allow_missing_data` as if all nodes had synced to it, too: what only dead nodes hold
        is given up. Raises InvalidArgument.
        """
        if len(self.active) == 1:
            raise InvalidArgument(
                "This command cannot be called when there is only one live cluster layout version"
            )
        if not self.floor < number <= self.current.number:
            valid = " ".join(str(version.number) for version in self.active[1:])
            raise InvalidArgument(
                f"Invalid version, you may use the following version numbers: {valid}"
            )
        trackers = self.trackers
        for node in self.nodes():
            if allow_missing_data or node not in alive:
                trackers = trackers.raised(Tracker.ACK, node, number)
            if allow_missing_data:
                trackers = trackers.raised(Tracker.SYNC, node, number)
        return replace(self, trackers=trackers)

    # --- what nodes do

    def merge(self, other: LayoutHistory) -> LayoutHistory:
        """Everything both know."""
        known: dict[int, LayoutVersion] = {}
        for version in (*self.retired, *self.active, *other.retired, *other.active):
            mine = known.get(version.number)
            known[version.number] = version if mine is None else _one_of(mine, version)
        floor = max(self.floor, other.floor)
        numbers = sorted(known)
        past = [known[number] for number in numbers if number < floor and known[number].ready]
        return LayoutHistory(
            tuple(known[number] for number in numbers if number >= floor),
            self.staging.merge(other.staging),
            tuple(past[-RETIRED_MAX:]),
            self.trackers.merge(other.trackers),
        )

    def forks(self, other: LayoutHistory) -> tuple[int, ...]:
        """The numbers of active versions that the two know with different content."""
        mine = {version.number: version for version in self.active}
        return tuple(v.number for v in other.active if mine.get(v.number, v) != v)

    def advanced(
        self, node: NodeId, oldest_write: int | None, mode: Consistency = Consistency.CONSISTENT
    ) -> LayoutHistory:
        """After `node` did what it can: its trackers raised, versions nobody reads retired.

        `oldest_write`: the oldest version under which one of its running writes began.
        """
        history = self.settled(mode)
        reached = history.current.number
        ack = reached if oldest_write is None else min(oldest_write, reached)
        trackers = history.trackers.raised(Tracker.ACK, node, ack)
        trackers = trackers.raised(Tracker.SYNC, node, history.floor)
        history = replace(history, trackers=trackers)
        trackers = trackers.raised(Tracker.SYNC_ACK, node, history.read_version())
        return replace(history, trackers=trackers).settled(mode)

    def synced(self, node: NodeId, number: int) -> LayoutHistory:
        """After `node` pushed all its rows in a round begun when `ack_floor` was `number`."""
        return replace(self, trackers=self.trackers.raised(Tracker.SYNC, node, number))

    def settled(self, mode: Consistency) -> LayoutHistory:
        """Without the versions that need no longer be active."""
        floor = self.trackers.least(Tracker.SYNC_ACK, self.current.roles, self.floor)
        if mode is not Consistency.CONSISTENT:
            floor = self.current.number
        if self.current.ready:
            ready = (version.number for version in self.active if version.ready)
            floor = max(floor, next(ready))
        floor = min(floor, self.current.number)
        past = [v for v in (*self.retired, *self.active) if v.number < floor and v.ready]
        kept = replace(
            self,
            active=tuple(v for v in self.active if v.number >= floor),
            retired=tuple(past[-RETIRED_MAX:]),
        )
        return replace(kept, trackers=self.trackers.among(kept.nodes(), kept.floor))

    # --- as bytes

    def encode(self) -> bytes:
        versions = [[v.pack() for v in group] for group in (self.active, self.retired)]
        return encode(TAG, [*versions, self.trackers.pack(), self.staging.pack()])

    @classmethod
    def decode(cls, data: bytes) -> LayoutHistory:
        """Raises StorageFailed on bytes that are no valid history."""
        try:
            active, retired, trackers, staging = decode(data, TAG)
            history = cls(
                tuple(LayoutVersion.unpack(version) for version in active),
                Staging.unpack(staging),
                tuple(LayoutVersion.unpack(version) for version in retired),
                Trackers.unpack(trackers),
            )
            numbers = [version.number for version in (*history.retired, *history.active)]
        except (TypeError, ValueError, AttributeError) as error:
            raise StorageFailed(f"a cluster layout can't be read: {error}") from error
        if not history.active or numbers != sorted(set(numbers)):
            raise StorageFailed("a cluster layout can't be read: its versions are out of order")
        return history


def _write_quorums(
    version: LayoutVersion,
) -> list[tuple[tuple[tuple[int, ...], ...], int]]:
    """The holders of each assignment of `version`, and how many of them make a write quorum."""
    found = []
    for assignment, copies in (
        (version.metadata, version.copies),
        (version.data_only, version.data_copies),
    ):
        if assignment is not None:
            needed = quorums(copies, Consistency.CONSISTENT).write
            found.append((assignment.holders, needed))
    return found


def _one_of(first: LayoutVersion, second: LayoutVersion) -> LayoutVersion:
    """Of two versions with one number, the same whatever the order."""
    if first == second:
        return first
    return max(first, second, key=LayoutVersion.encode)
