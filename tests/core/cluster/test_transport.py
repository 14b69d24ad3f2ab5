"""Links over real sockets: strangers get nothing and cost little; friends get through."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from garage_lite.core.cluster import transport
from garage_lite.core.cluster.identity import key_from_seed
from garage_lite.core.cluster.sockets import listening_socket
from garage_lite.core.cluster.transport import (
    Link,
    Listener,
    Unreachable,
    connect,
)
from garage_lite.core.errors import StartupError
from garage_lite.core.ports import Buffer
from garage_lite.core.wire.address import Address, Peer, TcpAddress, UnixAddress
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.handshake import Handshake
from garage_lite.core.wire.messages import PROTOCOL
from garage_lite.system import SystemEntropy

SECRET = b"s" * 32
SERVER = key_from_seed(b"1" * 32)
CLIENT = key_from_seed(b"2" * 32)
LOOPBACK = TcpAddress("127.0.0.1", 0)


class Recorder:
    """A LinkUser that remembers."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.bodies: asyncio.Queue[Buffer] = asyncio.Queue()
        self.ended: list[Exception | None] = []

    def on_body(self, body: Buffer) -> None:
        if body == b"bad":
            raise WireDamaged
        self.bodies.put_nowait(body)

    def on_writable(self) -> None:
        pass

    def on_closed(self, error: Exception | None) -> None:
        self.ended.append(error)


class Serving:
    def __init__(self) -> None:
        self.users: list[Recorder] = []
        self.first: asyncio.Queue[Recorder] = asyncio.Queue()
        self.listener = Listener(SERVER, SECRET, SystemEntropy(), self._user)
        self.address: Address = LOOPBACK

    def _user(self, link: Link) -> Recorder:
        self.users.append(Recorder(link))
        self.first.put_nowait(self.users[-1])
        return self.users[-1]

    @property
    def peer(self) -> Peer:
        return Peer(SERVER.node, self.address)

    async def dial(self, secret: bytes = SECRET, peer: Peer | None = None) -> Recorder:
        link = await connect(peer or self.peer, CLIENT, secret, SystemEntropy(), Recorder)
        assert isinstance(link._user, Recorder)
        return link._user

    async def refused(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.listener.refused < count:  # noqa: ASYNC110 - a counter, no event
                await asyncio.sleep(0.01)

    def raw(self) -> socket.socket:
        assert isinstance(self.address, TcpAddress)
        return socket.create_connection((self.address.host, self.address.port), timeout=5)


@asynccontextmanager
async def serving(address: Address = LOOPBACK) -> AsyncIterator[Serving]:
    server = Serving()
    server.address = await server.listener.listen(address)
    yield server
    await server.listener.close()


async def test_both_sides_speak() -> None:
    async with serving() as server:
        there = await server.dial()
        there.link.send(b"from the client")
        async with asyncio.timeout(5):
            here = await server.first.get()
            assert await here.bodies.get() == b"from the client"
            here.link.send(b"from the server")
            assert await there.bodies.get() == b"from the server"
        assert here.link.peer == CLIENT.node
        assert there.link.peer == SERVER.node
    assert there.link.closed.done() and here.ended == [None]


async def test_unix_socket(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "rpc.sock"))
    async with serving(address) as server:
        assert (await server.dial()).link.is_up
        with pytest.raises(StartupError, match="already in use"):
            listening_socket(address)
    async with serving(address) as server:  # the file left behind is no obstacle
        assert (await server.dial()).link.is_up


async def test_the_wildcard_takes_ipv4_and_ipv6() -> None:
    async with serving(TcpAddress("::", 0)) as server:
        assert isinstance(server.address, TcpAddress)
        peer = Peer(SERVER.node, TcpAddress("127.0.0.1", server.address.port))
        assert (await server.dial(peer=peer)).link.is_up


async def test_wrong_secret() -> None:
    async with serving() as server:
        with pytest.raises(Unreachable, match="its rpc_secret is another one"):
            await server.dial(secret=b"x" * 32)
        await server.refused(1)
        assert not server.users


async def test_wrong_node() -> None:
    async with serving() as server:
        with pytest.raises(Unreachable, match=r"or it is not the node 3f3f3f3f"):
            await server.dial(peer=Peer(type(SERVER.node)(b"?" * 32), server.address))
        other = Peer(CLIENT.node, server.address)
        with pytest.raises(Unreachable, match="refused this connection"):
            await server.dial(peer=other)
        await server.refused(2)


async def test_nobody_there(unused_tcp_port: int) -> None:
    peer = Peer(SERVER.node, TcpAddress("127.0.0.1", unused_tcp_port))
    with pytest.raises(Unreachable, match=r"connection refused \(is it running\?\)"):
        await connect(peer, CLIENT, SECRET, SystemEntropy(), Recorder)


async def test_garbage_gets_nothing() -> None:
    async with serving() as server:
        with server.raw() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" + b"x" * 100)
            answer = await asyncio.to_thread(_read_all, sock)
        assert answer == b""
        await server.refused(1)


def _read_all(sock: socket.socket) -> bytes:
    data = b""
    try:
        while piece := sock.recv(4096):
            data += piece
    except ConnectionResetError:
        pass
    return data


async def test_silence_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 0.2)
    async with serving() as server:
        with server.raw() as sock:
            assert await asyncio.to_thread(_read_all, sock) == b""
        await server.refused(1)
        assert (await server.dial()).link.is_up


async def test_a_silent_server_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS", 0.2)
    with listening_socket(LOOPBACK) as sock:
        peer = Peer(SERVER.node, TcpAddress("127.0.0.1", sock.getsockname()[1]))
        with pytest.raises(Unreachable, match="the handshake took too long"):
            await connect(peer, CLIENT, SECRET, SystemEntropy(), Recorder)


async def test_a_flood_of_strangers_keeps_no_friend_out() -> None:
    async with serving() as server:
        size = transport.STRANGERS_MAX + 40
        crowd = await asyncio.to_thread(lambda: [server.raw() for _ in range(size)])
        try:
            await server.refused(40)
            assert len(server.listener._strangers) <= transport.STRANGERS_MAX
            assert (await server.dial()).link.is_up
        finally:
            for sock in crowd:
                sock.close()
        await server.refused(size)


async def test_links_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LINKS_MAX", 3)
    async with serving() as server:
        links = [(await server.dial()).link for _ in range(3)]
        with pytest.raises(Unreachable):
            await server.dial()
        assert all(link.is_up for link in links)
        links[0].close()
        await links[0].closed
        await asyncio.sleep(0.05)
        assert (await server.dial()).link.is_up


async def test_a_broken_rule_closes_the_link() -> None:
    async with serving() as server:
        there = await server.dial()
        there.link.send(b"bad")
        await asyncio.wait_for(there.link.closed, 5)
        assert isinstance(server.users[0].ended[0], WireDamaged)


async def test_another_version_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:
        # Each side compares with its own idea; the server's own is changed before it answers.
        original = Link._shake_hands

        def shake(link: Link) -> None:
            version = b"garage-lite rpc 2" if link._handshake._server is None else before
            monkeypatch.setattr(transport, "PROTOCOL", version)
            try:
                original(link)
            finally:
                monkeypatch.setattr(transport, "PROTOCOL", before)

        before = PROTOCOL
        monkeypatch.setattr(Link, "_shake_hands", shake)
        with pytest.raises(Unreachable, match="another version of the protocol"):
            await server.dial()


async def test_bytes_before_their_time_are_refused() -> None:
    """A client that does not wait for the server's answers is no client of ours."""
    async with serving() as server:
        with server.raw() as sock:
            hello = Handshake(SECRET, CLIENT.secret, b"e" * 32, SERVER.node).opening
            sock.sendall(hello + b"x" * 112)
            answer = await asyncio.to_thread(_read_all, sock)
        assert len(answer) == 64
        await server.refused(1)


def test_an_address_that_cannot_be_had() -> None:
    with listening_socket(LOOPBACK) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(StartupError, match=f"127.0.0.1:{port}: the address is already in use"):
            listening_socket(TcpAddress("127.0.0.1", port))
    with pytest.raises(StartupError, match="does not have that address"):
        listening_socket(TcpAddress("192.0.2.1", 0))
