"""The mesh over real sockets: everybody finds everybody, again and again, and strangers nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import pytest

from garage_lite.core.cluster import relay
from garage_lite.core.cluster.identity import key_from_seed
from garage_lite.core.cluster.mesh import Mesh, MeshSettings
from garage_lite.core.cluster.peers import Endpoints, NotConnected
from garage_lite.core.cluster.rpc import JSON_API, RpcClient
from garage_lite.core.cluster.transport import Unreachable
from garage_lite.core.errors import InvalidArgument
from garage_lite.core.wire.address import Peer, TcpAddress
from garage_lite.core.wire.frames import FrameSender
from garage_lite.core.wire.handshake import Handshake, Step
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.system import SystemClock, SystemEntropy

from .mesh_world import ANYWHERE, SECRET, MeshNode, address_of, full_mesh, nodes, until


async def test_connect_from_one_node_makes_a_full_mesh() -> None:
    async with nodes(4) as (a, *others):
        for other in others:
            await a.running.connect_to(other.peer)
        await full_mesh([a, *others])
        for one in (a, *others):
            for two in (a, *others):
                assert one is two or await one.can_call(two)


async def test_one_link_carries_calls_both_ways() -> None:
    async with nodes(2) as (a, b):
        await a.running.connect_to(b.peer)
        await full_mesh([a, b])
        assert await a.can_call(b)
        assert await b.can_call(a)
        assert b.calls == [a.id]
        assert len(a.running._links.of(b.id)) == len(b.running._links.of(a.id)) == 1


async def test_both_dial_at_once_and_keep_the_same_link() -> None:
    async with nodes(2) as (a, b):
        await asyncio.gather(a.running.connect_to(b.peer), b.running.connect_to(a.peer))
        best_a, best_b = a.running._links.best(b.id), b.running._links.best(a.id)
        assert best_a is not None
        assert best_b is not None
        assert best_a.name == best_b.name
        assert await a.can_call(b)


async def test_round_trips_skews_and_facts_are_known() -> None:
    async with nodes(2) as (a, b):
        assert a.running.round_trip(b.id) == float("inf")
        await a.running.connect_to(b.peer)
        await until(lambda: a.running.skews_us())
        assert 0 < a.running.round_trip(b.id) < 1
        assert abs(a.running.skews_us()[0]) < 1_000_000
        (view,) = a.running.peers()
        assert view.node == b.id
        assert view.is_up
        assert view.address == address_of(b)
        assert view.facts["hostname"].startswith("host")
        assert view.seen_seconds_ago == 0


async def test_a_call_to_nobody_fails_at_once() -> None:
    async with nodes(1) as (a,):
        with pytest.raises(NotConnected):
            await a.running.call(key_from_seed(b"9" * 32).node, "echo", 1)


async def test_a_restarted_node_is_found_again() -> None:
    async with nodes(3) as (a, b, c):
        await a.running.connect_to(b.peer)
        await a.running.connect_to(c.peer)
        await full_mesh([a, b, c])
        port = address_of(b)
        await b.stop()
        await until(lambda: b.id not in a.running.connected())
        view = next(view for view in a.running.peers() if view.node == b.id)
        assert not view.is_up
        assert view.seen_seconds_ago is not None
        with pytest.raises(NotConnected):
            await a.can_call(b)
        await b.start(bound=port)
        await full_mesh([a, b, c])


async def test_all_restart_at_once_and_one_address_is_enough() -> None:
    async with nodes(3) as (a, b, c):
        await a.running.connect_to(b.peer)
        await a.running.connect_to(c.peer)
        await full_mesh([a, b, c])
        await asyncio.sleep(0.5)
        kept = address_of(a)
        for node in (a, b, c):
            await node.stop()
        # b and c come back at other addresses, and nobody was told which.
        await b.start()
        await c.start()
        await a.start(bound=kept)
        await full_mesh([a, b, c])


async def test_peers_tell_of_a_changed_address() -> None:
    async with nodes(3) as (a, b, c):
        await a.running.connect_to(b.peer)
        await a.running.connect_to(c.peer)
        await full_mesh([a, b, c])
        await c.stop()
        await c.start()
        await full_mesh([a, b, c])
        await until(lambda: a.running.book.addresses(c.id)[0] == address_of(c))
        await until(lambda: b.running.book.addresses(c.id)[0] == address_of(c))


async def test_a_node_that_accepts_no_connection_works() -> None:
    async with nodes(3) as (a, b, c):
        await c.stop()
        await c.start(bound=None, bootstrap=(a.peer,))
        await a.running.connect_to(b.peer)
        await full_mesh([a, b, c])
        assert await a.can_call(c)
        assert await b.can_call(c)


async def test_two_that_accept_no_connection_talk_through_a_third() -> None:
    async with nodes(3) as (hub, b, c):
        for node in (b, c):
            await node.stop()
            await node.start(bound=None, bootstrap=(hub.peer,))
        await full_mesh([hub, b, c])
        assert await b.can_call(c)
        assert await c.can_call(b)
        (view,) = [view for view in b.running.peers() if view.node == c.id]
        assert view.relayed
        assert view.address is None
        assert hub.running._relays.carried >= 1
        big = bytes(range(256)) * 4096 * 2
        reply = await b.running.call(c.id, "echo", big, timeout=20)
        assert reply.payload == big
        port = address_of(hub)
        await hub.stop()
        await until(lambda: not b.running.connected() and not c.running.connected())
        with pytest.raises(NotConnected):
            await b.can_call(c)
        await hub.start(bound=port)
        await full_mesh([hub, b, c])
        assert await b.can_call(c)


async def test_a_relay_ends_with_its_links() -> None:
    async with nodes(3) as (hub, b, c):
        for node in (b, c):
            await node.stop()
            await node.start(bound=None, bootstrap=(hub.peer,))
        await full_mesh([hub, b, c])
        await c.stop()
        await until(lambda: not hub.running._relays.carried)
        await until(lambda: set(b.running.connected()) == {hub.id})
        best = hub.running._links.best(b.id)
        assert best is not None
        await until(lambda: best.session.is_idle)


async def test_what_a_node_does_not_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b"hello"

    async with nodes(3) as (a, b, c):
        await a.running.connect_to(b.peer)
        await a.running.connect_to(c.peer)
        await full_mesh([a, b, c])
        for target, message in (
            (key_from_seed(b"9" * 32).node, "not linked"),
            (a.id, "not linked"),
            (b"short", "names no node"),
            (None, "names no node"),
        ):
            with pytest.raises(PeerFailed, match=message):
                await b.running.call(a.id, "mesh/relay", target, stream=nothing())
        with pytest.raises(PeerFailed, match="no stream"):
            await b.running.call(a.id, "mesh/relay", c.id)
        monkeypatch.setattr(relay, "RELAYS_OF_ONE_MAX", 0)
        with pytest.raises(PeerFailed, match="as much as it may"):
            await b.running.call(a.id, "mesh/relay", c.id, stream=nothing())
        assert a.running._relays.carried == 0


async def test_the_relay_learns_nothing_and_garbage_ends_the_link() -> None:
    async def garbage() -> AsyncIterator[bytes]:
        yield b"\0" * 64

    async with nodes(3) as (a, b, c):
        await a.running.connect_to(b.peer)
        await a.running.connect_to(c.peer)
        await full_mesh([a, b, c])
        reply = await b.running.call(a.id, "mesh/relay", c.id, stream=garbage())
        assert reply.stream is not None
        assert [piece async for piece in reply.stream] == []
        await until(lambda: a.running._relays.carried == 0)
        assert await b.can_call(c)


async def test_a_relayed_link_gives_way_to_a_direct_one() -> None:
    async with nodes(3) as (hub, b, c):
        await b.stop()
        await b.start(bound=None, bootstrap=(hub.peer,))
        port = address_of(c)
        await c.stop()
        await c.start(bound=None, bootstrap=(hub.peer,))
        await full_mesh([hub, b, c])
        await c.stop()
        await c.start(bound=port)
        await full_mesh([hub, b, c])
        await until(lambda: not any(view.relayed for view in b.running.peers()))


async def test_bootstrap_by_name_and_a_wrong_address_first() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = TcpAddress("127.0.0.1", closed.getsockname()[1])
        async with nodes(2) as (a, b):
            port = address_of(a)
            assert isinstance(port, TcpAddress)
            named = Peer(a.id, TcpAddress("localhost", port.port))
            await b.stop()
            await b.start(bootstrap=(Peer(a.id, nowhere), named))
            await full_mesh([a, b])


async def test_a_command_line_may_call_the_operations_alone() -> None:
    async with nodes(1) as (a,), RpcClient(a.peer, SECRET, SystemEntropy()) as client:
        assert await client.call(JSON_API, "hello") == "hello"
        for endpoint in ("echo", "mesh/gossip", "mesh/ping", "nothing"):
            with pytest.raises(PeerFailed, match="greet first"):
                await client.call(endpoint, None)
        assert not a.running.connected()


async def test_wrong_secret_says_so_on_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    async with nodes(2) as (a, b):
        await b.stop()
        await b.start(network_key=b"x" * 32)
        with pytest.raises(Unreachable, match="rpc_secret"):
            await b.running.connect_to(a.peer)
        await until(lambda: "does not hold this cluster's rpc_secret" in caplog.text)
        assert not a.running.connected()


async def test_itself_is_no_peer() -> None:
    async with nodes(1) as (a,):
        with pytest.raises(InvalidArgument, match="itself"):
            await a.running.connect_to(a.peer)


async def test_one_identity_twice_is_told_to_both(caplog: pytest.LogCaptureFixture) -> None:
    async with nodes(2) as (a, b):
        await b.running.connect_to(a.peer)
        await full_mesh([a, b])
        copy = MeshNode(2, MeshSettings(SECRET, ANYWHERE))
        assert copy.id == b.id
        await copy.start()
        try:
            with pytest.raises(PeerFailed, match="Two nodes have the one identity"):
                await copy.running.connect_to(a.peer)
            await until(lambda: b.running.complaints.alarms)
            assert not copy.running.connected()
            assert await a.can_call(b)
        finally:
            await copy.stop()
        lines = [line for line in caplog.text.splitlines() if "Two nodes have the one" in line]
        assert len(lines) == 2
        assert all(f"at {address_of(b)} and at 127.0.0.1:" in line for line in lines)


async def test_another_protocol_version_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    key = key_from_seed(b"7" * 32)
    async with nodes(1) as (a,):
        place = address_of(a)
        assert isinstance(place, TcpAddress)
        reader, writer = await asyncio.open_connection(place.host, place.port)
        handshake = Handshake(SECRET, key.secret, b"e" * 32, a.id)
        writer.write(handshake.opening)
        while handshake.step is not Step.DONE:
            message = await reader.readexactly(handshake.expected)
            writer.write(handshake.receive(message))
        assert handshake.keys is not None
        sender = FrameSender(handshake.keys.send_key, handshake.keys.send_nonce)
        writer.write(sender.seal(b"garage-lite rpc 999"))
        await until(lambda: "another version of the protocol" in caplog.text)
        assert key.node.hex()[:16] in caplog.text
        writer.close()


async def test_garbage_and_half_handshakes_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with nodes(2) as (a, b):
        place = address_of(a)
        assert isinstance(place, TcpAddress)
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 63, b"\xff" * 10_000):
            _, writer = await asyncio.open_connection(place.host, place.port)
            writer.write(data)
            writer.close()
        await b.running.connect_to(a.peer)
        assert await b.can_call(a)
        assert caplog.text.count("Refused a connection") <= 1


async def test_calls_end_when_the_mesh_stops() -> None:
    mesh = Mesh(MeshSettings(SECRET, ANYWHERE), SystemClock(), SystemEntropy())
    endpoints = Endpoints()
    mesh.serve(key_from_seed(b"1" * 32), endpoints)
    with pytest.raises(NotConnected):
        await mesh.call(key_from_seed(b"2" * 32).node, "echo", None)
