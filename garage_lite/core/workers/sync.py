"""Anti-entropy: makes this node's rows and those of the other holders the same, again and again.

A round asks every connected peer for the digests of all places that both hold, and joins those
that differ. Rounds come every ROUND_SECONDS, at once when the layout changes or a peer comes back,
and soon again while the layout waits for this node's rows or it recovers. When a write quorum of
the newest holders has every place, the layout is told; places of which this node holds nothing
any more are dropped and never pushed again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from garage_lite.core.cluster.holdings import Pushes, nodes_of, places_of
from garage_lite.core.cluster.place_rows import any_rows, drop_rows
from garage_lite.core.cluster.row_exchange import Comparison
from garage_lite.core.cluster.table_sync import TableSync
from garage_lite.core.errors import DamagedRow, Unavailable
from garage_lite.core.ids import PARTITIONS, NodeId
from garage_lite.core.layout.trackers import Tracker
from garage_lite.core.table.digest import Place, Realm
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.core.workers.runner import BUSY, IDLE, Progress, Step

log = logging.getLogger(__name__)

ROUND_SECONDS: Final = 600.0
"""A fifth more or less, so that nodes don't meet at the same time for ever."""
RETRY_SECONDS: Final = 10.0
"""While something waits for this node's rows, or a peer failed in the middle."""
BATCH_PLACES: Final = 32
PASSES: Final = 3
"""Clients write meanwhile, so that two busy nodes may never be found equal."""
_RECALLED_AT_ONCE: Final = 16
JOINED_AT_ONCE: Final = 4
"""Places; each takes about a megabyte while it is joined."""


class SyncWorker:
    """One step is some places with one peer."""

    name = "Table sync worker"

    def __init__(self, sync: TableSync, *, consistent: bool) -> None:
        """`consistent`: whether reads and writes have quorums; else what was written may be here
        alone, and nothing is dropped."""
        self._exchange = sync.exchange
        self._digests = sync.digests
        self._store = sync.store
        self._layout = sync.layout
        self._recovering = sync.recovering
        self._peers = sync.peers
        self._cluster = sync.cluster
        self._here = sync.cluster.node
        self._registers = sync.tables.registers
        self._clock = sync.tables.clock
        self._entropy = sync.tables.entropy
        self._consistent = consistent
        self._pushes = Pushes()
        self._queue: deque[tuple[NodeId, list[Place]]] = deque()
        self._wanted: set[NodeId] = set()
        """Peers to sync with as soon as may be."""
        self._retry_us = 0
        self._round_us = 0
        """When the next round is due (monotonic); 0: at once."""
        self._layout_known: tuple[Any, ...] = ()
        self._tidied: object = None
        """Since when no stray rows can have come: the round, and the layout's versions."""
        self._wake = asyncio.Event()
        self._asked: dict[Place, tuple[set[NodeId], set[NodeId]]] = {}
        """Of stale places: the peers that answered, whole ones and others."""
        sync.layout.on_change(self._look_at_layout)
        sync.peers.on_met(self._met)

    # --- what others want

    def everything_now(self) -> None:
        """Sync all places with all peers, beginning now."""
        self._round_us = 0
        self._wake.set()

    def _met(self, node: NodeId) -> None:
        self._wanted.add(node)
        self._wake.set()

    def _look_at_layout(self) -> None:
        lookup = self._layout.lookup
        known = (lookup.versions, lookup.ack_floor)
        if known != self._layout_known:
            self._layout_known = known
            self.everything_now()

    @property
    def places_left(self) -> int:
        """Of all peers together."""
        return sum(len(places) for _, places in self._queue)

    def progress(self) -> Progress:
        lines = [f"{self._exchange.moved} rows exchanged since the start"]
        waiting = len(self._pushes.left(self._layout.lookup, self._here))
        if waiting and len(self._layout.lookup.versions) > 1:
            lines.append(f"{waiting} partitions to push for layout version {self._pushes.number}")
        if self._recovering.why is not None:
            lines.append(
                f"recovering {len(self._recovering.left())} partitions: {self._recovering.why}"
            )
        return Progress(queue_length=self.places_left, freeform=tuple(lines))

    # --- steps

    async def work(self) -> Step:
        lookup = self._layout.lookup
        if not lookup.ready or lookup.nodes == (self._here,):
            self._next_round()
            await self._recovering.end_if_done()
            return IDLE
        if not self._recovering.sure:
            return IDLE
        self._plan()
        if not self._queue:
            await self._drop_strays()
            await self._conclude()
            return IDLE
        peer, places = self._queue.popleft()
        try:
            await self._sync(peer, places)
        except (Unavailable, PeerFailed) as error:
            log.debug("sync with node %s: %s", peer.hex()[:16], error)
            self._queue = deque(one for one in self._queue if one[0] != peer)
            self._wanted.add(peer)
            self._retry_us = self._now_us() + int(RETRY_SECONDS * 1_000_000)
        except DamagedRow:
            if self._recovering.why is not None:
                raise
            await self._recovering.begin("metadata is damaged", stale=True)
        await self._conclude()
        return BUSY

    async def wait(self) -> None:
        """Until the next round, or a reason for one."""
        due_us = self._round_us
        if self._wanted or self._is_needed():
            due_us = min(due_us, self._retry_us)
        seconds = max(0.1, (due_us - self._now_us()) / 1_000_000)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
        self._retry_us = 0

    def _is_needed(self) -> bool:
        """Whether something waits for this node's rows, or it for others'."""
        lookup = self._layout.lookup
        pushing = len(lookup.versions) > 1 and self._pushes.left(lookup, self._here)
        return bool(pushing) or self._recovering.why is not None

    def _plan(self) -> None:
        """Queue what is due, unless a round is under way."""
        lookup, now_us = self._layout.lookup, self._now_us()
        self._pushes.begin(lookup.ack_floor)
        connected = self._peers.met & set(self._cluster.peers.connected())
        if now_us >= self._round_us:
            self._next_round()
            self._queue.clear()
            wanted = connected
        elif not self._queue and now_us >= self._retry_us and (self._wanted or self._is_needed()):
            self._retry_us = now_us + int(RETRY_SECONDS * 1_000_000)
            wanted = connected if self._is_needed() else connected & self._wanted
        else:
            return
        self._wanted -= wanted
        mine = places_of(lookup, self._here)
        for peer in sorted(wanted):
            shared = [place for place in mine if peer in nodes_of(lookup, place)]
            for at in range(0, len(shared), BATCH_PLACES):
                self._queue.append((peer, shared[at : at + BATCH_PLACES]))

    def _next_round(self) -> None:
        share = int.from_bytes(self._entropy.token(2), "big") / 0xFFFF
        self._round_us = self._now_us() + int(ROUND_SECONDS * (0.8 + 0.4 * share) * 1_000_000)

    async def _sync(self, peer: NodeId, places: list[Place]) -> None:
        number, begun = self._layout.lookup.ack_floor, self._recovering.round
        for _ in range(PASSES):
            found = await self._exchange.compare(peer, places, self._recovering.is_stale)
            await self._reveal(peer, found, places, begun)
            shown = [place for place in places if not self._recovering.is_stale(place)]
            if await self._recall(peer, shown):
                found = await self._exchange.compare(peer, shown)
            joins = [(p, found.differing[p]) for p in shown if p in found.differing]
            for at in range(0, len(joins), JOINED_AT_ONCE):
                some = joins[at : at + JOINED_AT_ONCE]
                await _together(self._exchange.join(peer, place, theirs) for place, theirs in some)
            same = [place for place in shown if place not in found.unknown]
            for place in same:
                self._pushes.pushed(number, place, peer)
            await self._recovering.merged(same, peer, begun, found.recovering)
            if not joins:
                break
            places = [place for place, _ in joins]
        if found.unknown:
            self._wanted.add(peer)

    async def _recall(self, peer: NodeId, places: Iterable[Place]) -> bool:
        """Where ballots may have been forgotten here, settle what the peer knows of; whether
        there was such a place. Before rows are joined: those that are chosen now are among them."""
        lost = {
            place.partition
            for place in places
            if place.realm is not Realm.DATA and self._recovering.is_recovering(place)
        }
        for at in range(0, PARTITIONS, _RECALLED_AT_ONCE):
            some = lost & set(range(at, at + _RECALLED_AT_ONCE))
            await _together(self._registers.recall(peer, each) for each in sorted(some))
        return bool(lost)

    async def _reveal(
        self, peer: NodeId, found: Comparison, places: Iterable[Place], begun: int
    ) -> None:
        """Empty what is stale here, once enough others have all that was acknowledged."""
        fresh = []
        for place in filter(self._recovering.is_stale, places):
            whole, partial = self._asked.setdefault(place, (set(), set()))
            (partial if place in found.recovering else whole).add(peer)
            empties = self._recovering.may_empty(place, whole, partial)
            if empties is None:
                continue
            if empties and place.realm is not Realm.EVERYWHERE:
                await drop_rows(self._store, place)
            fresh.append(place)
            del self._asked[place]
        if fresh:
            await self._recovering.show(fresh, begun)
            self.everything_now()

    async def _conclude(self) -> None:
        """Tell the layout, and the recovery, of what is reached."""
        await self._recovering.end_if_done()
        history, lookup = self._layout.history, self._layout.lookup
        number = self._pushes.number
        if number != lookup.ack_floor or number <= history.floor:
            return
        reached = history.trackers.get(Tracker.SYNC, self._here, history.floor)
        if reached < number and not self._pushes.left(lookup, self._here):
            # What was accepted here may be chosen, and the new owners have not heard of it.
            await self._registers.settle_left_behind()
            await self._layout.synced(number)

    async def _drop_strays(self) -> None:
        """Drop the rows of places that this node holds in no active version: looked for after
        each change of the versions, and once a round."""
        lookup = self._layout.lookup
        tidied = (lookup.versions, self._round_us)
        if self._tidied == tidied or not self._consistent:
            return
        for place in _all_places():
            if not self._holds(place) and any_rows(self._store, place):
                await drop_rows(self._store, place)
                log.info("Dropped the rows of partition %d: it is held elsewhere.", place.partition)
            await asyncio.sleep(0)
        self._digests.forget(lambda place: not self._holds(place))
        self._tidied = tidied

    def _holds(self, place: Place) -> bool:
        return self._here in nodes_of(self._layout.lookup, place)

    def _now_us(self) -> int:
        return self._clock.monotonic_us()


def _all_places() -> Iterable[Place]:
    for realm in (Realm.METADATA, Realm.DATA):
        for partition in range(PARTITIONS):
            yield Place(realm, partition)


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All at once; the first error ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for one in work:
                tasks.create_task(one)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
