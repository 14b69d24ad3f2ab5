"""The mesh: one encrypted link to every other node, which carries calls both ways.

`Mesh` is the real `Peers`. It listens, dials whoever it knows and is not linked to, greets on
each new link, pings, and closes what is dead. Who is admitted is core/cluster/admission.py's
business, who is known and when to dial core/wire/peering.py's, telling others gossip.py's.

    mesh/hello: greeting -> [greeting, the caller's IP address as seen here]
    mesh/alarm: text -> nil      a peer has found something wrong with this node
    mesh/join:  nil -> {rpc_secret, rpc_admission, peers}     on links made with an invitation

A stranger (a command line, which shows a fresh key and the cluster's secret) may greet or call
the operations, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from garage_lite.core.cluster.admission import Admission, Memory, NotAdmitted, Removed
from garage_lite.core.cluster.complaints import Complaints
from garage_lite.core.cluster.dialing import first_reached, resolved
from garage_lite.core.cluster.door import ALARM, HELLO, Door
from garage_lite.core.cluster.gossip import GOSSIP, Gossip
from garage_lite.core.cluster.identity import NodeKey
from garage_lite.core.cluster.link_table import LinkTable
from garage_lite.core.cluster.mesh_link import PING, MeshLink, pong
from garage_lite.core.cluster.mesh_view import PeerView, view_of
from garage_lite.core.cluster.peers import Endpoints, NotConnected
from garage_lite.core.cluster.relay import RELAY, RELAYED, Relays
from garage_lite.core.cluster.rpc import CALL_SECONDS, Handler, Reply, Request, RpcServer, Session
from garage_lite.core.cluster.transport import Link, Unreachable, connect
from garage_lite.core.errors import InvalidArgument, NodeError
from garage_lite.core.ids import NodeId
from garage_lite.core.ports import Clock, Entropy
from garage_lite.core.wire.address import Address, Peer, TcpAddress
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.greeting import BOOT_BYTES, Facts, Greeting, read_greeting
from garage_lite.core.wire.handshake import SEED_BYTES, Handshake
from garage_lite.core.wire.interfaces import WILDCARDS, told_addresses
from garage_lite.core.wire.join_string import Invitation
from garage_lite.core.wire.members import Mode
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.core.wire.outbox import NORMAL, URGENT
from garage_lite.core.wire.peering import ADDRESSES_MAX, LinkName, PeerBook, Source

log = logging.getLogger(__name__)

GREETING_SECONDS: Final = 10.0
PING_TIMEOUT_SECONDS: Final = 5.0
DIALS_MAX: Final = 16
"""Nodes dialled at once."""


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """What the configuration says."""

    network_key: bytes = field(repr=False)
    bound: Address | None
    """Where to listen; None: accept no connection."""
    public: TcpAddress | None = None
    subnet: str | None = None
    bind_outgoing: bool = False
    bootstrap: tuple[Peer, ...] = ()
    mode: Mode = Mode.SECRET
    ping_seconds: float = PING_TIMEOUT_SECONDS
    """How long a ping may take."""
    call_seconds_max: float | None = None
    """No call may take longer, whatever its caller allows."""


class Mesh:
    """One for the node. `serve`, then `start` once what answers calls is ready; `stop` before
    that ends."""

    def __init__(
        self,
        settings: MeshSettings,
        clock: Clock,
        entropy: Entropy,
        machine_hosts: Callable[[], list[str]] = list,
    ) -> None:
        """`machine_hosts` tells the machine's IP addresses."""
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._machine_hosts = machine_hosts
        self.boot = entropy.token(BOOT_BYTES)
        self.bound = settings.bound
        """Where it listens; with the real port, once started."""
        self.complaints = Complaints(clock)
        self._facts: dict[str, Callable[[], Any]] = {}
        self._serial = 0
        self._wake = asyncio.Event()
        self._dials = asyncio.Semaphore(DIALS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[Callable[[NodeId], None]] = []

    def serve(self, key: NodeKey, endpoints: Endpoints) -> Mesh:
        """Take the node's key and what it answers; itself, as the door to the others."""
        settings = self._settings
        self.key = key
        self._endpoints = endpoints
        configured = {peer.node for peer in settings.bootstrap}
        self.admission = Admission(key.node, settings.mode, configured, self._clock, self._entropy)
        self.admission.on_change(self._shut_out)
        self.book = PeerBook(key.node)
        self._links = LinkTable(
            self.book,
            self._clock,
            self._entropy,
            self._spawn,
            settings.ping_seconds,
            self._wake.set,
        )
        self._gossip = Gossip(
            self.book, self.admission, self._clock, self._plain_call, self.connected, self._wake.set
        )
        self._server = RpcServer(
            key,
            settings.network_key,
            self._entropy,
            handlers_for=self._door,
            others=self.admission.network_keys,
            on_refused=self.complaints.refused,
        )
        self._relays = Relays(self._links, self._server.accept)
        endpoints.serve(RELAY, self._relays.carry)
        endpoints.serve(RELAYED, self._relays.answer)
        endpoints.serve(PING, self._answer_ping)
        endpoints.serve(GOSSIP, self._gossip.answer)
        endpoints.serve(ALARM, self._take_alarm)
        return self

    def tell(self, name: str, fact: Callable[[], Any]) -> None:
        """Tell every peer `fact()`, something small, with each ping."""
        self._facts[name] = fact

    def on_connected(self, listener: Callable[[NodeId], None]) -> None:
        """`listener(node)` runs when a node can be called that could not before."""
        self._listeners.append(listener)

    async def start(self, memory: Memory) -> Address | None:
        """Read what `memory` kept, listen, begin to dial. The address listened on. Raises
        StartupError, StorageFailed."""
        await self.admission.load(memory)
        self._gossip.load(memory)
        for peer in self._settings.bootstrap:
            self.book.learn(peer.node, peer.address, Source.CONFIGURED, self._now_ms())
        if self._settings.bound is not None:
            self.bound = await self._server.start(self._settings.bound)
            log.info("RPC listens on %s", self.bound)
        self._spawn(self._dial_all())
        self._spawn(self._gossip.run())
        return self.bound

    async def stop(self) -> None:
        """Say goodbye to all; no call is answered any more, every call of this node fails."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._gossip.save()
        await self._server.stop()
        await self._links.close()

    # --- the port

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
        best = self._links.best(node)
        if best is None:
            raise NotConnected(f"node {node.hex()[:16]} is not connected")
        if self._settings.call_seconds_max is not None:
            timeout = min(timeout, self._settings.call_seconds_max)
        return await best.session.call(
            endpoint, payload, timeout=timeout, priority=priority, stream=stream
        )

    def connected(self) -> Collection[NodeId]:
        return self._links.connected()

    def round_trip(self, node: NodeId) -> float:
        best = self._links.best(node)
        if best is None:
            return float("inf")
        return best.pulse.round_trip_us(self._clock.monotonic_us()) / 1_000_000

    # --- what people see and do

    def peers(self) -> list[PeerView]:
        """Every known node but this one."""
        now_us = self._clock.monotonic_us()
        return [view_of(node, self.book, self._links, now_us) for node in sorted(self.book.nodes)]

    def facts_of(self, node: NodeId) -> Facts:
        """What it told last; empty where it was never connected."""
        return self._links.facts(node)

    def skews_us(self) -> list[int]:
        """How far the clocks of the connected peers are ahead of this node's, where known."""
        found = (best.pulse.skew_us for best in self._links.best_links())
        return [skew for skew in found if skew is not None]

    def own_addresses(self, link_host: str | None = None) -> tuple[TcpAddress, ...]:
        """Where others may reach this node, as far as it knows; `link_host` is its end of the
        link on which it is asked."""
        machine = self._machine_hosts()
        settings = self._settings
        return told_addresses(settings.public, self.bound, settings.subnet, machine, link_host)

    def published_addresses(self) -> tuple[TcpAddress, ...]:
        """The same for those who have no link to it yet, the likeliest first: what is configured,
        then all the machine has."""
        found = dict.fromkeys(self.own_addresses())
        bound = self.bound
        if isinstance(bound, TcpAddress) and bound.host in WILDCARDS:
            found |= dict.fromkeys(TcpAddress(host, bound.port) for host in self._machine_hosts())
        return tuple(found)[:ADDRESSES_MAX]

    async def connect_to(self, peer: Peer) -> None:
        """Link this node to another, as an administrator asks, and admit it by that. Raises
        InvalidArgument, Unreachable, Removed or PeerFailed in plain words."""
        if peer.node == self.key.node:
            raise InvalidArgument("this is the node itself")
        if not self.admission.admits(peer.node):
            self.admission.check_not_removed(peer.node)
            await self.admission.admit(peer.node)
        if self._links.best(peer.node) is not None:
            self.book.learn(peer.node, peer.address, Source.TOLD, self._now_ms())
            return
        link = await self._open(peer.node, peer.address)
        await self._greet(peer.node, link, peer.address)

    async def invite(self, seconds: int) -> Invitation:
        """An invitation for one new node. Raises InvalidArgument."""
        return await self.admission.invite(self.published_addresses(), seconds)

    def discovered(self, peer: Peer) -> None:
        """A directory of nodes names a peer; only admitted ones are dialled."""
        if self.admission.admits(peer.node):
            self.book.learn(peer.node, peer.address, Source.TOLD, self._now_ms())
            self._wake.set()

    # --- dialling

    async def _dial_all(self) -> None:
        while True:
            now_ms = self._now_ms()
            for node in self.book.due(now_ms):
                if not self.admission.admits(node):
                    self.book.forget(node)
                    continue
                self.book.dialing(node)
                self._spawn(self._dial(node))
            due_ms = self.book.next_due_ms()
            seconds = None if due_ms is None else max(due_ms - self._now_ms(), 1) / 1000
            self._wake.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _dial(self, node: NodeId) -> None:
        places = self.book.addresses(node)
        try:
            async with self._dials:
                await self._dial_at(node, places)
        except (NodeError, Removed, NotAdmitted) as error:
            tried = places if isinstance(error, Unreachable) else None
            self.book.failed(node, tried, self._now_ms(), self._fraction())
            self.complaints.not_reached(node, error)
        self._wake.set()

    async def _dial_at(self, node: NodeId, places: list[Address]) -> None:
        """A direct link; else one through another node, and Unreachable says why it is no direct
        one. Raises as `_greet` too."""
        try:
            address, link = await first_reached(places, partial(self._open, node))
        except Unreachable:
            if self._links.best(node) is None:
                with contextlib.suppress(Unreachable):
                    await self._go_through_another(node)
            raise
        await self._greet(node, link, address)
        self.book.reached(node, address)

    async def _go_through_another(self, node: NodeId) -> None:
        """Raises Unreachable, or as `_greet`."""

        def handshake() -> Handshake:
            seed = self._entropy.token(SEED_BYTES)
            return Handshake(self._settings.network_key, self.key.secret, seed, node)

        link = await self._relays.reach(node, handshake, self._session)
        await self._greet(node, link, None)

    def _session(self, link: Link) -> Session:
        """Of a link that this node opens."""
        return Session(link, True, self._endpoints.handlers, self._server.budget)

    async def _open(self, node: NodeId, address: Address) -> Link:
        """A link, not yet greeted. Raises Unreachable."""
        bound = self.bound
        bind_host = None
        if self._settings.bind_outgoing and isinstance(bound, TcpAddress):
            bind_host = None if bound.host in WILDCARDS else bound.host

        async def dial(place: Address) -> Link:
            key, secret = self.key, self._settings.network_key
            peer = Peer(node, place)
            return await connect(peer, key, secret, self._entropy, self._session, bind_host)

        return (await first_reached(await resolved(address), dial))[1]

    async def _greet(self, node: NodeId, link: Link, address: Address | None) -> None:
        """Make a fresh link one of the mesh, or close it. Raises PeerFailed with the reason that
        the peer gave, WireDamaged, LinkLost."""
        session = cast(Session, link.user)
        self._serial += 1
        name = LinkName(self._relays.made(link), self.key.node, self._serial)
        try:
            greeting = self._greeting(link, name.serial).told()
            reply = await session.call(HELLO, greeting, timeout=GREETING_SECONDS, priority=URGENT)
            theirs = _read_welcome(reply.payload)
            await self._settle_identity(node, theirs.boot, str(address))
            places = (*([address] if address else []), *theirs.addresses)
            self._up(MeshLink(name, node, link, session, theirs, places, self._clock))
        except BaseException:
            link.close()
            raise

    def _greeting(self, link: Link, serial: int) -> Greeting:
        bound = self.bound
        port = bound.port if isinstance(bound, TcpAddress) else 0
        return Greeting(
            self.boot, serial, self.own_addresses(link.local_host), port, self._told_facts()
        )

    # --- accepting

    def _door(self, link: Link) -> Mapping[str, Handler]:
        return Door(
            link,
            self._settings.network_key,
            self._endpoints.handlers,
            self.admission,
            self._welcome,
            self._let_join,
        )

    async def _welcome(self, link: Link, greeting: Greeting) -> Any:
        """Answer a greeting: the link becomes one of the mesh. Raises what is told the caller."""
        node, host = link.peer, link.remote_host
        if node == self.key.node:
            if greeting.boot == self.boot:
                raise PeerFailed("Itself", "this is the node itself")
            raise self.complaints.doubled(node, f"here and at {host}")
        try:
            self.admission.check(node)
        except (NotAdmitted, Removed) as error:
            self.complaints.say(f"Refused a connection from {host}: {error.message}", host)
            raise
        is_seen = host and greeting.port and not host.startswith("fe80:")
        seen = [TcpAddress(host, greeting.port)] if host and is_seen else []
        await self._settle_identity(node, greeting.boot, str((*seen, host)[0]))
        name = LinkName(self._relays.made(link), node, greeting.serial)
        session = cast(Session, link.user)
        places = (*greeting.addresses, *seen)
        self._up(MeshLink(name, node, link, session, greeting, places, self._clock))
        return [self._greeting(link, 0).told(), host]

    async def _let_join(self, link: Link) -> Any:
        """Answer who came with an invitation. Raises NotAdmitted, Removed."""
        await self.admission.redeem(link.network_key, link.peer)
        log.info("Node %s joined by an invitation", link.peer.hex()[:16])
        own = [Peer(self.key.node, address) for address in self.own_addresses(link.local_host)]
        others = [
            Peer(node, place)
            for node in self.connected()
            for place in self.book.addresses(node)[:1]
        ]
        return {
            "rpc_secret": self._settings.network_key.hex(),
            "rpc_admission": self._settings.mode.value,
            "peers": [str(peer) for peer in own + others],
        }

    # --- links

    async def _settle_identity(self, node: NodeId, boot: bytes, place: str) -> None:
        """Make sure that no other process than `boot` is the node: links to one that was
        restarted are closed; if it still answers, there are two. Raises PeerFailed then."""
        while older := [each for each in self._links.of(node) if each.boot != boot]:
            if await older[0].is_alive():
                error = self.complaints.doubled(node, f"at {older[0].address} and at {place}")
                self._spawn(self._alarm(older[0], error.message))
                raise error
            older[0].link.abort(Unreachable("the node was restarted"))
            self._links.drop(older[0])

    async def _alarm(self, mine: MeshLink, text: str) -> None:
        try:
            await mine.session.call(ALARM, text, timeout=GREETING_SECONDS)
        except NodeError as error:
            log.debug("node %s could not be told: %s", mine.node.hex()[:16], error)

    async def _take_alarm(self, request: Request) -> None:
        if not isinstance(request.payload, str):
            raise WireDamaged("an alarm without a text")
        self.complaints.alarm(request.payload[:500])

    def _up(self, mine: MeshLink) -> None:
        """A greeted link. Raises Unreachable, NotAdmitted, Removed where it is too late."""
        self.admission.check(mine.node)
        before = self.book.nodes.get(mine.node)
        is_news = before is None or before.seen_ms is None
        is_new = self._links.add(mine)
        for address in mine.addresses:
            is_news |= self.book.learn(mine.node, address, Source.TOLD, self._now_ms())
        if is_news:
            self._gossip.tell_on([mine.node])
        if mine.name.opener == self.key.node:
            self._spawn(self._gossip.exchange_with(mine.node))
        if is_new:
            for listener in self._listeners:
                listener(mine.node)

    def _shut_out(self) -> None:
        """The members changed: who is no longer admitted loses its links."""
        for node in [*self.book.nodes, *self._links.connected()]:
            if not self.admission.admits(node):
                self._links.cut(node, Removed(f"node {node.hex()[:16]} is no longer admitted"))
                self.book.forget(node)
        self._wake.set()

    # --- small things

    async def _answer_ping(self, request: Request) -> Any:
        return pong(request, self._clock, self._told_facts())

    def _told_facts(self) -> Facts:
        return {name: fact() for name, fact in self._facts.items()}

    async def _plain_call(self, node: NodeId, endpoint: str, payload: Any, seconds: float) -> Reply:
        return await self.call(node, endpoint, payload, timeout=seconds, priority=URGENT)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the mesh failed", exc_info=task.exception())

    def _fraction(self) -> float:
        return int.from_bytes(self._entropy.token(2), "big") / 65536

    def _now_ms(self) -> int:
        return self._clock.monotonic_us() // 1000


def _read_welcome(payload: Any) -> Greeting:
    match payload:
        case [greeting, str() | None]:
            return read_greeting(greeting)
    raise WireDamaged("a peer's answer to a greeting can't be read")
