"""A link's transport that is no socket: bytes that a third node passes on in the two streams of a
call. What runs over it is the usual handshake and box stream, so the third node reads nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from garage_lite.core.cluster.transport import Link
from garage_lite.core.errors import NodeError
from garage_lite.core.limits import KIB
from garage_lite.core.ports import Buffer

log = logging.getLogger(__name__)

PIECE_BYTES_MAX: Final = 64 * KIB
HIGH_BYTES: Final = 128 * KIB
"""Waiting to be passed on: the link is then asked to pause, below the half to go on."""


class RelayTransport(asyncio.Transport):
    """One end. Hand `outgoing()` to the call as its stream, then `start` with the other one."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()
        self._paused = False
        self._closing = False
        self._receiving: asyncio.Task[None] | None = None

    # --- both streams

    def start(self, incoming: AsyncIterator[bytes]) -> None:
        """Both streams are there: the link may begin."""
        self._receiving = asyncio.get_running_loop().create_task(self._receive(incoming))
        self._link.connection_made(self)

    async def outgoing(self) -> AsyncIterator[bytes]:
        """What the link writes, until it is closed."""
        while True:
            while self._waiting:
                piece = self._waiting.popleft()
                self._waiting_bytes -= len(piece)
                self._maybe_resume()
                yield piece
            if self._closing:
                return
            self._changed.clear()
            await self._changed.wait()

    async def _receive(self, incoming: AsyncIterator[bytes]) -> None:
        """Feed the link. When it has closed, the rest is read and dropped, so that nothing on the
        way waits for this node."""
        error: NodeError | None = None
        try:
            async for piece in incoming:
                await self._feed(piece)
        except NodeError as failure:
            error = failure
        if error is not None and not self._closing:
            self._link.abort(error)
        self.abort()

    async def _feed(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest and not self._closing:
            await self._reading.wait()
            room = self._link.get_buffer(len(rest))
            length = min(len(room), len(rest))
            room[:length] = rest[:length]
            del room
            self._link.buffer_updated(length)
            rest = rest[length:]

    # --- asyncio.Transport

    def write(self, data: Buffer) -> None:
        if self._closing:
            return
        for start in range(0, len(data), PIECE_BYTES_MAX):
            self._waiting.append(bytes(memoryview(data)[start : start + PIECE_BYTES_MAX]))
        self._waiting_bytes += len(data)
        self._changed.set()
        if self._waiting_bytes > HIGH_BYTES and not self._paused:
            self._paused = True
            self._link.pause_writing()

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        for data in list_of_data:
            self.write(data)

    def _maybe_resume(self) -> None:
        if self._paused and self._waiting_bytes < HIGH_BYTES // 2 and not self._closing:
            self._paused = False
            self._link.resume_writing()

    def close(self) -> None:
        """What was written still leaves."""
        if self._closing:
            return
        self._closing = True
        self._changed.set()
        self._reading.set()
        asyncio.get_running_loop().call_soon(self._link.connection_lost, None)

    def abort(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading.is_set()

    def pause_reading(self) -> None:
        self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The bounds are those of this module."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """There is no socket to tell of."""
        return default
