"""Repairs that an operator asks for: walk what this node holds, suspect, wait, ask a quorum, mend.

What looks wrong on one node may only be a write under way, of which one row has come before the
others; so a suspect is looked at again a while later, by reading from a quorum, and only what is
wrong then is mended. A repair is forgotten by a restart, and may be asked for again: it does no
harm twice. Must not know what the rows mean: that is the `Repair`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Final, Protocol

from garage_lite.core.block.pace import Pace
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.layout.lookup import Lookup
from garage_lite.core.table.schema import Change
from garage_lite.core.workers.runner import BUSY, DONE, Progress, State, Step

log = logging.getLogger(__name__)

SETTLE_US: Final = 600_000_000
"""Ten minutes: every phase of a write has a deadline of seconds, so by then all its rows are at
their quorums, or its writer has given up."""
SUSPECTS_MAX: Final = 20_000
"""About 150 bytes each; with so many waiting the walk waits, too."""
REST_US_MAX: Final = 30_000_000
"""So that a suspect is not looked at much later than it could be."""
TRANQUILITY: Final = 1


class Repair(Protocol):
    """What one repair looks for."""

    @property
    def name(self) -> str:
        """Of its worker."""
        ...

    @property
    def looked_at(self) -> int:
        """How many things it has walked past."""
        ...

    def find(self) -> AsyncIterator[Collection[bytes]]:
        """All that looks wrong, by names of the repair's own; an empty batch now and then where
        nothing does. Raises StorageFailed."""
        ...

    async def mends(self, suspects: Sequence[bytes]) -> Mapping[bytes, Sequence[Change]]:
        """For those that are wrong by what a quorum says: the rows that mend them. Raises
        Unavailable, StorageFailed."""
        ...


class RepairWorker:
    """One step is one batch found, or all suspects that are due."""

    def __init__(self, repair: Repair, tables: Tables) -> None:
        self._repair = repair
        self._tables = tables
        self._found = repair.find()
        self._walking = True
        self._suspects: dict[bytes, int] = {}
        """When each may be judged, by the monotonic clock; ascending, as they were found."""
        self._pace = Pace()
        self.mended = 0

    @property
    def name(self) -> str:
        return self._repair.name

    async def work(self) -> Step:
        now_us = self._tables.clock.monotonic_us()
        due = [suspect for suspect, due_us in self._suspects.items() if due_us <= now_us]
        if due:
            await self._judge(due)
            return BUSY
        if self._walking and len(self._suspects) < SUSPECTS_MAX:
            return await self._walk()
        if not self._suspects:
            log.info("%s: finished, done %d, fixed %d", *self._numbers())
            return DONE
        first = next(iter(self._suspects.values()))
        return Step(State.THROTTLED, min(first - now_us, REST_US_MAX))

    async def wait(self) -> None:
        return

    def progress(self) -> Progress:
        _, looked_at, mended = self._numbers()
        lines = [f"{len(self._suspects)} wait to be looked at again"] if self._suspects else []
        return Progress(progress=f"{looked_at} ({mended})", freeform=lines)

    def _numbers(self) -> tuple[str, int, int]:
        return self.name, self._repair.looked_at, self.mended

    async def _walk(self) -> Step:
        start_us = self._tables.clock.monotonic_us()
        batch = await anext(self._found, None)
        if batch is None:
            self._walking = False
            return BUSY
        end_us = self._tables.clock.monotonic_us()
        for suspect in batch:
            self._suspects.setdefault(suspect, end_us + SETTLE_US)
        return Step(State.THROTTLED, self._pace.rest_us(end_us - start_us, TRANQUILITY))

    async def _judge(self, due: list[bytes]) -> None:
        mends = await self._repair.mends(due)
        for suspect in due:
            changes = mends.get(suspect)
            if changes:
                await self._tables.write(changes, deletes_only=True)
                log.info("%s: mended %s", self.name, suspect.hex())
                self.mended += 1
            del self._suspects[suspect]


def reads_meet_writes(lookup: Lookup) -> bool:
    """Whether a read finds whatever was acknowledged. Not so in the consistency modes `degraded`
    and `dangerous`: there a repair would take away what somebody needs."""
    read = lookup.read_set(0)
    return read is not None and all(
        read.needed + write.needed > len(read.nodes)
        for write in lookup.write_sets(0)
        if write.version == read.version
    )


async def breathe() -> None:
    """Let requests have their turn."""
    await asyncio.sleep(0)
