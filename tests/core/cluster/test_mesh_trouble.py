"""The mesh when things go wrong: silent peers, half-open links, floods, nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from garage_lite.core.cluster.mesh_link import PING
from garage_lite.core.cluster.rpc import CallTimedOut, Request
from garage_lite.core.wire.address import Peer, TcpAddress
from garage_lite.core.wire.greeting import FACTS_BYTES_MAX
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.core.wire.peering import PEERS_MAX

from .mesh_world import MeshNode, address_of, full_mesh, nodes, until


@pytest.fixture(autouse=True)
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garage_lite.core.cluster.mesh_link.PING_SECONDS", 0.1)


class Proxy:
    """Passes connections on to an address; `cut` leaves them open and passes nothing more."""

    def __init__(self) -> None:
        self.target = TcpAddress("127.0.0.1", 1)
        self.passing = asyncio.Event()
        self.passing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self, target: Any) -> TcpAddress:
        self.target = target
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return TcpAddress("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(self.target.host, self.target.port)
        except OSError:
            writer.close()
            return
        self._writers += [writer, there[1]]
        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._pass(source, sink))
            self._tasks.add(task)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self.passing.wait()
                sink.write(data)
                await sink.drain()
        sink.close()

    async def stop(self) -> None:
        self.passing.set()
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def freeze(node: MeshNode) -> None:
    """The node answers no ping any more, as a stopped process."""

    async def silent(request: Request) -> Any:
        await asyncio.Event().wait()

    node.running._endpoints.handlers[PING] = silent


async def test_a_silent_node_sinks_at_once_and_is_lost_soon() -> None:
    async with nodes(2, ping_seconds=0.5) as (a, b):
        await a.running.connect_to(b.peer)
        await until(lambda: a.running.round_trip(b.id) < 0.1)
        await freeze(b)
        await until(lambda: a.running.round_trip(b.id) > 0.2)
        assert b.id in a.running.connected()
        await until(lambda: b.id not in a.running.connected(), 5)


async def test_a_busy_node_is_not_lost() -> None:
    async with nodes(2, ping_seconds=0.3) as (a, b):
        await a.running.connect_to(b.peer)

        async def busy(request: Request) -> Any:
            raise PeerFailed("Busy", "this node has too much to do", 503)

        b.running._endpoints.handlers[PING] = busy
        await asyncio.sleep(1)
        assert await a.can_call(b)
        assert len(a.running._links.of(b.id)) == 1


async def test_a_half_open_link_is_noticed_and_replaced() -> None:
    async with nodes(2, ping_seconds=0.3) as (a, b):
        proxy = Proxy()
        try:
            await a.running.connect_to(Peer(b.id, await proxy.start(address_of(b))))
            await full_mesh([a, b])
            proxy.passing.clear()
            await until(lambda: not a.running.connected() or not b.running.connected(), 5)
            await full_mesh([a, b])
            assert await a.can_call(b)
        finally:
            await proxy.stop()


async def test_a_restarted_node_is_taken_at_its_word_although_its_old_link_is_open() -> None:
    async with nodes(2, ping_seconds=60) as (a, b):
        proxy = Proxy()
        try:
            await a.running.connect_to(Peer(b.id, await proxy.start(address_of(b))))
            await full_mesh([a, b])
            proxy.passing.clear()
            await b.stop()
            await b.start()
            assert b.id in a.running.connected(), "it can't know yet"
            await b.running.connect_to(a.peer)
            assert await a.can_call(b)
            assert await b.can_call(a)
        finally:
            await proxy.stop()


async def test_no_call_takes_longer_than_configured() -> None:
    async with nodes(2, call_seconds_max=0.2) as (a, b):
        await a.running.connect_to(b.peer)
        await freeze(b)
        with pytest.raises(CallTimedOut, match=r"0\.2 s"):
            await a.running.call(b.id, PING, None)


@pytest.mark.parametrize(
    ("endpoint", "payload"),
    [
        ("mesh/gossip", None),
        ("mesh/gossip", [[], []]),
        ("mesh/gossip", ["all", [[b"x", 0, []]], []]),
        ("mesh/gossip", ["news", [[b"x" * 32, 0, []]] * (2 * PEERS_MAX + 1), []]),
        ("mesh/gossip", ["news", [], [[b"x" * 32, 1, 7]]]),
        ("mesh/alarm", 7),
        ("mesh/hello", {}),
        ("mesh/relay", "me"),
    ],
)
async def test_nonsense_is_refused_and_harms_nobody(endpoint: str, payload: Any) -> None:
    async with nodes(2) as (a, b):
        await b.running.connect_to(a.peer)
        with pytest.raises(PeerFailed):
            await b.running.call(a.id, endpoint, payload)
        assert await b.can_call(a)
        assert len(a.running.book.nodes) == 1


@pytest.mark.parametrize("fact", [b"x" * FACTS_BYTES_MAX, [["deep"] * 2000]])
async def test_who_tells_too_much_is_no_peer(fact: Any) -> None:
    async with nodes(2, ping_seconds=0.3) as (a, b):
        b.running.tell("much", lambda: fact)
        with pytest.raises(PeerFailed):
            await b.running.connect_to(a.peer)
        assert not a.running.connected()


async def test_a_flood_of_links_from_one_peer_leaves_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("garage_lite.core.cluster.link_table.SPARE_SECONDS", 0.2)
    async with nodes(2) as (a, b):
        await b.running.connect_to(a.peer)
        for _ in range(20):
            link = await b.running._open(a.id, address_of(a))
            await b.running._greet(a.id, link, address_of(a))
        assert await a.can_call(b)
        await until(lambda: len(a.running._links.of(b.id)) == 1)
        await until(lambda: len(b.running._links.of(a.id)) == 1)
        assert await a.can_call(b)
        assert await b.can_call(a)


async def test_gossip_of_many_nodes_is_bounded() -> None:
    async with nodes(2) as (a, b):
        await b.running.connect_to(a.peer)
        for start in range(0, 2000, 500):
            told = [
                [n.to_bytes(32, "little"), 0, [["192.0.2.1:9", 0]]]
                for n in range(start + 1, start + 501)
            ]
            await b.running.call(a.id, "mesh/gossip", ["news", told, []])
        assert len(a.running.book.nodes) <= PEERS_MAX
        assert b.id in a.running.connected()
        assert await b.can_call(a)


async def test_false_alarms_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with nodes(2) as (a, b):
        await b.running.connect_to(a.peer)
        for _ in range(50):
            await b.running.call(a.id, "mesh/alarm", "the sky is falling " * 1000)
        assert len(caplog.records) == 1
        assert len(caplog.records[0].getMessage()) <= 500
        assert list(a.running.complaints.alarms) == ["identity"]


async def test_ipv6_and_outgoing_address() -> None:
    try:
        server = await asyncio.start_server(lambda r, w: None, "::1", 0)
        server.close()
    except OSError:
        pytest.skip("no IPv6 here")
    bound = TcpAddress("::1", 0)
    async with nodes(2, bound=bound, bind_outgoing=True) as (a, b):
        await a.running.connect_to(b.peer)
        await full_mesh([a, b])
        (view,) = b.running.peers()
        assert view.address == address_of(a)
        best = b.running._links.best(a.id)
        assert best is not None
        assert best.link.remote_host == "::1"


async def test_what_is_published_of_a_node() -> None:
    async with nodes(1, bound=TcpAddress("0.0.0.0", 0)) as (a,):
        bound = address_of(a)
        assert isinstance(bound, TcpAddress)
        assert a.running.published_addresses() == ()
        a.hosts = [f"10.0.0.{number}" for number in range(20)]
        first = TcpAddress("10.0.0.0", bound.port)
        assert a.running.published_addresses()[0] == first
        assert len(a.running.published_addresses()) == 8
        await a.stop()
        public = TcpAddress("home.example", 443)
        await a.start(public=public)
        assert a.running.published_addresses()[0] == public
        await a.stop()
        await a.start(public=None, subnet="10.0.0.16/30")
        assert a.running.published_addresses()[0].host == "10.0.0.16"


async def test_a_public_name_is_told_and_used() -> None:
    async with nodes(3) as (a, b, c):
        place = address_of(b)
        assert isinstance(place, TcpAddress)
        named = TcpAddress("localhost", place.port)
        await b.stop()
        await b.start(bound=place, public=named)
        await a.running.connect_to(Peer(b.id, place))
        await c.running.connect_to(a.peer)
        await full_mesh([a, b, c])
        assert named in c.running.book.addresses(b.id)
