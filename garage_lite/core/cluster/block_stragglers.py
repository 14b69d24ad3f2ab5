"""Blocks that are acknowledged and still on their way to slow nodes, within a bound of memory.

While there is room nobody hears of them. When there is none, one that stands still is given up at
once; else the newest block waits for room for as long as its quorum took, and then the oldest is
given up. So a slow node makes no write take more than twice as long, and a frozen one costs only
memory that is set aside for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

from garage_lite.core.limits import MEMORY_STRAGGLERS

STUCK_SECONDS: Final = 0.5
"""A send that took no byte for so long is the first to be given up."""


class Sending:
    """One block on its way to one node."""

    def __init__(self) -> None:
        self.moved = asyncio.get_running_loop().time()
        """When it last got on."""
        self.task: asyncio.Task[Any]

    def moves(self) -> None:
        self.moved = asyncio.get_running_loop().time()

    @property
    def is_over(self) -> bool:
        return self.task.done()


class Stragglers:
    """Holds at most `total` bytes, or one block that is bigger."""

    def __init__(self, total: int = MEMORY_STRAGGLERS) -> None:
        self.total = total
        self.held = 0
        self._blocks: dict[frozenset[Sending], int] = {}
        """The sends of one block -> its bytes; the oldest first."""
        self._changed = asyncio.Event()

    async def adopt(self, size: int, late: Collection[Sending], patience: float) -> None:
        """Let the late sends of a block of `size` bytes go on; waits for room as the module says,
        `patience` being how many seconds at most while the others move."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while self._blocks and self.held + size > self.total:
            self._changed.clear()
            now = loop.time()
            if now >= until:
                self._give_up(next(iter(self._blocks)))
                await self._changed.wait()
                continue
            for sends in [sends for sends in self._blocks if _is_stuck(sends, now)]:
                self._give_up(sends)
            try:
                async with asyncio.timeout(min(until - now, STUCK_SECONDS)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        sends = frozenset(one for one in late if not one.is_over)
        if sends:
            self.held += size
            self._blocks[sends] = size
            for one in sends:
                one.task.add_done_callback(lambda _: self._ended(sends))

    def _give_up(self, sends: frozenset[Sending]) -> None:
        for one in sends:
            one.task.cancel()

    def _ended(self, sends: frozenset[Sending]) -> None:
        if sends in self._blocks and all(one.is_over for one in sends):
            self.held -= self._blocks.pop(sends)
            self._changed.set()

    async def close(self, seconds: float) -> None:
        """Let all end within `seconds`; then give them up."""
        tasks = {one.task for sends in self._blocks for one in sends}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


def _is_stuck(sends: frozenset[Sending], now: float) -> bool:
    return all(one.is_over or now - one.moved > STUCK_SECONDS for one in sends)
