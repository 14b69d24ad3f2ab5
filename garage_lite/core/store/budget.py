"""One budget of bytes for the bodies of all clients, that slow clients can't hold on to.

A stream asks for the rest of its block when the block's first bytes are there, first come, first
served; then fast clients fill whole blocks and the others wait in TCP. But nobody may keep memory
while he waits for his client: when others have waited for `patience_s`, streams lose what they
reserved and have not filled, and after that the largest are asked to let go of what they hold
(an upload stores a shorter block, a download drops the block and reads it again later). All
memory is thus either on its way to the disk or can be taken back: there is no deadlock, whatever
the number of streams.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

PATIENCE_S: Final = 0.5
"""How long a stream may take over a block while others wait."""


class _Waiter(NamedTuple):
    hold: Hold
    chunk: int
    room: int
    since: float
    granted: asyncio.Future[None]

    def amount(self, total: int, *, modest: bool) -> int:
        """What must be free: the rest of the block, or just what is in hand."""
        used = self.hold.used
        goal = used + self.chunk if modest else min(used + self.room, total)
        return max(goal, used + self.chunk) - self.hold.reserved


class Hold:
    """What one stream has of the budget. Made by `Budget.hold`; to be closed."""

    __slots__ = ("_budget", "let_go", "reserved", "since", "used")

    def __init__(self, budget: Budget, let_go: Callable[[], None]) -> None:
        self._budget = budget
        self.let_go = let_go
        """Asks the stream to give back, now or soon, what it holds unfinished."""
        self.reserved = 0
        self.used = 0
        self.since = 0.0
        """When it last began to reserve, on the loop's clock."""

    async def take(self, chunk: int, room: int) -> None:
        """Account for `chunk` more bytes; reserves up to `room` (the rest of the block) at once.

        Waits its turn when there is too little. More than the whole budget counts as all of it.
        """
        await self._budget.grant(self, chunk, max(chunk, room))

    def try_take(self, chunk: int) -> bool:
        """As `take`, but never waits and never goes before those who do."""
        return self._budget.grant_now(self, chunk, chunk)

    def leave(self, size: int) -> int:
        """`size` bytes go on without the stream (they are being stored).

        Returns what to `Budget.give` back when they are done.
        """
        amount = min(size, self.reserved)
        self.reserved -= amount
        self.used = min(max(0, self.used - size), self.reserved)
        self.since = asyncio.get_running_loop().time()
        self._budget.leaving += amount
        return amount

    def trim(self) -> None:
        """Give back what is reserved and not used."""
        excess = self.reserved - self.used
        self.reserved = self.used
        if excess:
            self._budget.release(excess)

    def drop(self) -> None:
        """Give back everything at once; the hold can be used again."""
        self.used = 0
        self.trim()

    def close(self) -> None:
        self.drop()
        self._budget.forget(self)


class Budget:
    """`total` bytes shared by all holds."""

    def __init__(self, total: int, patience_s: float = PATIENCE_S) -> None:
        self.total = total
        self.free = total
        self.leaving = 0
        """Bytes on their way to the disk: they come back without anybody being asked."""
        self._patience_s = patience_s
        self._holds: set[Hold] = set()
        self._waiters: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, let_go: Callable[[], None]) -> Hold:
        hold = Hold(self, let_go)
        self._holds.add(hold)
        return hold

    def forget(self, hold: Hold) -> None:
        self._holds.discard(hold)

    def grant_now(self, hold: Hold, chunk: int, room: int) -> bool:
        """Grant what is reserved already, or all that is wanted if it is free and nobody waits."""
        chunk = min(chunk, self.total)
        if hold.used + chunk > hold.reserved:
            more = min(hold.used + room, self.total) - hold.reserved
            if self._waiters or self.free < more or more <= 0:
                return False
            self._reserve(hold, more)
        hold.used += chunk
        return True

    async def grant(self, hold: Hold, chunk: int, room: int) -> None:
        if self.grant_now(hold, chunk, room):
            return
        loop = asyncio.get_running_loop()
        chunk = min(chunk, self.total)
        waiter = _Waiter(hold, chunk, room, loop.time(), loop.create_future())
        self._waiters.append(waiter)
        if self._timer is None:
            self._timer = loop.call_later(self._patience_s, self._reclaim)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            self._serve()
            raise

    def give(self, amount: int) -> None:
        """What `Hold.leave` returned has been stored."""
        self.leaving -= amount
        self.release(amount)

    def release(self, amount: int) -> None:
        self.free += amount
        self._serve()

    def _reserve(self, hold: Hold, amount: int) -> None:
        if not hold.reserved:
            hold.since = asyncio.get_running_loop().time()
        hold.reserved += amount
        self.free -= amount

    def _serve(self) -> None:
        """Grant to those who wait, in order; who has waited long gets what he needs at once."""
        while self._waiters:
            waiter = self._waiters[0]
            amount = waiter.amount(self.total, modest=self._overdue(waiter))
            if self.free < amount:
                return
            self._waiters.popleft()
            self._reserve(waiter.hold, amount)
            waiter.hold.used += waiter.chunk
            if not waiter.granted.done():
                waiter.granted.set_result(None)

    def _overdue(self, waiter: _Waiter) -> bool:
        return asyncio.get_running_loop().time() - waiter.since >= self._patience_s

    def _reclaim(self) -> None:
        """Take memory back from slow streams if the first in the queue has waited long enough."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        if self._waiters and self._overdue(self._waiters[0]):
            slow = [hold for hold in self._holds if now - hold.since >= self._patience_s]
            for hold in slow:
                hold.trim()
            self._serve()
            if self._waiters:
                needed = self._waiters[0].amount(self.total, modest=True)
                slow.sort(key=lambda hold: hold.used, reverse=True)
                for hold in slow:
                    if self.free + self.leaving >= needed:
                        break
                    hold.let_go()
        if self._waiters:
            self._timer = loop.call_later(self._patience_s / 2, self._reclaim)
