"""The settings that every node holds (buckets, names, keys), read here and yet never stale.

A node reads its own rows of these tables under a lease (core/lease.py): it asks its peers, again
and again while it serves requests, what has changed since it asked last, and takes that in. A
quorum of answers makes its rows as good as a read from a quorum, for some seconds. What a request
needs beyond that (the lease has lapsed; a name is unknown here and may be new) is one more such
round, shared by all who wait. A change of a setting is acknowledged only when every node has it, or
has lost its lease. A node alone does none of this. Must not know what the rows say.

    settings/lease:   [layout version, [run, number] | nil]
                      -> [run, number, [key, value, ...] | nil]
        `run` names one life of the answering node, `number` its last change; the rows are those
        changed since the number that was told. nil: too much to tell; all rows must be read.
    settings/applied: [layout version, [[key, value], ...]]
                      -> [anybody us, {node: us, ...}]
        The rows are applied on return; what grants given before may still be held, and how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final

from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.quorum_calls import DEADLINE_SECONDS, QuorumCalls
from garage_lite.core.cluster.quorum_rows import QuorumRows
from garage_lite.core.cluster.row_service import Flags, Question, RowService
from garage_lite.core.cluster.rpc import Request
from garage_lite.core.disk.replica import Replica
from garage_lite.core.errors import (
    GarageLiteError,
    InvalidArgument,
    NodeStopping,
    QuorumNotReached,
    Recovering,
    StaleLayout,
    StorageFailed,
)
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.lookup import Lookup, NodeSet
from garage_lite.core.lease import (
    GRANT_US,
    NEVER,
    RENEW_US,
    Grants,
    Lapsing,
    Lease,
    Outstanding,
)
from garage_lite.core.limits import (
    ROWS_ANSWER_BYTES_MAX,
    SETTINGS_FEED_ROWS_MAX,
    TRANSACTION_BYTES_MAX,
)
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.ports import Clock, Entropy
from garage_lite.core.quorum import Verdict
from garage_lite.core.table.feed import Feed
from garage_lite.core.table.schema import Change, Update, is_everywhere
from garage_lite.core.wire.outbox import URGENT

log = logging.getLogger(__name__)

RENEW: Final = "settings/lease"
APPLIED: Final = "settings/applied"
IDLE_US: Final = 300_000_000
"""A node that nobody asks for so long renews no lease: its next request takes one round more."""
LOOKS_APART_SECONDS: Final = 0.05
"""Strangers may ask for unknown names as often as they like; all who ask meanwhile share one."""
_FLAGS: Final = Flags.MERGE | Flags.DELETES
"""A node whose disk is full must still learn of what was revoked."""
_PAGE_ROWS: Final = 1_000
_PART_BYTES: Final = TRANSACTION_BYTES_MAX // 2
_SETTINGS: Final = (bytes((Table.BUCKET, 0)), bytes((Table.OBJECT, 0)))

Position = tuple[bytes, int]
"""Up to where this node knows the changes of another: the name of its run, the change's number."""


class SettingsLease:
    """One for the node, made by `Tables`."""

    def __init__(
        self,
        replica: Replica,
        rows: RowService,
        quorum: QuorumRows,
        layout: ClusterLayout,
        cluster: Cluster,
        clock: Clock,
        entropy: Entropy,
        catch_up: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        """Answers peers from now on. `catch_up(node)`: learn the layout that `node` knows."""
        self._replica = replica
        self._rows = rows
        self._quorum = quorum
        self._layout = layout
        self._cluster = cluster
        self._clock = clock
        self._catch_up = catch_up
        self._here = cluster.node
        self._calls = QuorumCalls(cluster)
        self._run = entropy.token(8)
        self._feed = Feed(SETTINGS_FEED_ROWS_MAX)
        self._grants: Grants[NodeId] = Grants(clock.monotonic_us())
        self._lease: Lease[NodeId] = Lease()
        self._known: dict[NodeId, Position] = {}
        self._alone = False
        self._until_us = NEVER
        self._used_us = NEVER
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")
        self._keeping: asyncio.Task[None] | None = None
        self._started = False
        replica.listen(self._changed)
        cluster.endpoints.serve(RENEW, self._on_renew)
        cluster.endpoints.serve(APPLIED, self._on_applied)
        layout.on_change(self._layout_changed)
        self._reckon()

    # --- reading

    @property
    def valid(self) -> bool:
        """Whether this node's rows hold now every change that was acknowledged."""
        if self._alone:
            return True
        self._used_us = self._clock.monotonic_us()
        return self._used_us < self._until_us

    async def fresh(self) -> None:
        """This node's rows hold every change acknowledged before the call. Raises
        QuorumNotReached, NodeStopping, StorageFailed."""
        if not self.valid:
            await self.look()

    async def look(self) -> None:
        """As `fresh`, and also what is new and was acknowledged before the call: a bucket, a
        name, a key. Raises as it does."""
        if self._alone:
            return
        if self._looking is not None:
            # It began too early to know all that was acknowledged by now.
            await asyncio.wait([self._looking])
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)
        looking = self._looking
        await asyncio.wait([looking])
        if looking.cancelled():
            raise NodeStopping
        looking.result()

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, self._looked_at + LOOKS_APART_SECONDS - now))
        self._looked_at = asyncio.get_running_loop().time()
        await self._renew()

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()

    # --- holding a lease

    def start(self) -> None:
        """Keep the lease while it is used, once there are other nodes."""
        self._started = True
        self._layout_changed()

    async def stop(self) -> None:
        self._started = False
        tasks = [task for task in (self._keeping, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._calls.close()

    def _layout_changed(self) -> None:
        self._reckon()
        if self._started and self._keeping is None and not self._alone:
            self._keeping = asyncio.create_task(self._keep())

    def _reckon(self) -> None:
        lookup = self._layout.lookup
        self._alone = not lookup.ready or lookup.nodes == (self._here,)
        # Writers don't wait for a node without a role.
        holds = self._here in lookup.nodes
        readers = map(_quorum, lookup.everywhere_readers())
        self._until_us = self._lease.until(readers) if holds else NEVER

    async def _keep(self) -> None:
        try:
            while not self._alone:
                idle = self._clock.monotonic_us() - self._used_us > IDLE_US
                if not idle and self._here in self._layout.lookup.nodes:
                    with contextlib.suppress(GarageLiteError):
                        await self._renew()
                await asyncio.sleep(RENEW_US / 1_000_000)
        finally:
            self._keeping = None

    async def _renew(self) -> None:
        """What a read quorum had applied before the call is applied here on return. Raises
        QuorumNotReached, StorageFailed."""
        lookup = self._layout.lookup
        stale = await self._ask_all(lookup)
        if stale is not None:
            await self._catch_up(stale)
            lookup = self._layout.lookup
            if await self._ask_all(lookup) is not None:
                raise QuorumNotReached("the cluster layout is changing")

    async def _ask_all(self, lookup: Lookup) -> NodeId | None:
        """The node that found this node's layout too old, if one did."""
        asked_us = self._clock.monotonic_us()
        readers = lookup.everywhere_readers()
        own = self._rows.may_answer(_SETTINGS[0])
        if own:
            self._lease.granted(self._here, asked_us)
            self._reckon()
            if all(one.needed == 1 and self._here in one.nodes for one in readers):
                return None

        async def ask(node: NodeId) -> None:
            if node != self._here:
                await self._ask(node, lookup, asked_us)
            elif not own:
                raise Recovering

        asked = await self._calls.write(readers, ask, 0)
        if asked.verdict() is Verdict.DONE:
            return None
        for node in asked.failed_with(StaleLayout):
            return node
        raise asked.error()

    async def _ask(self, node: NodeId, lookup: Lookup, asked_us: int) -> None:
        """Take in what `node` knows and this node may not."""
        known = self._known.get(node)
        payload = [lookup.versions[-1], None if known is None else list(known)]
        reply = await self._cluster.call(
            node, RENEW, payload, timeout=DEADLINE_SECONDS, priority=URGENT
        )
        match reply.payload:
            case [bytes() as run, int() as number, list() | None as rows]:
                if rows is None:
                    await self._take_all(node, lookup)
                else:
                    await self._take(_settings(zip_longest(rows[::2], rows[1::2])))
                self._known[node] = (run, number)
                self._lease.granted(node, asked_us)
                self._reckon()
                return
        raise StorageFailed("a peer answered with what is no lease")

    async def _take_all(self, node: NodeId, lookup: Lookup) -> None:
        start, end = _SETTINGS
        only = NodeSet(0, (node,), 1)
        while True:
            answers = await self._quorum.ask(lookup, only, Question.RANGE, start, end, _PAGE_ROWS)
            await self._take(_settings(answers[node].rows.items()))
            reach = answers[node].reach
            if reach is None:
                return
            start = reach + b"\x00"

    async def _take(self, rows: Sequence[Update]) -> None:
        part: list[Update] = []
        size = 0
        for row in rows:
            if part and size + len(row.value) > _PART_BYTES:
                await self._rows.write(part, (), _FLAGS)
                part, size = [], 0
            part.append(row)
            size += len(row.key) + len(row.value) + 16
        if part:
            await self._rows.write(part, (), _FLAGS)

    # --- granting leases

    def _changed(self, key: bytes, value: bytes | None) -> None:
        self._feed.changed(key)

    async def _on_renew(self, request: Request) -> list[Any]:
        match request.payload:
            case [int() as version, None]:
                since = None
            case [int() as version, [bytes() as run, int() as number]]:
                since = self._feed.since(number) if run == self._run else None
            case _:
                raise InvalidArgument("a peer asked for what is no lease")
        self._rows.refuse_stale(version)
        if not self._rows.may_answer(_SETTINGS[0]):
            raise Recovering
        self._grants.grant(request.peer, self._clock.monotonic_us())
        return [self._run, self._feed.number, self._told(since)]

    def _told(self, keys: list[bytes] | None) -> list[bytes] | None:
        if keys is None:
            return None
        told: list[bytes] = []
        size = 0
        for key in keys:
            value = self._replica.durable.get(key)
            if value is not None:
                told += (key, value)
                size += len(key) + len(value)
            if size > ROWS_ANSWER_BYTES_MAX:
                return None
        return told

    # --- writing

    async def settle(self, changes: Sequence[Change]) -> None:
        """After a write quorum has applied `changes`: every node that may read by its lease has
        applied them, on return; as long as a lease lasts at most."""
        if self._alone:
            return
        lookup = self._layout.lookup
        holders = lookup.everywhere_sets()
        lapsing: Lapsing[NodeId] = Lapsing(map(_quorum, holders), self._clock.monotonic_us())
        rows = [tuple(change) for change in changes if is_everywhere(change.key)]
        payload = [lookup.versions[-1], rows]

        async def tell(node: NodeId) -> None:
            lapsing.applied(node, await self._tell(node, payload), self._clock.monotonic_us())

        nodes = dict.fromkeys(node for one in holders for node in one.nodes)
        waiting = {asyncio.create_task(tell(node)) for node in nodes}
        try:
            while (left_us := lapsing.over_us() - self._clock.monotonic_us()) > 0:
                if not waiting:
                    await asyncio.sleep(left_us / 1_000_000)
                    continue
                done, waiting = await asyncio.wait(
                    waiting, timeout=left_us / 1_000_000, return_when=asyncio.FIRST_COMPLETED
                )
                await _ended(done)
        finally:
            for task in waiting:
                task.cancel()
            await _ended(waiting)

    async def _tell(self, node: NodeId, payload: list[Any]) -> Outstanding[NodeId]:
        reply = await self._cluster.call(
            node, APPLIED, payload, timeout=GRANT_US / 1_000_000, priority=URGENT
        )
        match reply.payload:
            case [int() as anybody, dict() as named] if _are_times(named):
                return Outstanding(anybody, named)
        raise StorageFailed("a peer answered a change of settings with what is no answer")

    async def _on_applied(self, request: Request) -> list[Any]:
        match request.payload:
            case [int() as version, list() as rows]:
                self._rows.refuse_stale(version)
                await self._rows.write(_settings(rows), (), _FLAGS)
                outstanding = self._grants.outstanding(self._clock.monotonic_us())
                return [outstanding.anybody, dict(outstanding.named)]
        raise InvalidArgument("a peer sent what is no change of settings")


def _settings(rows: Iterable[Any]) -> list[Update]:
    """Rows as a peer has sent them. Raises StorageFailed."""
    found: list[Update] = []
    for row in rows:
        match row:
            case [bytes() as key, bytes() as value] if key[1:] and is_everywhere(key):
                found.append(Update(key, value))
            case _:
                raise StorageFailed("a peer sent what is no row of settings")
    return found


def _are_times(named: dict[Any, Any]) -> bool:
    return all(isinstance(node, bytes) and isinstance(us, int) for node, us in named.items())


def _quorum(nodes: NodeSet) -> tuple[tuple[NodeId, ...], int]:
    return nodes.nodes, nodes.needed


async def _ended(tasks: Collection[asyncio.Task[None]]) -> None:
    """Nodes that can't be told are waited for instead; anything else that went wrong is raised."""
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception) and not isinstance(
            outcome, GarageLiteError | TimeoutError
        ):
            raise outcome
