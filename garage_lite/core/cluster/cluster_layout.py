"""The cluster's layout as this node knows it: kept as one local row, changed one edit at a time.

An edit is durable before anything here shows it. Every write to the tables holds the *ack lock*:
this node acknowledges a version only once none of its writes runs under an older one. Must not
know how nodes find each other: other nodes' histories come in through `merge`, and who passes
this one on listens with `on_change`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple, TypeVar

from garage_lite.core.disk.replica import Replica
from garage_lite.core.errors import ConfigError, InvalidArgument, LayoutFork
from garage_lite.core.ids import BlockHash, NodeId, partition_of
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.layout.lookup import Lookup
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.layout.statistics import Statistics, statistics
from garage_lite.core.layout.trackers import Tracker
from garage_lite.core.layout.version import LayoutVersion
from garage_lite.core.model.rowkeys import Table, local_row
from garage_lite.core.ports import Clock
from garage_lite.core.quorum import Consistency
from garage_lite.core.table.schema import Update

log = logging.getLogger(__name__)

ROW: Final = local_row(Table.NODE, b"cluster layout")
SINGLE_NODE_ZONE: Final = "dc1"
SINGLE_NODE_TAG: Final = "default"

T = TypeVar("T")

Elect = Callable[[LayoutVersion, LayoutVersion], Awaitable[LayoutVersion]]
"""(current, planned) -> the version that gets the number, decided among nodes."""
Edit = Callable[[LayoutHistory, int], LayoutHistory]
"""(history, now in microseconds) -> history."""


class ZoneRedundancy(NamedTuple):
    """A change of the zone redundancy."""

    at_least: int | None
    """None: as many zones as possible."""


class Skipped(NamedTuple):
    """The nodes for which something was said in their place, each sorted."""

    ack: tuple[NodeId, ...]
    sync: tuple[NodeId, ...]


class ClusterLayout:
    """This node's copy of the layout history, and the edits people make to it."""

    def __init__(
        self,
        replica: Replica,
        clock: Clock,
        node: NodeId,
        configured: Parameters,
        mode: Consistency,
        elect: Elect | None = None,
    ) -> None:
        """Reads the row. `configured`: the replication factors of this node's configuration; they
        count from the next applied version on. `elect` None: this node decides alone. Raises
        StorageFailed on a damaged row."""
        self._replica = replica
        self._clock = clock
        self.node = node
        self._configured = configured
        self.mode = mode
        self._elect = elect
        self._editing = asyncio.Lock()
        self._writing: Counter[int] = Counter()
        """Layout version -> this node's writes that began under it and still run."""
        self._listeners: list[Callable[[], None]] = []
        self._on_release: Callable[[], None] = lambda: None
        row = replica.durable.get(ROW)
        stored = LayoutHistory.decode(row) if row else LayoutHistory.fresh(configured)
        if stored.current.number == 0:
            stored = replace(stored, active=LayoutHistory.fresh(configured).active)
        self._show(stored)
        self._warn_of_other_factors()

    history: LayoutHistory
    lookup: Lookup

    def on_change(self, listener: Callable[[], None]) -> None:
        """`listener()` runs after each change of the history, however it came."""
        self._listeners.append(listener)

    def on_release(self, listener: Callable[[], None]) -> None:
        """`listener()` runs when the last write under an older version ends: there may be more
        to acknowledge."""
        self._on_release = listener

    def owns_block(self, block: BlockHash) -> bool:
        """Whether this node keeps the block by an active version, or there is no layout yet."""
        lookup = self.lookup
        return not lookup.ready or lookup.holds(self.node, partition_of(block), data=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Lookup]:
        """The ack lock: held for the whole of a write, by which `Lookup` it is done.

        Until it is given back this node does not acknowledge a newer version.
        """
        number = self.history.current.number
        self._writing[number] += 1
        try:
            yield self.lookup
        finally:
            self._writing[number] -= 1
            if not self._writing[number]:
                del self._writing[number]
                if number < self.history.current.number:
                    self._on_release()

    @property
    def may_advance(self) -> bool:
        """Whether this node could acknowledge more than it has: then call `advance`."""
        return self._advanced(self.history) != self.history

    async def advance(self) -> None:
        """Acknowledge what can be acknowledged now."""
        await self._edit(lambda history, now_us: history)

    async def synced(self, number: int) -> None:
        """This node has pushed all its rows, in a round that began at ack floor `number`."""
        await self._edit(lambda history, now_us: history.synced(self.node, number))

    @property
    def ready(self) -> bool:
        """Whether a layout was applied: before, nothing can be stored."""
        return self.history.current.ready

    async def stage(
        self, changes: Mapping[NodeId, Role | None], redundancy: ZoneRedundancy | None = None
    ) -> None:
        """Stage roles (None: a removal) and a zone redundancy, all or none.

        Raises InvalidArgument.
        """

        def edit(history: LayoutHistory, now_us: int) -> LayoutHistory:
            for node, role in changes.items():
                history = history.with_role(node, role, now_us)
            if redundancy is None:
                return history
            history = self._with_configured_factors(history, now_us)
            wanted = replace(history.staging.staged_parameters, zone_redundancy=redundancy.at_least)
            return history.with_parameters(wanted, now_us)

        await self._edit(edit)

    async def preview(self) -> tuple[LayoutHistory, Statistics]:
        """What `apply` of the next version would make. Raises NotAllowedHere in plain words."""
        history = self.history
        return await _in_thread(lambda: self._applied(history, history.current.number + 1, 0))

    async def apply(self, number: int) -> Statistics:
        """Make the staged changes into version `number`, which must be the next.

        Raises InvalidArgument for another number or where other changes got it, NotAllowedHere
        where there is no assignment, Unavailable where those who must agree can't be reached.
        """
        known, now_us = self.history, self._clock.now_us()
        before, staged = known.current, known.staging
        applied, _ = await _in_thread(lambda: self._applied(known, number, now_us))
        planned = applied.current
        chosen = planned if self._elect is None else await self._elect(before, planned)

        def edit(history: LayoutHistory, now_us: int) -> LayoutHistory:
            if history.current.number >= number:
                return history
            staging = history.staging
            if chosen == planned and staging == staged:
                staging = staging.emptied(planned.parameters, now_us)
            return history.with_version(chosen, staging)

        await self._edit(edit)
        if chosen != planned:
            raise InvalidArgument(
                f"Layout version {number} was applied from another node at the same time, with"
                " other changes. Look at it (layout show) and apply yours as the next version."
            )
        return statistics(planned, before)

    async def revert(self) -> None:
        """Forget what is staged."""
        await self._edit(lambda history, now_us: history.reverted(now_us))

    async def skip_dead(
        self, number: int, alive: Collection[NodeId], *, allow_missing_data: bool
    ) -> Skipped:
        """Say in the place of nodes that are not `alive` that they acknowledged version `number`;
        with `allow_missing_data` for all nodes that they also synced to it, which gives up what
        only dead ones hold. Raises InvalidArgument.
        """
        skipped = Skipped((), ())

        def edit(history: LayoutHistory, now_us: int) -> LayoutHistory:
            nonlocal skipped
            forced = history.skipping_dead(number, alive, allow_missing_data)
            skipped = Skipped(
                _raised(history, forced, Tracker.ACK), _raised(history, forced, Tracker.SYNC)
            )
            return forced

        await self._edit(edit)
        return skipped

    async def merge(self, other: LayoutHistory) -> None:
        """Join what another node knows. Raises LayoutFork, and joins nothing, where it knows
        another layout by the number of one that is active here."""
        forks = self.history.forks(other)
        if forks:
            raise LayoutFork(
                f"Two different cluster layouts were applied as version {forks[-1]}, and the nodes"
                " of each refuse the other. Apply a new version on the side that is to stay, or"
                " empty the nodes of the other."
            )
        await self._edit(lambda history, now_us: history.merge(other))

    async def use_single_node(self, capacity: int) -> None:
        """Give this node all partitions if no layout was ever applied, as `--single-node` asks.

        `capacity`: bytes of the disks that hold the data. Raises ConfigError where the layout or
        the configuration is that of a cluster.
        """
        if self._configured.replication_factor != 1:
            raise ConfigError(
                "Single-node mode requires replication_factor = 1 in the configuration file."
            )
        others = set(self.history.nodes()) - {self.node}
        if others or self.history.current.number > 1:
            raise ConfigError(
                "Refusing to run in single-node mode: the cluster layout is that of a cluster"
                f" (version {self.history.current.number}, {len(others)} other nodes). Remove"
                " the --single-node flag to run the server in full mode."
            )
        if self.ready:
            return
        role = Role(SINGLE_NODE_ZONE, capacity, (SINGLE_NODE_TAG,))

        def edit(history: LayoutHistory, now_us: int) -> LayoutHistory:
            staged = history.reverted(now_us).with_role(self.node, role, now_us)
            return self._applied(staged, 1, now_us)[0]

        await self._edit(edit)
        log.info("Made a layout for this node alone: zone dc1, capacity %d bytes.", capacity)

    async def _edit(self, edit: Edit) -> None:
        async with self._editing:
            now_us = self._clock.now_us()
            changed = self._advanced(edit(self.history, now_us))
            if changed == self.history:
                return
            await self._replica.apply([Update(ROW, changed.encode())], now_us // 1000, None, True)
            self._show(changed)
        for listener in self._listeners:
            listener()

    def _advanced(self, history: LayoutHistory) -> LayoutHistory:
        return history.advanced(self.node, min(self._writing, default=None), self.mode)

    def _show(self, history: LayoutHistory) -> None:
        self.history = history
        self.lookup = Lookup(history, self.mode)

    def _applied(
        self, history: LayoutHistory, number: int, now_us: int
    ) -> tuple[LayoutHistory, Statistics]:
        before = history.current
        applied = self._with_configured_factors(history, now_us).applied(number, now_us)
        return applied, statistics(applied.current, before)

    def _warn_of_other_factors(self) -> None:
        current = self.history.current.parameters
        wanted = self._with_configured_factors(self.history, 0).staging.staged_parameters
        for what, applied, configured in (
            ("replication factor", current.replication_factor, wanted.replication_factor),
            (
                "data replication factor",
                current.data_replication_factor or current.replication_factor,
                wanted.data_replication_factor or wanted.replication_factor,
            ),
        ):
            if applied != configured:
                log.warning(
                    "The cluster layout has %s %d, the configuration %d: the next layout that is"
                    " applied will have the configured one.",
                    what,
                    applied,
                    configured,
                )

    def _with_configured_factors(self, history: LayoutHistory, now_us: int) -> LayoutHistory:
        staged = history.staging.staged_parameters
        wanted = replace(self._configured, zone_redundancy=staged.zone_redundancy)
        return history if wanted == staged else history.with_parameters(wanted, now_us)


def _raised(before: LayoutHistory, after: LayoutHistory, tracker: Tracker) -> tuple[NodeId, ...]:
    """The nodes that stand higher after than before."""
    old, new = before.trackers, after.trackers
    return tuple(
        node
        for node in before.nodes()
        if new.get(tracker, node, before.floor) > old.get(tracker, node, before.floor)
    )


async def _in_thread(compute: Callable[[], T]) -> T:
    """Many nodes take a while to be assigned, in which requests go on."""
    return await asyncio.get_running_loop().run_in_executor(None, compute)
