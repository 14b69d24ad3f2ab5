"""Encrypted links over TCP and Unix sockets: opened and accepted here alone.

A link does the handshake, then carries frame bodies both ways. Who can't finish the handshake
within HANDSHAKE_SECONDS gets nothing, not even a reason; at most STRANGERS_MAX may try at once
(the one that tries longest goes first), and LINKS_MAX may be open. Knows nothing of what the
bodies mean.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final, Protocol, cast

from garage_lite.core.cluster.identity import NodeKey
from garage_lite.core.cluster.sockets import (
    LISTEN_BACKLOG,
    keep_alive,
    listening_socket,
    reason_of,
)
from garage_lite.core.errors import NodeError
from garage_lite.core.ids import NodeId
from garage_lite.core.limits import KIB
from garage_lite.core.ports import Buffer, Entropy
from garage_lite.core.wire.address import Address, Peer, TcpAddress, UnixAddress
from garage_lite.core.wire.frames import FrameReceiver, FrameSender, WireDamaged
from garage_lite.core.wire.handshake import (
    SEED_BYTES,
    Handshake,
    HandshakeFailed,
    Step,
)
from garage_lite.core.wire.messages import PROTOCOL

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 10.0
STRANGERS_MAX: Final = 64
"""Connections that have not proved who they are; each costs a few KiB."""
LINKS_MAX: Final = 256
HELLO_BYTES: Final = 512
"""Received before the handshake is done: more than its longest message."""
OFF_LOOP_BYTES: Final = 32 * KIB
"""Less than this is sealed or opened sooner than a thread is woken."""
SEALED_AT_ONCE: Final = 4
"""Frames that one job seals: a ping that comes meanwhile waits for no more."""
CIPHER_THREADS: Final = 2
WRITE_BUFFER_BYTES: Final = 256 * 1024
"""Sealed bytes waiting for the socket; beyond it nothing more is taken from the queues."""


class _Ciphers:
    """Where big frames are sealed and opened: on the event loop, or by threads of their own."""

    pool: Executor | None = None


def cipher_in_threads(on: bool) -> None:
    """For the links of this process. Worth it where a core is free for it: handing frames over
    and back costs about as much as x86 needs to seal them, but a board with four slow cores gets
    its event loop back."""
    if _Ciphers.pool is not None:
        _Ciphers.pool.shutdown()
    _Ciphers.pool = ThreadPoolExecutor(CIPHER_THREADS, "cipher") if on else None


class Unreachable(NodeError):
    """No connection to that node can be had; the message says why."""


class LinkUser(Protocol):
    """Who gives the bodies their meaning."""

    def on_body(self, body: Buffer) -> None:
        """May raise WireDamaged: the link is then closed."""
        ...

    def on_writable(self) -> None:
        """The socket takes bytes (again); called once when the link is up, too."""
        ...

    def on_closed(self, error: Exception | None) -> None: ...


class Link(asyncio.BufferedProtocol):
    """One connection, on either side. `user` is asked for when the handshake is done.

    Frames are sealed and opened on the event loop, or the big ones by a thread
    (`cipher_in_threads`): one job of each direction at a time, while nothing else of that
    direction moves.
    """

    def __init__(self, handshake: Handshake, user: Callable[[Link], LinkUser]) -> None:
        self._handshake = handshake
        self._make_user = user
        self._user: LinkUser | None = None
        self._transport: asyncio.Transport | None = None
        self._sender: FrameSender | None = None
        self._receiver: FrameReceiver | None = None
        self._hello = bytearray(HELLO_BYTES)
        self._held = 0
        """Bytes in `_hello`."""
        self._to_seal: list[Buffer] = []
        self._sealing = False
        self._opening = False
        self._paused = False
        """The socket takes no more for now."""
        self._closing = False
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
        keep_alive(self._transport.get_extra_info("socket"))
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(HANDSHAKE_SECONDS, self._too_slow)
        self._transport.write(self._handshake.opening)

    # --- receiving

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._receiver is None:
            return memoryview(self._hello)[self._held :]
        return self._receiver.room()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._receiver is None:
                self._held += nbytes
                self._shake_hands()
            else:
                self._receiver.received(nbytes)
            if self._receiver is not None:
                self._take(self._receiver)
        except (HandshakeFailed, WireDamaged) as error:
            self.abort(error)

    def _shake_hands(self) -> None:
        """Feed whole handshake messages; what follows the last one goes to the receiver."""
        at = 0
        while self._handshake.step is not Step.DONE:
            expected = self._handshake.expected
            if self._held - at < expected:
                break
            message, at = bytes(self._hello[at : at + expected]), at + expected
            self._write(self._handshake.receive(message))
        rest = bytes(self._hello[at : self._held])
        self._hello[: len(rest)], self._held = rest, len(rest)
        keys = self._handshake.keys
        if keys is None:
            return
        self._sender = FrameSender(keys.send_key, keys.send_nonce)
        self._receiver = FrameReceiver(keys.receive_key, keys.receive_nonce)
        self.peer = keys.peer
        with self._receiver.room() as room:
            room[: len(rest)] = rest
        self._receiver.received(len(rest))
        self._hello = bytearray()
        self.send(PROTOCOL)

    def _take(self, receiver: FrameReceiver) -> None:
        if not self._opening:
            pool = _Ciphers.pool
            if pool is None or self._user is None or receiver.held < OFF_LOOP_BYTES:
                self._deliver(receiver.open_ready())
                self._after_opening(receiver)
                return
            self._opening = True
            loop = asyncio.get_running_loop()
            job = loop.run_in_executor(pool, receiver.open_ready)
            job.add_done_callback(lambda done: self._opened(receiver, done))
        if not receiver.room():
            self._read(False)

    def _opened(self, receiver: FrameReceiver, job: asyncio.Future[list[bytearray]]) -> None:
        """What a thread has opened. More may have come meanwhile."""
        self._opening = False
        if self.closed.done() or self._error is not None:
            return
        try:
            self._deliver(job.result())
            self._after_opening(receiver)
            if not self.closed.done() and self._error is None:
                self._take(receiver)
        except WireDamaged as error:
            self.abort(error)

    def _after_opening(self, receiver: FrameReceiver) -> None:
        receiver.make_room()
        self._read(True)
        if receiver.ended and self._transport is not None:
            self._transport.close()

    def _read(self, on: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if on and not self._transport.is_reading():
            self._transport.resume_reading()
        elif not on and self._transport.is_reading():
            self._transport.pause_reading()

    def _deliver(self, bodies: list[bytearray]) -> None:
        for body in bodies:
            if self.closed.done() or self._error is not None:
                return
            if self._user is not None:
                self._user.on_body(body)
            elif body == PROTOCOL:
                self._come_up()
            else:
                raise WireDamaged("the peer speaks another version of the protocol")

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

    # --- sending

    def send(self, body: Buffer) -> None:
        """Seal and write one frame; `writable` says whether the next should wait."""
        if self._sender is None:
            return
        if self._sealing or (_Ciphers.pool is not None and len(body) >= OFF_LOOP_BYTES):
            self._to_seal.append(body)
            self.writable = self.writable and len(self._to_seal) < SEALED_AT_ONCE
            if not self._sealing:
                self._sealing = True
                asyncio.get_running_loop().call_soon(self._start_sealing, self._sender)
        else:
            self._write(self._sender.seal(body))

    def _start_sealing(self, sender: FrameSender) -> None:
        bodies, self._to_seal = self._to_seal, []
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(_Ciphers.pool, lambda: [sender.seal(body) for body in bodies])
        job.add_done_callback(lambda done: self._sealed(sender, done))

    def _sealed(self, sender: FrameSender, job: asyncio.Future[list[bytearray]]) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.writelines(job.result())
        if self._to_seal:
            self._start_sealing(sender)
        else:
            self._sealing = False
        if self._closing:
            self.close()
        elif not self.writable and not self._paused:
            self.writable = True
            if self._user is not None:
                self._user.on_writable()

    def _write(self, data: Buffer) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def close(self) -> None:
        """Say goodbye and close once all that was sent has left."""
        if self._transport is None or self._transport.is_closing():
            return
        self._closing = True
        if self._sealing:
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
        self._paused, self.writable = True, False

    def resume_writing(self) -> None:
        self._paused = False
        self.writable = len(self._to_seal) < SEALED_AT_ONCE
        if self.writable and self._user is not None:
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
        raise Unreachable(f"can't reach the node at {address}: {reason_of(error)}") from error
