"""Calls between nodes: an endpoint's name and a value there, a value or an error back.

A `Session` runs on one link and calls and answers both ways. All that becomes ready within one
turn of the event loop leaves in one frame: a call into the cipher and the kernel costs more than
a small message. Values are what msgpack carries (None, numbers, text, bytes, lists, maps). An
answer may go on as a stream, so may a request; neither runs ahead of its reader by more than a
window. Every wait ends: calls have a timeout, and die with their link.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from garage_lite.core.cluster.identity import NodeKey, key_from_seed
from garage_lite.core.cluster.streams import IncomingStream
from garage_lite.core.cluster.transport import Link, Listener, Unreachable, connect
from garage_lite.core.errors import CallerError, GarageLiteError, NodeError, Unavailable
from garage_lite.core.ids import NodeId
from garage_lite.core.limits import MIB
from garage_lite.core.ports import Buffer, Entropy
from garage_lite.core.wire.address import Address, Peer
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.handshake import SEED_BYTES
from garage_lite.core.wire.messages import (
    CALLS_MAX,
    Budget,
    Event,
    Inbox,
    Kind,
    PeerFailed,
    pack_error,
    pack_payload,
    pack_request,
    unpack_error,
    unpack_payload,
    unpack_request,
)
from garage_lite.core.wire.outbox import NORMAL, Outbox

log = logging.getLogger(__name__)

JSON_API: Final = "json-api"
"""The endpoint of the Admin API's operations."""
CALL_SECONDS: Final = 30.0
SEND_BYTES_MAX: Final = MIB
"""Waiting to be sent on one link; beyond it new messages wait."""
CONTROL_BYTES_MAX: Final = 64 * 1024
"""Errors and grants waiting; a peer that provokes more without reading them loses its link."""
INCOMING_BYTES_MAX: Final = 12 * MIB
"""Messages received and not yet answered, and windows of streams, all links of a node together."""


class CallTimedOut(Unavailable):
    """The node did not answer in time."""


class LinkLost(Unavailable):
    """The connection to the node was lost before it answered."""


@dataclass(frozen=True)
class Reply:
    """An answer that goes on as a stream of bytes."""

    payload: Any
    stream: AsyncIterator[bytes] | None = None


@dataclass(frozen=True)
class Request:
    """What a handler is given."""

    peer: NodeId
    payload: Any
    stream: AsyncIterator[bytes] | None = None


Handler = Callable[[Request], Awaitable[Any]]
"""Returns the answer's value, or a Reply. A GarageLiteError is told to the caller as it is (so is
any error with a `code`); anything else is our bug and told as such."""


@dataclass
class _Call:
    """A call under way, made by this side (`answer`) or by the peer (`task`)."""

    answer: asyncio.Future[Reply] | None = None
    task: asyncio.Task[None] | None = None
    stream: IncomingStream | None = None
    sending: asyncio.Task[None] | None = None
    credit: asyncio.Event = field(default_factory=asyncio.Event)


class Session:
    """Calls on one link, both ways."""

    def __init__(
        self, link: Link, opener: bool, handlers: Mapping[str, Handler], budget: Budget
    ) -> None:
        self._link = link
        self._handlers = handlers
        self._inbox = Inbox(opener, budget)
        self._outbox = Outbox()
        self._calls: dict[int, _Call] = {}
        self._own_calls = 0
        self._next_id = 1 if opener else 2
        self._flushing = False
        self._room = asyncio.Event()
        self._room.set()

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way, either way."""
        return not self._calls

    # --- calling

    async def call(
        self,
        endpoint: str,
        payload: Any,
        *,
        timeout: float = CALL_SECONDS,  # noqa: ASYNC109 - the deadline also cancels at the peer
        priority: int = NORMAL,
        stream: AsyncIterator[bytes] | None = None,
    ) -> Reply:
        """The answer. PeerFailed (with its code), CallTimedOut, LinkLost; ValueError if the
        request is too big for a message. Cancelling this cancels the peer's work too. An answer's
        stream must be read to its end."""
        message = pack_request(endpoint, priority, payload)
        try:
            async with asyncio.timeout(timeout):
                while self._own_calls >= CALLS_MAX or self._outbox.waiting >= SEND_BYTES_MAX:
                    await self._wait_for_change()
                call_id = self._open_call()
                call = self._calls[call_id]
                try:
                    self._outbox.message(call_id, priority, message, stream is not None)
                    self._flush_soon()
                    if stream is not None:
                        call.sending = asyncio.create_task(self._send_stream(call_id, stream))
                    assert call.answer is not None
                    reply = await call.answer
                except BaseException as error:
                    self._end(call_id, cancel=isinstance(error, asyncio.CancelledError))
                    raise
        except TimeoutError as error:
            raise CallTimedOut(f"no answer to {endpoint} within {timeout:g} s") from error
        if reply.stream is None:
            self._end(call_id)
        return reply

    def _open_call(self) -> int:
        if self._link.closed.done():
            raise LinkLost
        call_id, self._next_id = self._next_id, (self._next_id + 2) & 0xFFFF_FFFF
        self._next_id = self._next_id or 2  # 0 is no id; odd ids never wrap to it
        self._own_calls += 1
        self._calls[call_id] = _Call(answer=asyncio.get_running_loop().create_future())
        self._inbox.expect(call_id)
        return call_id

    # --- sending

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._link.writable and (body := self._outbox.next_body()):
            self._link.send(body)
        if self._outbox.waiting < SEND_BYTES_MAX:
            self._room.set()

    async def _wait_for_room(self) -> None:
        while self._outbox.waiting >= SEND_BYTES_MAX and not self._link.closed.done():
            await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        """Until something was sent or a call ended. Raises LinkLost."""
        if self._link.closed.done():
            raise LinkLost
        self._room.clear()
        await self._room.wait()

    async def _send_stream(self, call_id: int, stream: AsyncIterator[bytes]) -> None:
        """Hand the pieces over as the peer grants them. The peer learns of a failure."""
        call = self._calls[call_id]
        try:
            async for piece in stream:
                rest = memoryview(piece)
                while rest:
                    while not (credit := self._outbox.credit(call_id)):
                        call.credit.clear()
                        await call.credit.wait()
                    await self._wait_for_room()
                    self._outbox.data(call_id, rest[:credit])
                    rest = rest[credit:]
                    self._flush_soon()
            self._outbox.end(call_id)
            self._flush_soon()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.warning("a stream to a peer broke off: %s", error)
            if call.answer is not None and not call.answer.done():
                call.answer.set_exception(error)
            else:
                self._outbox.error(call_id, _describe(error))
                self._flush_soon()

    # --- receiving (LinkUser)

    def on_body(self, body: Buffer) -> None:
        for event in self._inbox.feed(body):
            if self._inbox.is_own(event.call):
                self._on_answer(event)
            else:
                self._on_request(event)
        if self._outbox.control_waiting > CONTROL_BYTES_MAX:
            raise WireDamaged("the peer does not read its answers")

    def on_writable(self) -> None:
        self._flush()

    def on_closed(self, error: Exception | None) -> None:
        lost = LinkLost(f"the connection to the node was lost{f': {error}' if error else ''}")
        self._room.set()
        for call_id, call in list(self._calls.items()):
            if call.answer is not None and not call.answer.done():
                call.answer.set_exception(lost)
            self._end(call_id, error=lost)
        self._inbox.close_all()

    def _on_answer(self, event: Event) -> None:
        call = self._calls.get(event.call)
        if call is None or call.answer is None:
            return
        if event.kind in (Kind.LAST, Kind.OPEN):
            if event.kind is Kind.OPEN:
                call.stream = self._stream(event.call)
            if not call.answer.done():
                call.answer.set_result(Reply(unpack_payload(event.payload), call.stream))
        elif event.kind is Kind.ERROR:
            self._fail(event.call, call, unpack_error(event.payload))
        elif event.kind is Kind.CANCEL:
            self._fail(event.call, call, LinkLost("the node gave the call up"))
        elif event.kind is Kind.PART:
            self._fail(event.call, call, Unavailable("too many answers wait in this process"))
        else:
            self._on_stream(event, call)

    def _fail(self, call_id: int, call: _Call, error: NodeError) -> None:
        if call.answer is not None and not call.answer.done():
            call.answer.set_exception(error)
        else:
            self._end(call_id, error=error)

    def _on_request(self, event: Event) -> None:
        call = self._calls.get(event.call)
        if event.kind in (Kind.LAST, Kind.OPEN):
            call = self._calls[event.call] = _Call()
            if event.kind is Kind.OPEN:
                call.stream = self._stream(event.call)
            call.task = asyncio.create_task(self._answer(event.call, call, event.payload))
        elif event.kind is Kind.PART:
            self._outbox.error(event.call, pack_error("Busy", "this node has too much to do", 503))
            self._flush_soon()
        elif call is not None and event.kind in (Kind.CANCEL, Kind.ERROR):
            self._end(event.call, error=LinkLost("the caller gave up"))
        elif call is not None:
            self._on_stream(event, call)

    def _on_stream(self, event: Event, call: _Call) -> None:
        if event.kind is Kind.CREDIT:
            self._outbox.add_credit(event.call, event.amount)
            call.credit.set()
        elif call.stream is not None and event.kind is Kind.DATA:
            call.stream.put(event.payload)
        elif call.stream is not None:
            call.stream.end()
            if call.answer is not None:
                self._end(event.call)

    def _stream(self, call_id: int) -> IncomingStream:
        def grant(amount: int) -> None:
            if call_id in self._calls:
                self._inbox.grant(call_id, amount)
                self._outbox.grant(call_id, amount)
                self._flush_soon()

        return IncomingStream(grant)

    # --- answering

    async def _answer(self, call_id: int, call: _Call, message: bytes) -> None:
        """Run the handler. The call keeps its place until the answer has room to be sent."""
        try:
            endpoint, priority, payload = unpack_request(message)
            handler = self._handlers.get(endpoint)
            if handler is None:
                raise PeerFailed("NoSuchEndpoint", f"this node does not know {endpoint[:80]}", 404)
            result = await handler(Request(self._link.peer, payload, call.stream))
            reply = result if isinstance(result, Reply) else Reply(result)
            packed = pack_payload(reply.payload)
            await self._wait_for_room()
            self._outbox.message(call_id, priority, packed, reply.stream is not None)
            self._flush_soon()
            if reply.stream is not None:
                await self._send_stream(call_id, reply.stream)
        except Exception as error:
            self._outbox.error(call_id, _describe(error))
            self._flush_soon()
        finally:
            if self._calls.pop(call_id, None) is not None:
                self._inbox.close(call_id)

    def _end(self, call_id: int, *, cancel: bool = False, error: Exception | None = None) -> None:
        """The call is over on this side; the peer is told if it can't know."""
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        self._inbox.close(call_id)
        if self._inbox.is_own(call_id):
            self._own_calls -= 1
            self._room.set()
        for task in (call.task, call.sending):
            if task is not None:
                task.cancel()
        if call.stream is not None:
            call.stream.end(error)
        if self._inbox.is_own(call_id) and (cancel or self._outbox.unsent(call_id)):
            self._outbox.cancel(call_id)
            self._flush_soon()
        else:
            self._outbox.forget(call_id)


def _describe(error: Exception) -> bytes:
    """An exception as the peer is told it. What we did not foresee goes to the log instead."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return pack_error(code, str(error), getattr(error, "status", 0))
    if isinstance(error, GarageLiteError):
        status = 400 if isinstance(error, CallerError) else 503
        return pack_error(type(error).__name__, error.message, status)
    log.error("a call failed", exc_info=error)
    return pack_error("InternalError", "an internal error; the node's log says more", 500)


def operations_handler(
    operations: Mapping[str, Callable[[Any], Awaitable[Any]]],
) -> Handler:
    """Answers [name, parameters] by the operation of that name: the Admin API, over RPC."""

    async def handle(request: Request) -> Any:
        match request.payload:
            case [str() as name, parameters] if name in operations:
                return await operations[name](parameters)
            case [str() as name, _]:
                raise PeerFailed("NoSuchEndpoint", f"there is no operation {name[:80]!r}", 404)
        raise PeerFailed("InvalidRequest", "expected a name and its parameters", 400)

    return handle


class RpcServer:
    """Answers calls on one address. Give it handlers before `start`."""

    def __init__(
        self,
        key: NodeKey,
        network_key: bytes,
        entropy: Entropy,
        *,
        handlers_for: Callable[[Link], Mapping[str, Handler]] | None = None,
        others: Callable[[], Sequence[bytes]] = tuple,
        on_refused: Callable[[Link], None] | None = None,
    ) -> None:
        """`handlers_for`: what each link may call, if not all the same. `others`, `on_refused`:
        see Listener."""
        self._handlers: dict[str, Handler] = {}
        self._handlers_for = handlers_for
        self.budget = Budget(INCOMING_BYTES_MAX)
        """Of all sessions of this node."""
        self._listener = Listener(
            key, network_key, entropy, self._session, others=others, on_refused=on_refused
        )

    def _session(self, link: Link) -> Session:
        handlers = self._handlers if self._handlers_for is None else self._handlers_for(link)
        return Session(link, False, handlers, self.budget)

    def serve(self, endpoint: str, handler: Handler) -> None:
        self._handlers[endpoint] = handler

    async def start(self, address: Address) -> Address:
        """Listen; the address with its real port. StartupError in plain words."""
        return await self._listener.listen(address)

    def accept(self) -> Link:
        """A link for a connection that does not come over a socket."""
        return self._listener.accept()

    async def stop(self) -> None:
        """No new connections; open ones are closed. Handlers under way are cancelled."""
        await self._listener.close()

    @property
    def refused(self) -> int:
        """Connections that failed the handshake since the start."""
        return self._listener.refused


class RpcClient:
    """One node to call. Use as `async with RpcClient(...) as client`."""

    def __init__(
        self, peer: Peer, network_key: bytes, entropy: Entropy, key: NodeKey | None = None
    ) -> None:
        """Without a `key` it is a stranger with a fresh one, which holders of the network key
        may be."""
        self._peer = peer
        self._network_key = network_key
        self._entropy = entropy
        self._key = key or key_from_seed(entropy.token(SEED_BYTES))
        self._session: Session | None = None
        self._link: Link | None = None

    async def connect(self) -> None:
        """Raises Unreachable."""
        made: list[Session] = []

        def user(link: Link) -> Session:
            made.append(Session(link, True, {}, Budget(INCOMING_BYTES_MAX)))
            return made[0]

        self._link = await connect(self._peer, self._key, self._network_key, self._entropy, user)
        self._session = made[0]

    async def call(
        self,
        endpoint: str,
        payload: Any,
        timeout: float = CALL_SECONDS,  # noqa: ASYNC109
    ) -> Any:
        """The answer's value; errors as of Session.call."""
        return (await self.session.call(endpoint, payload, timeout=timeout)).payload

    @property
    def session(self) -> Session:
        """For calls with streams. Raises Unreachable before `connect`."""
        if self._session is None:
            raise Unreachable(f"not connected to {self._peer.address}")
        return self._session

    async def close(self) -> None:
        if self._link is not None:
            self._link.close()
            await self._link.closed

    async def __aenter__(self) -> RpcClient:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
