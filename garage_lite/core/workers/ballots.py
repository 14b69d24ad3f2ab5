"""Settles what proposers left undecided, and forgets ballots that nobody will ask about.

What a look finds undecided that the look before found too has been left behind: its proposer died,
or can't reach us. A register's memory is dropped a day after its last ballot, when no message of
then can be on its way any more; the first owner of the partition sees to it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import NodeError
from garage_lite.core.model.rowkeys import register_of
from garage_lite.core.workers.runner import BUSY, IDLE, Progress, Step

LOOK_SECONDS: Final = 5.0
FORGET_AFTER_US: Final = 25 * 3_600_000_000
"""A day, and longer than any message may live."""
FORGET_EVERY_LOOKS: Final = 720


class BallotWorker:
    """For the registers that this node holds."""

    name = "Ballot worker"

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._seen: set[bytes] = set()
        self._settled = self._forgot = self._looks = 0
        self._next: bytes | None = None

    async def work(self) -> Step:
        found = self._tables.registers.left_behind()
        for register in sorted(found & self._seen):
            await self._tables.registers.settle(register)
            self._settled += 1
        self._seen = found
        if self._looks % FORGET_EVERY_LOOKS == 0 and self._next is None:
            self._next = b""
        self._looks += 1
        if self._next is not None:
            self._next = await self._forget(self._next)
        return IDLE if self._next is None else BUSY

    async def _forget(self, start: bytes) -> bytes | None:
        """Forget what is old among some rows; where to go on."""
        registers = self._tables.registers
        before_us = self._tables.clock.now_us() - FORGET_AFTER_US
        rows = registers.remembered(start)
        for key, state in rows:
            register = register_of(key)
            old = state.promised.clock < before_us and not state.undecided
            if register is None or not old or not registers.is_first_owner(register):
                continue
            try:
                self._forgot += await registers.forget(register, before_us)
            except NodeError:
                continue  # the next round tries again
        return rows[-1][0] + b"\x00" if rows else None

    async def wait(self) -> None:
        await asyncio.sleep(LOOK_SECONDS)

    def progress(self) -> Progress:
        return Progress(freeform=(f"{self._settled} settled, {self._forgot} forgotten",))
