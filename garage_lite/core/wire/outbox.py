"""The sending end of a connection's calls: what goes into the next frame.

Strict priority between levels, turns of one chunk within a level: a ping overtakes a block, and
ten blocks share the line. Pieces of one call never overtake each other. Nothing is cut into
chunks before it is its turn, so that what becomes urgent meanwhile still goes first.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from garage_lite.core.ports import Buffer
from garage_lite.core.wire.frames import BODY_BYTES_MAX
from garage_lite.core.wire.messages import (
    CHUNK,
    CHUNK_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    WINDOW_BYTES,
    Kind,
    chunk,
)

URGENT: Final = 0x20
"""Pings, layout."""
NORMAL: Final = 0x40
"""Metadata, and what a person waits for."""
BULK: Final = 0x60
"""Blocks of clients' requests."""
BACKGROUND: Final = 0x80
"""Resync, repair."""

_STREAM: Final = (Kind.DATA, Kind.END)


class _Lane:
    """What waits of one call: (kind of its last chunk, bytes) in order."""

    __slots__ = ("call", "credit", "complete", "pieces", "priority", "queued", "started")

    def __init__(self, call: int, priority: int) -> None:
        self.call = call
        self.priority = priority
        self.pieces: deque[tuple[Kind, memoryview]] = deque()
        self.credit = WINDOW_BYTES
        self.queued = False
        self.started = False
        self.complete = False
        """Nothing will be added."""

    def next_chunk(self) -> bytes:
        kind, piece = self.pieces.popleft()
        if len(piece) > CHUNK_BYTES_MAX:
            self.pieces.appendleft((kind, piece[CHUNK_BYTES_MAX:]))
            piece = piece[:CHUNK_BYTES_MAX]
            kind = kind if kind in _STREAM else Kind.PART
        self.started = True
        return chunk(self.call, kind, piece)


class Outbox:
    """Queues of one connection."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {}
        self._turns: dict[int, deque[_Lane]] = {}
        self._control: deque[bytes] = deque()
        self.waiting = 0
        """Bytes of messages and streams not yet taken."""
        self.control_waiting = 0
        """Bytes of grants, cancellations and errors not yet taken."""

    def message(self, call: int, priority: int, payload: Buffer, stream: bool = False) -> None:
        """A request or an answer, whole; `stream` says that one follows. ValueError if it is
        too big."""
        if len(payload) > MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of {len(payload)} bytes; at most {MESSAGE_BYTES_MAX} fit")
        lane = self._lanes[call] = _Lane(call, priority)
        self._put(lane, Kind.OPEN if stream else Kind.LAST, payload)

    def credit(self, call: int) -> int:
        """Bytes of the call's stream that may be handed over now."""
        lane = self._lanes.get(call)
        return lane.credit if lane else 0

    def add_credit(self, call: int, amount: int) -> None:
        if call in self._lanes:
            self._lanes[call].credit += amount

    def data(self, call: int, payload: Buffer) -> None:
        """A piece of the call's stream, within its credit."""
        lane = self._lanes[call]
        if len(payload) > lane.credit:
            raise ValueError("more than the receiver granted")
        lane.credit -= len(payload)
        self._put(lane, Kind.DATA, payload)

    def end(self, call: int) -> None:
        """The call's stream is complete."""
        self._put(self._lanes[call], Kind.END, b"")

    def grant(self, call: int, amount: int) -> None:
        """Tell the peer that `amount` more bytes of its stream may come."""
        self._put_control(chunk(call, Kind.CREDIT, amount.to_bytes(4, "big")))

    def cancel(self, call: int) -> None:
        """Give a call up: what waits is dropped, and the peer told if it knows of the call."""
        lane = self.forget(call)
        if lane is None or lane.started:
            self._put_control(chunk(call, Kind.CANCEL))

    def error(self, call: int, payload: bytes) -> None:
        """Answer with an error instead of whatever waits."""
        self.forget(call)
        self._put_control(chunk(call, Kind.ERROR, payload))

    def unsent(self, call: int) -> bool:
        """Whether something of the call still waits or is still to come."""
        return call in self._lanes

    def forget(self, call: int) -> _Lane | None:
        """The call is over: drop what waits of it."""
        lane = self._lanes.pop(call, None)
        if lane is not None:
            self.waiting -= sum(len(piece) for _, piece in lane.pieces)
            lane.pieces.clear()
        return lane

    def next_body(self) -> bytes:
        """The most urgent chunks, as many as a frame holds; empty if nothing waits."""
        parts: list[bytes] = []
        room = BODY_BYTES_MAX
        while self._control and len(self._control[0]) <= room:
            parts.append(self._control.popleft())
            self.control_waiting -= len(parts[-1])
            room -= len(parts[-1])
        for priority in sorted(self._turns):
            lanes = self._turns[priority]
            while lanes and room >= CHUNK.size + CHUNK_BYTES_MAX:
                lane = lanes.popleft()
                if not lane.pieces:
                    lane.queued = False
                    continue
                parts.append(lane.next_chunk())
                room -= len(parts[-1])
                self.waiting -= len(parts[-1]) - CHUNK.size
                lane.queued = bool(lane.pieces)
                if lane.queued:
                    lanes.append(lane)
                elif lane.complete:
                    del self._lanes[lane.call]
            if not lanes:
                del self._turns[priority]
        return b"".join(parts)

    def _put(self, lane: _Lane, kind: Kind, payload: Buffer) -> None:
        view = memoryview(payload).cast("B")
        self.waiting += len(view)
        lane.pieces.append((kind, view))
        lane.complete = kind in (Kind.LAST, Kind.END)
        if not lane.queued:
            lane.queued = True
            self._turns.setdefault(lane.priority, deque()).append(lane)

    def _put_control(self, piece: bytes) -> None:
        self.control_waiting += len(piece)
        self._control.append(piece)
