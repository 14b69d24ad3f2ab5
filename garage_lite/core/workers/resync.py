"""Eats the resync queue: fetches blocks that are missing, deletes those nobody refers to, hands
over those that belong to other nodes now.

The verdicts are `core/block/resync.py`'s; here facts are gathered under the block's lock, files
touched, and the entry replaced in a write whose guard makes sure that nobody queued the block
again meanwhile, and that what made it settled is still so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from garage_lite.core.block.frame import StoredBlock
from garage_lite.core.block.pace import Pace
from garage_lite.core.block.resync import (
    Action,
    ResyncEntry,
    Row,
    Verdict,
    after_asking,
    after_failure,
    block_of,
    counts,
    decide,
    due_key,
    due_of,
    requeued_rows,
    settled_rows,
    stale_rows,
)
from garage_lite.core.cluster.block_offload import Owners
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.errors import NodeError, Unavailable
from garage_lite.core.ids import BlockHash
from garage_lite.core.model.rowkeys import Table, after_prefix, local_row
from garage_lite.core.workers.runner import IDLE, Progress, State, Step
from garage_lite.core.workers.variables import (
    RESYNC_TRANQUILITY,
    RESYNC_WORKER_COUNT,
    LiveVariables,
)

log = logging.getLogger(__name__)

Fetch = Callable[[BlockHash], Awaitable[StoredBlock]]
"""Get a block, verified, from a peer. Raises BlockMissing if none has it."""
Offer = Callable[[BlockHash], Awaitable[Owners]]
"""Send a block to those of its owners that need it; what they have then."""

POLL_SECONDS: Final = 5.0
RESCAN_US: Final = 60_000_000
"""How often the head of the queue is read from its very start."""
MEASURE_US_MIN: Final = 60_000_000
MEASURE_SHARE: Final = 500
"""Counting the queue may take one part in so many of the time."""
LISTED_MAX: Final = 10_000
"""Failed blocks shown at once: a lost disk may leave millions."""
_QUEUE_START: Final = local_row(Table.RESYNC_DUE, b"")
_ENTRIES_START: Final = local_row(Table.RESYNC, b"")
_ENTRIES_END: Final = after_prefix(_ENTRIES_START)


class Overtaken(Exception):
    """The block was queued again, or is no longer settled: its entry stays."""


class ResyncQueue:
    """What several resync workers eat from, without meeting."""

    def __init__(self, store: BlockStore, fetch: Fetch, offer: Offer) -> None:
        self.store = store
        self.length = 0
        self.persistent_errors = 0
        self._fetch = fetch
        self._offer = offer
        self._done = 0
        """Blocks dealt with since the queue was measured."""
        self._seconds_left: int | None = None
        self._busy: set[BlockHash] = set()
        self._from = _QUEUE_START
        self._rescan_us = 0
        self._measure_us = 0
        self._measured_us = 0
        self._wake = asyncio.Event()

    def notify(self) -> None:
        """Something was queued that is due now."""
        self._wake.set()

    async def until_due(self) -> None:
        """Until somebody notifies, or a little while."""
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def step(self) -> bool:
        """Take the first due block that nobody is at, and deal with it; False if there is none."""
        await self._measure()
        taken = await self._take()
        if taken is None:
            return False
        due_us, block = taken
        try:
            await self._look_at(block, due_us)
        finally:
            self._busy.discard(block)
        self._done += 1
        return True

    def queued(self, count: int) -> None:
        """So many blocks were queued at once."""
        self.length += count

    @property
    def left(self) -> int:
        """About how many blocks are in the queue."""
        return max(0, self.length - self._done)

    @property
    def seconds_left(self) -> int | None:
        """How long the queue will take at the present pace; None where that can't be said."""
        return self._seconds_left

    async def _take(self) -> tuple[int, BlockHash] | None:
        """Make the next due block busy.

        The scan goes on where the last one was, so as not to meet again all that was removed;
        now and then, and before it gives up, it begins at the start.
        """
        clock = self.store.tables.clock
        if clock.monotonic_us() >= self._rescan_us:
            self._from = _QUEUE_START
        found = await self._scan(clock.now_us())
        if found is None and self._from != _QUEUE_START:
            self._from = _QUEUE_START
            found = await self._scan(clock.now_us())
        return found

    async def _scan(self, now_us: int) -> tuple[int, BlockHash] | None:
        if self._from == _QUEUE_START:
            self._rescan_us = self.store.tables.clock.monotonic_us() + RESCAN_US
        end = due_key(now_us + 1, BlockHash(b""))
        for keys, _ in self.store.tables.latest().scan(self._from, end):
            for key in keys:
                due_us, block = due_of(key)
                if block not in self._busy:
                    self._from = key
                    self._busy.add(block)
                    return due_us, block
            await asyncio.sleep(0)
        return None

    async def _look_at(self, block: BlockHash, due_us: int) -> None:
        """One block whose turn has come, from facts to the replaced entry."""
        store = self.store
        try:
            async with store.locks.hold(block):
                entry = store.entry(block)
                if entry is None or not counts(due_us, entry):
                    await self._forget(block, due_us, entry)
                    return
                verdict = decide(entry, store.facts(block), store.tables.clock.now_us())
                if verdict.action not in (Action.FETCH, Action.OFFLOAD):
                    await self._carry_out(block, due_us, entry, verdict)
                    return
            if verdict.action is Action.OFFLOAD:
                await self._hand_over(block, due_us, entry)
                return
            stored = await self._fetch(block)
            async with store.locks.hold(block):
                await store.files.put_stored(block, stored, verify=False)
                await self._replace(block, due_us, entry, None)
        except NodeError as error:
            log.warning("block %s: %s", block.hex(), error.message)
            await self._failed(block, due_us)

    async def _hand_over(self, block: BlockHash, due_us: int, entry: ResyncEntry) -> None:
        """A block that others own: see that they have it, then let it go."""
        store = self.store
        owners = await self._offer(block)
        async with store.locks.hold(block):
            facts = store.facts(block)
            if facts.owner or store.entry(block) != entry:
                raise Unavailable("the layout changed while the block was handed over")
            now_us = store.tables.clock.now_us()
            said, write, read = owners
            verdict = after_asking(entry, said, write, read, leased=facts.leased, now_us=now_us)
            if verdict is None:
                raise Unavailable("too few of the block's owners have it, or answer")
            await self._carry_out(block, due_us, entry, verdict)

    async def _carry_out(
        self, block: BlockHash, due_us: int, entry: ResyncEntry, verdict: Verdict
    ) -> None:
        """Delete the file if that is the verdict, and replace the entry. Under the lock."""
        if verdict.action is Action.DELETE:
            await self.store.files.delete(block)
        await self._replace(block, due_us, entry, verdict.entry)

    async def _forget(self, block: BlockHash, due_us: int, seen: ResyncEntry | None) -> None:
        """Drop an index row that stands for nothing, unless it does by now."""

        def guard() -> None:
            if self.store.entry(block) != seen:
                raise Overtaken

        await self._write(stale_rows(block, due_us), guard)

    async def _replace(
        self, block: BlockHash, due_us: int, seen: ResyncEntry, entry: ResyncEntry | None
    ) -> None:
        """Put another entry in place of the one seen, or none where the block is settled."""
        later = seen.due_us > due_us

        def guard() -> None:
            if self.store.entry(block) != seen:
                raise Overtaken
            if entry is None and not later:
                facts = self.store.facts(block)
                if facts.owner and facts.live and not facts.present:
                    raise Overtaken

        if entry is not None:
            rows = requeued_rows(block, due_us, entry)
        else:
            # A later look was asked for too: it stays.
            rows = stale_rows(block, due_us) if later else settled_rows(block, due_us)
        await self._write(rows, guard)

    async def _failed(self, block: BlockHash, due_us: int) -> None:
        store = self.store
        async with store.locks.hold(block):
            entry = store.entry(block)
            if entry is None or not counts(due_us, entry):
                return
            await self._replace(
                block, due_us, entry, after_failure(entry, store.tables.clock.now_us())
            )

    async def _write(self, rows: list[Row], guard: Callable[[], None]) -> None:
        try:
            await self.store.write(rows, guard)
        except Overtaken:
            self._from = _QUEUE_START

    async def _measure(self) -> None:
        """Count the entries, at most once a minute and gently."""
        clock = self.store.tables.clock
        start = clock.monotonic_us()
        if start < self._measure_us:
            return
        length = errors = 0
        since_us = start - self._measured_us
        for keys, values in self.store.tables.durable().scan(_ENTRIES_START, _ENTRIES_END):
            length += len(keys)
            errors += sum(ResyncEntry.decode(value).errors > 0 for value in values)
            await asyncio.sleep(0)
        per_second = self._done * 1_000_000 / since_us if self._measured_us and since_us else 0.0
        ready = length - errors
        self._seconds_left = int(ready / per_second) if per_second and ready > 0 else None
        self.length, self.persistent_errors, self._done = length, errors, 0
        self._measured_us = start
        took = clock.monotonic_us() - start
        self._measure_us = start + max(MEASURE_US_MIN, took * MEASURE_SHARE)


async def failed_entries(
    store: BlockStore, most: int = LISTED_MAX
) -> list[tuple[BlockHash, ResyncEntry]]:
    """The first `most` blocks whose last look failed (`block list-errors`)."""
    found = []
    for keys, values in store.tables.durable().scan(_ENTRIES_START, _ENTRIES_END):
        for key, value in zip(keys, values, strict=True):
            entry = ResyncEntry.decode(value)
            if entry.errors:
                found.append((block_of(key), entry))
        if len(found) >= most:
            return found[:most]
        await asyncio.sleep(0)
    return found


class ResyncWorker:
    """One of up to eight; those above `resync-worker-count` stay idle."""

    def __init__(self, queue: ResyncQueue, number: int, variables: LiveVariables) -> None:
        self.name = f"Block resync worker #{number}"
        self._queue = queue
        self._number = number
        self._variables = variables
        self._pace = Pace()

    async def work(self) -> Step:
        if self._number > self._variables[RESYNC_WORKER_COUNT]:
            return IDLE
        clock = self._queue.store.tables.clock
        start = clock.monotonic_us()
        if not await self._queue.step():
            return IDLE
        took = clock.monotonic_us() - start
        rest = self._pace.rest_us(took, self._variables[RESYNC_TRANQUILITY])
        return Step(State.THROTTLED, rest)

    async def wait(self) -> None:
        if self._number > self._variables[RESYNC_WORKER_COUNT]:
            await asyncio.sleep(POLL_SECONDS)
        else:
            await self._queue.until_due()

    def progress(self) -> Progress:
        if self._number > self._variables[RESYNC_WORKER_COUNT]:
            return Progress(freeform=("not in use",))
        return Progress(
            tranquility=self._variables[RESYNC_TRANQUILITY],
            queue_length=self._queue.left,
            persistent_errors=self._queue.persistent_errors,
            freeform=_time_left(self._queue.seconds_left),
        )


def _time_left(seconds: int | None) -> tuple[str, ...]:
    if seconds is None:
        return ()
    minutes = -(-seconds // 60)
    text = f"{minutes} min" if minutes < 120 else f"{-(-minutes // 60)} h"
    return (f"about {text} left at the present pace",)
