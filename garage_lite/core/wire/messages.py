"""Many calls on one connection: chunks, what they may say when, and how much may wait.

A frame's body is a run of whole chunks:

    chunk = id u32, kind u8, length u16 (big-endian), payload

Both ends call on one connection: who opened it numbers its calls 1, 3, 5..., the other 2, 4, 6...,
so an id tells whose call it is. A call is a message (PART*, then LAST, or OPEN when a stream
follows), then DATA* and END; the answer looks the same, or is an ERROR. A stream's sender may
have WINDOW_BYTES under way that its receiver has not granted again by CREDIT, which it does in
steps of CREDIT_BYTES, for a grant costs a frame. CANCEL ends a call from either side. Chunks of
a call that is over are late, not wrong, and are dropped.

Every quantity is bounded: a message, the calls a peer may have open, the bytes of all waiting
messages and of all incoming streams' windows (`Budget`, shared by the connections of a node). A
peer over a bound that it can't know is refused that call; one that breaks a rule it knows loses
the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgpack

from garage_lite.core.errors import NodeError
from garage_lite.core.limits import KIB, MIB
from garage_lite.core.ports import Buffer
from garage_lite.core.wire.frames import WireDamaged

PROTOCOL: Final = b"garage-lite rpc 1"
"""The first frame each side sends; another one means a version that can't be talked to."""

CHUNK: Final = struct.Struct(">IBH")
CHUNK_BYTES_MAX: Final = 16 * KIB
"""Payload of one chunk: a ping waits for no more than this of a block."""
MESSAGE_BYTES_MAX: Final = 4 * MIB
"""A listing of 10,000 buckets fits; what is bigger goes as a stream."""
WINDOW_BYTES: Final = MIB + 128 * KIB
"""A block of the default size fits without a grant: over a link of 200 ms each grant that a sender
waits for costs as much as a megabyte at 40 Mbps."""
CREDIT_BYTES: Final = WINDOW_BYTES // 4
CALLS_MAX: Final = 256
"""Calls one peer may have open at this node at once; a caller lets more wait."""


class Kind(IntEnum):
    PART = 1
    LAST = 2
    OPEN = 3
    DATA = 4
    END = 5
    CREDIT = 6
    CANCEL = 7
    ERROR = 8


class Half(IntEnum):
    """Where the incoming half of a call stands."""

    MESSAGE = 1
    STREAM = 2
    WAITING = 3
    """All of it is here; the call itself is not over."""


NEXT: Final = {
    (Half.MESSAGE, Kind.PART): Half.MESSAGE,
    (Half.MESSAGE, Kind.LAST): Half.WAITING,
    (Half.MESSAGE, Kind.OPEN): Half.STREAM,
    (Half.STREAM, Kind.DATA): Half.STREAM,
    (Half.STREAM, Kind.END): Half.WAITING,
}
"""The state table. CREDIT, CANCEL and ERROR may come at any time; all else is WireDamaged."""


class Event(NamedTuple):
    """What a chunk meant: `kind` LAST or OPEN (the whole message is in `payload`), DATA, END,
    CREDIT (`amount`), CANCEL, ERROR, or PART for a call that must be refused for lack of room."""

    call: int
    kind: Kind
    payload: bytes = b""
    amount: int = 0


class PeerFailed(NodeError):
    """The called side answered with an error: its `code` and HTTP-like `status` (0: none)."""

    def __init__(self, code: str, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Budget:
    """Bytes of messages that may wait, all connections of a node together."""

    def __init__(self, limit: int) -> None:
        self._free = limit

    def take(self, amount: int) -> bool:
        if amount > self._free:
            return False
        self._free -= amount
        return True

    def give(self, amount: int) -> None:
        self._free += amount


class _Incoming:
    __slots__ = ("dropped", "half", "parts", "reserved", "size", "window")

    def __init__(self) -> None:
        self.half = Half.MESSAGE
        self.parts: list[bytes] = []
        self.size = 0
        self.reserved = 0
        """Of the budget, for the stream's window."""
        self.window = WINDOW_BYTES
        self.dropped = False
        """Refused: the rest of the message is read and thrown away."""


class Inbox:
    """The receiving end of a connection's calls. Feed it frame bodies, take events."""

    def __init__(self, opener: bool, budget: Budget) -> None:
        self._own_parity = 1 if opener else 0
        self._budget = budget
        self._calls: dict[int, _Incoming] = {}
        self._theirs = 0

    def expect(self, call: int) -> None:
        """This side opens a call; its answer will come."""
        self._calls[call] = _Incoming()

    def close(self, call: int) -> None:
        """The call is over; whatever still comes for it is late."""
        incoming = self._calls.pop(call, None)
        if incoming is not None:
            self._budget.give(incoming.size + incoming.reserved)
            self._theirs -= not self.is_own(call)

    def close_all(self) -> None:
        for call in list(self._calls):
            self.close(call)

    def is_own(self, call: int) -> bool:
        return call % 2 == self._own_parity

    def grant(self, call: int, amount: int) -> None:
        """`amount` bytes of the stream were consumed; the peer is being told so by CREDIT."""
        if call in self._calls:
            self._calls[call].window += amount

    def feed(self, body: Buffer) -> list[Event]:
        """The events of one frame body. WireDamaged if it breaks a rule."""
        events: list[Event] = []
        view = memoryview(body)
        at = 0
        while at < len(view):
            if len(view) - at < CHUNK.size:
                raise WireDamaged
            call, kind, length = CHUNK.unpack_from(view, at)
            at += CHUNK.size
            if length > CHUNK_BYTES_MAX or len(view) - at < length or call == 0:
                raise WireDamaged
            try:
                event = self._take(call, Kind(kind), bytes(view[at : at + length]))
            except ValueError as error:
                raise WireDamaged from error
            at += length
            if event is not None:
                events.append(event)
        return events

    def _take(self, call: int, kind: Kind, payload: bytes) -> Event | None:
        incoming = self._calls.get(call)
        if incoming is None:
            if self.is_own(call) or kind not in (Kind.PART, Kind.LAST, Kind.OPEN):
                return None
            incoming = self._admit(call)
        if kind is Kind.CREDIT:
            if len(payload) != 4:
                raise WireDamaged
            return Event(call, kind, amount=int.from_bytes(payload, "big"))
        if kind is Kind.CANCEL or kind is Kind.ERROR:
            dropped = incoming.dropped
            self.close(call)
            return None if dropped else Event(call, kind, payload)
        half = NEXT.get((incoming.half, kind))
        if half is None:
            raise WireDamaged
        incoming.half = half
        if incoming.dropped:
            if half is not Half.MESSAGE:
                self.close(call)
            return None
        if kind is Kind.DATA:
            incoming.window -= len(payload)
            if incoming.window < 0:
                raise WireDamaged
        if kind in (Kind.DATA, Kind.END):
            return Event(call, kind, payload)
        return self._take_message(call, incoming, kind, payload)

    def _admit(self, call: int) -> _Incoming:
        if self._theirs >= 2 * CALLS_MAX:
            raise WireDamaged  # it goes on although the calls above the limit were refused
        incoming = self._calls[call] = _Incoming()
        self._theirs += 1
        return incoming

    def _take_message(
        self, call: int, incoming: _Incoming, kind: Kind, payload: bytes
    ) -> Event | None:
        if incoming.size + len(payload) > MESSAGE_BYTES_MAX:
            raise WireDamaged
        asked = self.is_own(call)
        window = WINDOW_BYTES if kind is Kind.OPEN and not asked else 0
        crowded = not asked and self._theirs > CALLS_MAX
        if crowded or not self._budget.take(len(payload) + window):
            return self._refuse(call, incoming, kind)
        incoming.size += len(payload)
        incoming.reserved = window
        incoming.parts.append(payload)
        if kind is Kind.PART:
            return None
        message = b"".join(incoming.parts)
        incoming.parts.clear()
        return Event(call, kind, message)

    def _refuse(self, call: int, incoming: _Incoming, kind: Kind) -> Event:
        self._budget.give(incoming.size)
        incoming.size = 0
        incoming.parts.clear()
        incoming.dropped = True
        if kind is not Kind.PART:
            self.close(call)
        return Event(call, Kind.PART)


def chunk(call: int, kind: Kind, payload: Buffer = b"") -> bytes:
    return CHUNK.pack(call, kind, len(payload)) + payload


def pack_request(endpoint: str, priority: int, payload: Any) -> bytes:
    return _pack([endpoint, priority, payload])


def unpack_request(message: bytes) -> tuple[str, int, Any]:
    """Endpoint, priority, payload. WireDamaged if it is none."""
    match _unpack(message):
        case [str() as endpoint, int() as priority, payload] if 0 <= priority <= 255:
            return endpoint, priority, payload
    raise WireDamaged


def pack_payload(payload: Any) -> bytes:
    """An answer. ValueError, TypeError or OverflowError if it can't be put in bytes."""
    return _pack(payload)


def unpack_payload(message: bytes) -> Any:
    return _unpack(message)


def pack_error(code: str, message: str, status: int = 0) -> bytes:
    """An error, cut to fit one chunk."""
    return _pack([code[:64], message[:1000], status])


def unpack_error(payload: bytes) -> PeerFailed:
    match _unpack(payload):
        case [str() as code, str() as message, int() as status]:
            return PeerFailed(code, message, status)
    raise WireDamaged


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _unpack(message: bytes) -> Any:
    try:
        return msgpack.unpackb(message, raw=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireDamaged from error


def split(payload: Buffer) -> Iterable[memoryview]:
    """A payload in pieces of one chunk at most; one empty piece if it is empty."""
    view = memoryview(payload)
    for start in range(0, max(len(view), 1), CHUNK_BYTES_MAX):
        yield view[start : start + CHUNK_BYTES_MAX]
