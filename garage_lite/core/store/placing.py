"""How a new version takes its place among those of its key in a cluster, where no one replica can
tell what is there.

- A small write is *blind*: stamped by this node's clock, sent to all replicas, done once a quorum
  had it on time. Is it late at too many, a ballot finishes it.
- A write that took long has *asked* meanwhile: stamped above all that a quorum had since it began,
  it is after all that had ended by then, so it stands wherever a quorum has it, late or not.
- A conditional one is *decided* by ballot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from garage_lite.core.ballot import Rows
from garage_lite.core.cluster.quorum_rows import WrittenLate
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.disk.replica import Guard
from garage_lite.core.errors import CallerError, InvariantBroken
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import Stamp, object_row, stamp_of
from garage_lite.core.table.checks import Check
from garage_lite.core.table.deciding import Check as Judging
from garage_lite.core.table.deciding import conditional, finishing_blind
from garage_lite.core.table.schema import Change, Update

Riders = Callable[[Stamp], Sequence[Change]]
"""The rows that are written with a version, by its stamp."""


class Write(Protocol):
    """`Tables.write`, or what stands in its place."""

    def __call__(
        self, changes: Sequence[Change], guard: Guard | None, /, *, checks: Sequence[Check]
    ) -> Awaitable[None]: ...


class Commit(Protocol):
    """Adds to a write what makes it the end of something longer."""

    def __call__(
        self,
        changes: Sequence[Change],
        guard: Guard | None,
        /,
        *,
        checks: Sequence[Check],
        by: Write,
    ) -> Awaitable[None]: ...


async def commit_nothing(
    changes: Sequence[Change], guard: Guard | None, *, checks: Sequence[Check], by: Write
) -> None:
    """A write that ends nothing longer."""
    await by(changes, guard, checks=checks)


async def newest_clock(tables: Tables, prefix: bytes) -> int:
    """Of the newest version of a key that a quorum has now; 0 if there is none."""
    rows = await tables.versions(prefix)
    return stamp_of(rows[0][0]).clock if rows else 0


@contextlib.asynccontextmanager
async def asking(tables: Tables, prefix: bytes) -> AsyncIterator[Awaitable[int] | None]:
    """`newest_clock`, asked for while something longer goes on; None for a node alone."""
    if tables.alone:
        yield None
        return
    task = asyncio.create_task(newest_clock(tables, prefix))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


@dataclass(frozen=True, slots=True)
class Place:
    """A place to be taken. `version` has its bucket's floor, and no stamp yet."""

    tables: Tables
    prefix: bytes
    version: ObjectVersion
    riders: Riders
    checks: Sequence[Check]
    commit: Commit

    def _at(self, stamp: Stamp) -> tuple[ObjectVersion, list[Change]]:
        placed = replace(self.version, stamp=stamp)
        row = Update(object_row(self.prefix, stamp), placed.encode())
        return placed, [row, *self.riders(stamp)]

    async def blindly(self) -> ObjectVersion:
        """Raises QuorumNotReached, and what the checks raise."""
        placed, changes = self._at(Stamp(self.tables.stamp(), 0, self.version.id))
        try:
            await self.commit(changes, None, checks=self.checks, by=self.tables.write)
        except WrittenLate as late:
            return await finished(self.tables, self.prefix, placed, self._rows(placed), late.clock)
        return placed

    async def above(self, clock: int, stamp: Stamp | None = None) -> ObjectVersion:
        """`clock`: what `newest_clock` gave since this write began; or a `stamp` made above one.
        Raises as `blindly`."""
        stamp = stamp or Stamp(self.tables.stamp(clock), 0, self.version.id)
        placed, changes = self._at(stamp)

        async def write(
            changes: Sequence[Change], guard: Guard | None, /, *, checks: Sequence[Check]
        ) -> None:
            await self.tables.write(changes, guard, checks=checks, new=False)

        await self.commit(changes, None, checks=self.checks, by=write)
        return placed

    async def if_allowed(self, judging: Judging) -> ObjectVersion:
        """Raises what `judging` raises, or as `Registers.decide`."""
        judge = conditional(self.prefix, self.version, judging, self._rows)
        result: list[ObjectVersion] = []

        async def decide(
            changes: Sequence[Change], guard: Guard | None, /, *, checks: Sequence[Check]
        ) -> None:
            decided = await self.tables.registers.decide(self.prefix, judge, checks)
            if isinstance(decided, CallerError):
                raise decided
            result.append(decided)

        await self.commit((), None, checks=self.checks, by=decide)
        return result[0]

    def _rows(self, placed: ObjectVersion) -> Rows:
        return tuple(_row(change) for change in self.riders(placed.stamp))


def _row(change: Change) -> tuple[bytes, bytes]:
    if not isinstance(change, Update):
        raise InvariantBroken("only rows ride with a version")
    return change.key, change.value


async def finished(
    tables: Tables, prefix: bytes, late: ObjectVersion, riders: Rows, clock: int
) -> ObjectVersion:
    """A blind write that was late at too many replicas, or what replaces it under its id: it
    stands on return. `clock`: the highest met. Raises as `Registers.decide`."""
    if tables.registers.exact:
        judge = finishing_blind(prefix, late, late.id, riders)
        return await tables.registers.decide(prefix, judge)
    stamp = Stamp(tables.stamp(clock), 0, late.id)
    placed = replace(late, stamp=stamp, replaces=late.stamp)
    row = Update(object_row(prefix, stamp), placed.encode())
    await tables.write([row, *(Update(*rider) for rider in riders)], new=False)
    return placed
