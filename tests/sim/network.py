"""A simulated network: the real sessions of core/cluster/rpc.py over simulated connections.

What travels are the frame bodies of real nodes, so calls, errors, credit and cancellation are the
product's own, and nothing passes that could not be put in bytes. A connection behaves as TCP does:
bodies of one direction keep their order; a lost packet is a delay; behind a partition (either
direction alone may be cut) they wait and arrive when it heals, or the connection breaks after a
while, with some of what was under way delivered or not. A node that is slow to begin or to answer
calls makes them overtake each other.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from garage_lite.core.cluster.peers import Endpoints, NotConnected
from garage_lite.core.cluster.rpc import (
    CALL_SECONDS,
    INCOMING_BYTES_MAX,
    Handler,
    Reply,
    Request,
    Session,
)
from garage_lite.core.cluster.transport import Link
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.messages import Budget
from garage_lite.core.wire.outbox import NORMAL
from tests.sim.loop import Process, SimLoop

WRITE_BUFFER_BYTES: Final = 256 * 1024
_WIRE: Final = contextvars.Context()
"""What is on its way belongs to no process: it arrives even if its sender dies."""


@dataclass
class Weather:
    """How the network is: seconds and chances, the same for every link."""

    delay: float = 0.002
    """The least time one way."""
    jitter: float = 0.002
    """Mean of what comes on top."""
    retransmission: float = 0.0
    """Chance that a body is lost and sent again after up to a second."""
    slow_call: float = 0.0
    """Chance that a call waits before its handler, or its answer after it."""
    slow_seconds: float = 2.0
    lost_call: float = 0.0
    """Chance that a call is never answered, whether it was carried out or not."""
    patience: float = 8.0
    """After about so long without news a connection is given up."""
    reconnect: float = 0.5
    bytes_per_second: float = float("inf")


class SimLink:
    """One end of a connection: what Session needs of a Link."""

    def __init__(self, network: SimNetwork, here: SimPeers, there: SimPeers) -> None:
        self.peer = there.node
        self.here = here
        self.there = there
        self.writable = True
        self.closed: asyncio.Future[None] = network.loop.create_future()
        self.session: Session | None = None
        self.other: SimLink | None = None
        self.waiting: deque[bytes] = deque()
        """Sent behind a cut."""
        self.arrived: deque[bytes] = deque()
        self.under_way = 0
        self.last_arrival = 0.0
        self._network = network

    @property
    def is_up(self) -> bool:
        return not self.closed.done()

    def send(self, body: bytes) -> None:
        self.under_way += len(body)
        self.writable = self.under_way < WRITE_BUFFER_BYTES
        self._network.carry(self, body)

    def close(self) -> None:
        self._network.sever(self)

    def abort(self, error: Exception) -> None:
        self._network.sever(self)

    def open(self, opener: bool) -> None:
        """Runs in the process of this end."""
        if self.closed.done():
            return
        self.session = Session(cast(Link, self), opener, self.here.handlers, self.here.budget)
        self.session.on_writable()
        self.receive()

    def receive(self) -> None:
        """Read what has arrived, in its order. Runs in the process of this end."""
        while self.arrived and self.session is not None and not self.closed.done():
            body = self.arrived.popleft()
            self.session.on_body(body)
            if self.other is not None:
                process = self.there.process
                self._network.loop.call_soon(self.other.sent, len(body), context=process.context)

    def sent(self, size: int) -> None:
        """The other end's machine has taken `size` bytes. Runs in the process of this end."""
        self.under_way -= size
        if not self.writable and not self.closed.done():
            self.writable = self.under_way < WRITE_BUFFER_BYTES
            if self.writable and self.session is not None:
                self.session.on_writable()

    def lose(self) -> None:
        """The connection is gone. Runs in the process of this end."""
        if self.closed.done():
            return
        self.closed.set_result(None)
        self.writable = False
        if self.here.links.get(self.peer) is self:
            del self.here.links[self.peer]
        if self.session is not None:
            self.session.on_closed(None)


class _Shaken(Mapping[str, Handler]):
    """A node's handlers, some of whose calls begin late, are answered late, or never."""

    def __init__(self, network: SimNetwork, handlers: Mapping[str, Handler]) -> None:
        self._network = network
        self._handlers = handlers

    def __getitem__(self, endpoint: str) -> Handler:
        return self._network.shaken(self._handlers[endpoint])

    def __iter__(self) -> Any:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)


class SimPeers:
    """The Peers port of one run of one node."""

    def __init__(
        self, network: SimNetwork, process: Process, node: NodeId, endpoints: Endpoints
    ) -> None:
        self.network = network
        self.process = process
        self.node = node
        self.links: dict[NodeId, SimLink] = {}
        self.handlers = _Shaken(network, endpoints.handlers)
        self.budget = Budget(INCOMING_BYTES_MAX)
        self.calls = 0
        """How many were made."""

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
        link = self.links.get(node)
        if link is None or link.session is None:
            raise NotConnected(f"node {node.hex()[:16]} is not connected")
        self.calls += 1
        return await link.session.call(
            endpoint, payload, timeout=timeout, priority=priority, stream=stream
        )

    def connected(self) -> Collection[NodeId]:
        return tuple(sorted(self.links))

    def round_trip(self, node: NodeId) -> float:
        if node not in self.links:
            return float("inf")
        return 2 * self.network.delay_between(self.node, node)


@dataclass
class SimNetwork:
    """All links of a cluster. Nodes come with `attach` and `join`, and go with `leave`."""

    loop: SimLoop
    weather: Weather = field(default_factory=Weather)
    slowness: dict[NodeId, float] = field(default_factory=dict)
    """Seconds added to each way of a node's links."""
    _nodes: dict[NodeId, SimPeers] = field(default_factory=dict)
    _cut: set[tuple[NodeId, NodeId]] = field(default_factory=set)
    """(from, to): nothing passes this way."""
    _connecting: set[frozenset[NodeId]] = field(default_factory=set)
    running: list[asyncio.Task[Any]] = field(default_factory=list)

    # --- nodes

    def attach(self, process: Process, node: NodeId, endpoints: Endpoints) -> SimPeers:
        """The door for a node that starts; nobody reaches it before it joins."""
        return SimPeers(self, process, node, endpoints)

    def join(self, peers: SimPeers) -> None:
        self._nodes[peers.node] = peers
        for other in self._nodes:
            if other != peers.node:
                self._connect_later(peers.node, other)

    def leave(self, node: NodeId, *, silently: bool) -> None:
        """The node's process is gone; `silently`: its machine, too, so that nobody is told."""
        peers = self._nodes.pop(node, None)
        if peers is None:
            return
        for link in list(peers.links.values()):
            if link.other is not None:
                after = self._patience() if silently else self._latency(link)
                self._later(after, link.other, link.other.lose)
        peers.links.clear()

    # --- what breaks

    def cut(self, senders: Collection[NodeId], receivers: Collection[NodeId]) -> None:
        """Nothing passes from the one to the other any more; the way back is another cut."""
        for sender in senders:
            for receiver in receivers:
                if sender != receiver:
                    self._cut.add((sender, receiver))
                    peers = self._nodes.get(sender)
                    if peers is not None and receiver in peers.links:
                        link = peers.links[receiver]
                        self._watch(link, partial(self.is_cut, sender, receiver))

    def isolate(self, nodes: Collection[NodeId], others: Collection[NodeId]) -> None:
        self.cut(nodes, others)
        self.cut(others, nodes)

    def heal(self) -> None:
        """All ways are open: what waited arrives, and what broke is connected again."""
        self._cut.clear()
        for peers in self._nodes.values():
            for link in peers.links.values():
                while link.waiting:
                    self._deliver(link, link.waiting.popleft(), self.loop.random.uniform(0, 0.4))
        names = sorted(self._nodes)
        for at, one in enumerate(names):
            for other in names[at + 1 :]:
                self._connect_later(one, other)

    def freeze(self, node: NodeId) -> None:
        """The node's process is stopped: its peers lose patience in time."""
        peers = self._nodes.get(node)
        if peers is None:
            return
        peers.process.freeze()
        for link in list(peers.links.values()):
            self._watch(link, lambda: peers.process.frozen)

    def drop(self, one: NodeId, other: NodeId) -> None:
        """The connection of the two breaks now, in the middle of whatever it carries."""
        peers = self._nodes.get(one)
        if peers is not None and other in peers.links:
            self.sever(peers.links[other])

    def sever(self, link: SimLink) -> None:
        """Each end notices by itself, soon; what arrives before still counts."""
        for end in (link, link.other):
            if end is not None:
                self._later(self.loop.random.uniform(0, 0.02), end, end.lose)
        self._connect_later(link.here.node, link.there.node)

    def is_cut(self, one: NodeId, other: NodeId) -> bool:
        return (one, other) in self._cut or (other, one) in self._cut

    # --- links

    def delay_between(self, one: NodeId, other: NodeId) -> float:
        return self.weather.delay + self.slowness.get(one, 0) + self.slowness.get(other, 0)

    def carry(self, link: SimLink, body: bytes) -> None:
        if (link.here.node, link.there.node) in self._cut:
            link.waiting.append(body)
        else:
            self._deliver(link, body, 0.0)

    def _deliver(self, link: SimLink, body: bytes, extra: float) -> None:
        """In order within the link, as late as the weather has it."""
        random, weather = self.loop.random, self.weather
        if weather.retransmission and random.random() < weather.retransmission:
            extra += random.uniform(0.2, 1.0)
        start = max(self.loop.time(), link.last_arrival - self._latency(link))
        arrival = start + len(body) / weather.bytes_per_second + self._latency(link) + extra
        link.last_arrival = arrival = max(arrival, link.last_arrival + 1e-6)
        self.loop.call_at(arrival, self._arrive, link, body, context=_WIRE)

    def _arrive(self, link: SimLink, body: bytes) -> None:
        if link.other is None:
            return
        if (link.here.node, link.there.node) in self._cut:
            link.waiting.append(body)
            return
        link.other.arrived.append(body)
        self.loop.call_soon(link.other.receive, context=link.there.process.context)

    def _latency(self, link: SimLink) -> float:
        jitter = self.weather.jitter
        extra = self.loop.random.expovariate(1 / jitter) if jitter else 0.0
        return self.delay_between(link.here.node, link.there.node) + extra

    def _patience(self) -> float:
        return self.weather.patience * self.loop.random.uniform(0.5, 1.5)

    def _later(self, delay: float, end: SimLink, act: Callable[[], None]) -> None:
        """In the process of `end`, after `delay`; the waiting itself is nobody's."""
        context = end.here.process.context
        self.loop.call_later(
            delay, lambda: self.loop.call_soon(act, context=context), context=_WIRE
        )

    def _watch(self, link: SimLink, still: Callable[[], bool]) -> None:
        """Sever a connection over which nothing passes when its ends lose patience."""

        def look() -> None:
            if still() and not link.closed.done():
                self.sever(link)

        self.loop.call_later(self._patience(), look, context=_WIRE)

    def _connect_later(self, one: NodeId, other: NodeId) -> None:
        pair = frozenset((one, other))
        if pair not in self._connecting:
            self._connecting.add(pair)
            delay = self.weather.reconnect * self.loop.random.uniform(0.1, 1.5)
            self.loop.call_later(delay, self._connect, one, other, context=_WIRE)

    def _connect(self, one: NodeId, other: NodeId) -> None:
        self._connecting.discard(frozenset((one, other)))
        here, there = self._nodes.get(one), self._nodes.get(other)
        if here is None or there is None or self.is_cut(one, other):
            return
        if other in here.links or one in there.links or here.process.frozen or there.process.frozen:
            return self._connect_later(one, other)
        first, second = SimLink(self, here, there), SimLink(self, there, here)
        first.other, second.other = second, first
        here.links[other], there.links[one] = first, second
        for link, opener in ((first, True), (second, False)):
            self.loop.call_soon(link.open, opener, context=link.here.process.context)

    # --- slow and silent nodes

    def shaken(self, handler: Handler) -> Handler:
        weather, random = self.weather, self.loop.random
        if not weather.slow_call and not weather.lost_call:
            return handler

        async def handle(request: Request) -> Any:
            fate = random.random()
            if fate < weather.lost_call:
                if random.random() < 0.5:
                    await self._to_its_end(handler(request))
                await asyncio.sleep(1e6)
            elif fate < weather.lost_call + weather.slow_call:
                await asyncio.sleep(random.uniform(0, weather.slow_seconds))
                result = await self._to_its_end(handler(request))
                await asyncio.sleep(random.uniform(0, weather.slow_seconds))
                return result
            return await handler(request)

        return handle

    async def _to_its_end(self, work: Awaitable[Any]) -> Any:
        """A cancellation that comes too late: the work is done all the same."""
        task = asyncio.ensure_future(work)
        self.running.append(task)
        task.add_done_callback(self.running.remove)
        return await asyncio.shield(task)
