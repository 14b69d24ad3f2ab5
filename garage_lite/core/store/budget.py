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
from collections.abc import Callable, Sequence
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
        self._serving = False

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
            self._timer = loop.call_later(self._patience_s, self._lose_patience)
        self._serve()
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

    def _serve(self, slow: Sequence[Hold] = ()) -> None:
        """Grant to those who wait; if they can't go on, take memory back from the `slow`, or
        from each other when there is nobody else who could ever give any."""
        if self._serving:
            return
        self._serving = True
        try:
            self._grant_waiting(modest=bool(slow))
            if self._waiters and (slow or self._stuck()):
                self._take_back(slow or list(self._holds))
        finally:
            self._serving = False

    def _grant_waiting(self, modest: bool) -> None:
        """In order. `modest`: the first gets what is in his hand, if his block has no room."""
        while self._waiters:
            waiter = self._waiters[0]
            amount = waiter.amount(self.total, modest=False)
            if self.free < amount and modest:
                amount = waiter.amount(self.total, modest=True)
            if self.free < amount:
                return
            modest = False
            self._waiters.popleft()
            self._reserve(waiter.hold, amount)
            waiter.hold.used += waiter.chunk
            if not waiter.granted.done():
                waiter.granted.set_result(None)

    def _stuck(self) -> bool:
        """Whether all memory is held by streams that wait for more."""
        if self.leaving:
            return False
        waiting = {waiter.hold for waiter in self._waiters}
        return all(hold in waiting for hold in self._holds if hold.reserved)

    def _take_back(self, holds: Sequence[Hold]) -> None:
        for hold in holds:
            hold.trim()
        self._grant_waiting(modest=True)
        if not self._waiters:
            return
        needed = self._waiters[0].amount(self.total, modest=True)
        for hold in sorted(holds, key=lambda hold: hold.used, reverse=True):
            if self.free + self.leaving >= needed:
                return
            hold.let_go()

    def _lose_patience(self) -> None:
        """The first in the queue may have waited long enough: see who is slow."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        if self._waiters and now - self._waiters[0].since >= self._patience_s:
            self._serve([hold for hold in self._holds if now - hold.since >= self._patience_s])
        if self._waiters:
            self._timer = loop.call_later(self._patience_s / 2, self._lose_patience)
