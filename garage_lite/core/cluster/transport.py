"""Encrypted links over TCP and Unix sockets: the one place that opens and accepts connections.

A link does the handshake, then carries frame bodies both ways. Who can't finish the handshake
within HANDSHAKE_SECONDS gets nothing, not even a reason; at most STRANGERS_MAX may try at once
(the one that tries longest goes first), and LINKS_MAX may be open. Knows nothing of what the
bodies mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from garage_lite.core.cluster.identity import NodeKey
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.errors import NodeError, StartupError
from garage_lite.core.ids import NodeId
from garage_lite.core.ports import Entropy
from garage_lite.core.wire.address import Address, Peer, TcpAddress, UnixAddress
from garage_lite.core.wire.frames import FrameReceiver, FrameSender, WireDamaged
from garage_lite.core.wire.handshake import SEED_BYTES, Handshake, HandshakeFailed, Step
from garage_lite.core.wire.messages import PROTOCOL

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 10.0
STRANGERS_MAX: Final = 64
"""Connections that have not proved who they are; each costs a few KiB."""
LINKS_MAX: Final = 256
WRITE_BUFFER_BYTES: Final = 256 * 1024
"""Sealed bytes waiting for the socket; beyond it nothing more is taken from the queues."""
LISTEN_BACKLOG: Final = 256
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))


class Unreachable(NodeError):
    """No connection to that node can be had; the message says why."""


class LinkUser(Protocol):
    """Who gives the bodies their meaning."""

    def on_body(self, body: bytes) -> None:
        """May raise WireDamaged: the link is then closed."""
        ...

    def on_writable(self) -> None:
        """The socket takes bytes (again); called once when the link is up, too."""
        ...

    def on_closed(self, error: Exception | None) -> None: ...


class Link(asyncio.Protocol):
    """One connection, on either side. `user` is asked for when the handshake is done."""

    def __init__(self, handshake: Handshake, user: Callable[[Link], LinkUser]) -> None:
        self._handshake = handshake
        self._make_user = user
        self._user: LinkUser | None = None
        self._transport: asyncio.Transport | None = None
        self._sender: FrameSender | None = None
        self._receiver: FrameReceiver | None = None
        self._waiting = b""
        self._greeted = False
        self._error: Exception | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.peer = NodeId(b"")
        self.writable = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_up: Callable[[Link], None] | None = None

    @property
    def is_up(self) -> bool:
        return self._user is not None and not self.closed.done()

    @property
    def user(self) -> LinkUser | None:
        """Who was made for it; None until the link is up."""
        return self._user

    @property
    def network_key(self) -> bytes:
        """The one that the handshake was done with."""
        return self._handshake.network_key

    @property
    def remote_host(self) -> str | None:
        """The IP address of the other end, where it has one."""
        return self._host("peername")

    @property
    def local_host(self) -> str | None:
        """The IP address of this end: where the other end's network may find this node."""
        return self._host("sockname")

    def _host(self, name: str) -> str | None:
        found: Any = self._transport.get_extra_info(name) if self._transport is not None else None
        if not isinstance(found, tuple):
            return None
        host = str(found[0])
        return host.removeprefix("::ffff:") if "." in host else host

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._error is not None:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        _keep_alive(self._transport.get_extra_info("socket"))
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HANDSHAKE_SECONDS, self._too_slow)
        self._transport.write(self._handshake.opening)

    def data_received(self, data: bytes) -> None:
        try:
            if self._receiver is None:
                data = self._shake_hands(data)
            if self._receiver is not None and data:
                self._take(self._receiver, data)
        except (HandshakeFailed, WireDamaged) as error:
            self.abort(error)

    def _shake_hands(self, data: bytes) -> bytes:
        """Feed whole handshake messages; what follows the last one is returned."""
        self._waiting += data
        while self._handshake.step is not Step.DONE:
            expected = self._handshake.expected
            if len(self._waiting) < expected:
                return b""
            message, self._waiting = self._waiting[:expected], self._waiting[expected:]
            self._write(self._handshake.receive(message))
        keys, rest = self._handshake.keys, self._waiting
        assert keys is not None
        self._sender = FrameSender(keys.send_key, keys.send_nonce)
        self._receiver = FrameReceiver(keys.receive_key, keys.receive_nonce)
        self.peer = keys.peer
        self._waiting = b""
        self.send(PROTOCOL)
        return rest

    def _take(self, receiver: FrameReceiver, data: bytes) -> None:
        for body in receiver.feed(data):
            if self.closed.done() or self._error is not None:
                return
            if self._user is not None:
                self._user.on_body(body)
            elif body == PROTOCOL:
                self._come_up()
            else:
                raise WireDamaged("the peer speaks another version of the protocol")
        if receiver.ended and self._transport is not None:
            self._transport.close()

    def _come_up(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.writable = True
        self._user = self._make_user(self)
        if self.on_up is not None:
            self.on_up(self)
        self._user.on_writable()

    def _too_slow(self) -> None:
        self.abort(Unreachable("the handshake took too long"))

    def send(self, body: bytes) -> None:
        """Seal and write one frame; `writable` says whether the next should wait."""
        if self._sender is not None:
            self._write(self._sender.seal(body))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def close(self) -> None:
        """Say goodbye and close once all that was sent has left."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._sender is not None:
            self._write(self._sender.goodbye())
        self._transport.close()

    def abort(self, error: Exception) -> None:
        """Close now; `error` is what waiting calls are told."""
        if self._error is None:
            self._error = error
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self._user is not None:
            self._user.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self.writable = False
        if not self.closed.done():
            self.closed.set_result(None)
        if self._user is not None:
            self._user.on_closed(self._error or exc)

    @property
    def error(self) -> Exception | None:
        """Why it was closed, where that is known."""
        return self._error


class Listener:
    """Accepts links on one address."""

    def __init__(
        self,
        key: NodeKey,
        network_key: bytes,
        entropy: Entropy,
        user: Callable[[Link], LinkUser],
        *,
        others: Callable[[], Sequence[bytes]] = tuple,
        on_refused: Callable[[Link], None] | None = None,
    ) -> None:
        """`others`: network keys that are good now, besides; `on_refused` is shown each
        connection that did not get through the handshake."""
        self._key = key
        self._network_key = network_key
        self._entropy = entropy
        self._user = user
        self._others = others
        self._on_refused = on_refused
        self._strangers: dict[Link, None] = {}
        self._links: dict[Link, None] = {}
        self._server: asyncio.Server | None = None
        self.refused = 0
        """Connections that did not get through the handshake, or came when all places were
        taken."""

    async def listen(self, address: Address) -> Address:
        """Start accepting; the address with the port that was chosen for port 0. StartupError."""
        loop = asyncio.get_running_loop()
        sock = listening_socket(address)
        if isinstance(address, UnixAddress):
            self._server = await loop.create_unix_server(
                self.accept, sock=sock, backlog=LISTEN_BACKLOG
            )
            return address
        self._server = await loop.create_server(self.accept, sock=sock, backlog=LISTEN_BACKLOG)
        return TcpAddress(address.host, sock.getsockname()[1])

    def accept(self) -> Link:
        """A link for a connection that is being made from outside."""
        handshake = Handshake(
            self._network_key,
            self._key.secret,
            self._entropy.token(SEED_BYTES),
            None,
            self._others(),
        )
        link = Link(handshake, self._user)
        if len(self._strangers) >= STRANGERS_MAX or len(self._links) >= LINKS_MAX:
            longest = next(iter(self._strangers), link)
            asyncio.get_running_loop().call_soon(longest.abort, HandshakeFailed("no place left"))
            self._strangers.pop(longest, None)
        self._strangers[link] = None
        link.on_up = self._up
        link.closed.add_done_callback(lambda _: self._gone(link))
        return link

    def _up(self, link: Link) -> None:
        self._strangers.pop(link, None)
        if len(self._links) >= LINKS_MAX:
            link.abort(WireDamaged("no place left"))
            return
        self._links[link] = None

    def _gone(self, link: Link) -> None:
        self._strangers.pop(link, None)
        if link in self._links:
            del self._links[link]
            return
        self.refused += 1
        log.debug("a connection was refused: %s", link.error or "it was closed too early")
        if self._on_refused is not None:
            self._on_refused(link)

    async def close(self) -> None:
        """Stop accepting; say goodbye to all; return when every link is gone."""
        if self._server is not None:
            self._server.close()
        links = [*self._links, *self._strangers]
        for link in links:
            link.close()
        if links:
            await asyncio.wait([link.closed for link in links], timeout=CONNECT_SECONDS)
        for link in links:
            link.abort(WireDamaged("the node is shutting down"))


async def connect(
    peer: Peer,
    key: NodeKey,
    network_key: bytes,
    entropy: Entropy,
    user: Callable[[Link], LinkUser],
    bind_host: str | None = None,
) -> Link:
    """A link to exactly that node, handshake done; from the local address `bind_host` if there is
    one. Unreachable says why not."""
    seed = entropy.token(SEED_BYTES)
    up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def make() -> Link:
        link = Link(Handshake(network_key, key.secret, seed, peer.node), user)
        link.on_up = lambda _: None if up.done() else up.set_result(None)
        return link

    link = await _open(peer.address, make, bind_host)
    try:
        await asyncio.wait([up, link.closed], return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        link.abort(Unreachable("nobody waits for this connection any more"))
        raise
    if up.done() and not link.closed.done():
        return link
    if isinstance(link.error, WireDamaged | Unreachable):
        raise Unreachable(f"{peer.address}: {link.error.message}")
    raise Unreachable(
        f"{peer.address} refused this connection: its rpc_secret is another one, or it is not the"
        f" node {peer.node.hex()[:16]}"
    )


async def _open(address: Address, make: Callable[[], Link], bind_host: str | None) -> Link:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            if isinstance(address, UnixAddress):
                return (await loop.create_unix_connection(make, address.path))[1]
            local = None if bind_host is None else (bind_host, 0)
            place = (address.host, address.port)
            return (await loop.create_connection(make, *place, local_addr=local))[1]
    except TimeoutError as error:
        raise Unreachable(f"can't reach the node at {address}: no answer") from error
    except OSError as error:
        raise Unreachable(f"can't reach the node at {address}: {_reason(error)}") from error


def listening_socket(address: Address) -> socket.socket:
    """A bound, listening socket, for whatever protocol. StartupError says why it can't be had.

    [::] takes IPv4 as well, as Garage's does (asyncio's own would not), and stands for 0.0.0.0
    on a machine without IPv6. A Unix socket that nobody listens on any more is replaced.
    """
    try:
        if isinstance(address, UnixAddress):
            return _bind_unix(address.path)
        try:
            return _bind_tcp(address.host, address.port)
        except OSError as error:
            if address.host != "::" or error.errno not in _NO_IPV6:
                raise
            return _bind_tcp("0.0.0.0", address.port)
    except OSError as error:
        raise StartupError(f"can't listen on {address}: {_reason(error)}") from error


def _bind_tcp(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        sock.bind(place)
        return _listen(sock)
    except OSError:
        sock.close()
        raise


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or _is_alive(path):
                raise
            LocalFiles().remove(path)
            sock.bind(path)
        return _listen(sock)
    except OSError:
        sock.close()
        raise


def _is_alive(path: str) -> bool:
    """Whether somebody listens on a Unix socket; anything but a refusal counts as yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) != errno.ECONNREFUSED


def _listen(sock: socket.socket) -> socket.socket:
    sock.listen(LISTEN_BACKLOG)
    sock.setblocking(False)
    return sock


def _keep_alive(sock: socket.socket | None) -> None:
    """A peer that vanished without a word is noticed within about a minute and a half."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _reason(error: OSError) -> str:
    plain = {
        errno.ECONNREFUSED: "connection refused (is it running?)",
        errno.ENOENT: "there is no such socket (is it running?)",
        errno.EADDRINUSE: "the address is already in use (is another node running?)",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
        errno.EACCES: "permission denied",
    }
    return plain.get(error.errno or 0) or error.strerror or str(error)
