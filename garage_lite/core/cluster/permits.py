"""Bytes of memory that a kind of traffic may hold at once; who finds too few waits his turn.

Each direction has permits of its own, so that three full nodes that wait for each other can't
wait for ever. Who holds some while he waits for another node does so with a deadline.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from garage_lite.core.errors import Unavailable

WAITING_MAX: Final = 64
"""Beyond it the next one is refused: its sender has others to turn to, and each of those that
wait may have a window of bytes here already."""


class Permits:
    """`total` bytes."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncIterator[None]:
        """Hold `amount` bytes, first come, first served. More than all counts as all.

        Raises Unavailable when too many wait.
        """
        amount = min(amount, self.total)
        await self._take(amount)
        try:
            yield
        finally:
            self._give(amount)

    async def _take(self, amount: int) -> None:
        if not self._waiting and self.free >= amount:
            self.free -= amount
            return
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("this node has too many blocks under way")
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, granted))
        try:
            await granted
        except asyncio.CancelledError:
            # Granted in the same turn, or not; who gave up may be what the others wait for.
            self._give(0 if granted.cancelled() else amount)
            raise

    def _give(self, amount: int) -> None:
        self.free += amount
        while self._waiting:
            wanted, granted = self._waiting[0]
            if not granted.cancelled():
                if self.free < wanted:
                    return
                self.free -= wanted
                granted.set_result(None)
            self._waiting.popleft()
