"""The receiving end of a stream between two nodes: pieces as they come, in order, then its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from garage_lite.core.wire.messages import CREDIT_BYTES


class IncomingStream:
    """The receiving end of a stream. What is taken is granted to the sender again."""

    def __init__(self, grant: Callable[[int], None]) -> None:
        self._grant = grant
        self._pieces: deque[bytes] = deque()
        self._taken = 0
        """Bytes taken and not yet granted again."""
        self._done = False
        self._error: Exception | None = None
        self._wake = asyncio.Event()

    def put(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._wake.set()

    def end(self, error: Exception | None = None) -> None:
        if not self._done:
            self._done, self._error = True, error
            self._wake.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._done:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        piece = self._pieces.popleft()
        self._taken += len(piece)
        if self._taken >= CREDIT_BYTES and not self._done:
            self._grant(self._taken)
            self._taken = 0
        return piece
