"""Flush, compaction and spare log files: one background thread, in small paced steps.

The thread sleeps between steps, so that the event loop never waits long for the interpreter; the
steps themselves are generators that know no time. A flush goes before a merge, which waits
between two slices. Nothing here runs when nothing is due.

Why a paced thread and no helper process, also where there is memory for one: measured at 3,500
small PUTs a second, merging two thirds of the time, the loop's p99 was the same to 0.1 ms with
and without a merge, and the runs stayed below the number at which merging stops pausing but for
moments. The thread merges about 50,000 rows a second; only at 11,000 durable PUTs a second, three
times what the S3 endpoint takes in, do writers wait for it. A process would buy nothing below
that and cost an interpreter's memory, and a second owner of the files.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from garage_lite.core.disk.group_commit import SPARES_WANTED, LogFiles, numbered
from garage_lite.core.disk.metadata_memory import Memory
from garage_lite.core.disk.metadata_tiers import Entries, Tiers
from garage_lite.core.disk.segment_files import (
    SEGMENT_PREFIX,
    Access,
    OpenSegment,
    SegmentLimits,
    SegmentSet,
    write_segment,
)
from garage_lite.core.errors import DamagedRow, DiskFull
from garage_lite.core.metalog.compaction import Run, after_merge_step, choose, drops_since
from garage_lite.core.metalog.manifest import SegmentEntry
from garage_lite.core.metalog.memtable import Batch
from garage_lite.core.metalog.merge import merge, reblock, without_deletions, without_ranges
from garage_lite.core.metalog.segment import BLOCK_BYTES, BLOCK_ROWS, SegmentBuilder

_log: Final = logging.getLogger(__name__)
T = TypeVar("T")

PAUSE_SECONDS: Final = 0.0002
"""After each block: the event loop's 99th percentile then rises by less than 1 ms."""
_STEPS_PER_SLICE: Final = 64
_READS_PER_PAUSE: Final = 8
"""Blocks read within one step: many in a row are passed when what they hold is deleted."""
_RETRY_SECONDS: Final = 1.0
_RUNS_BEHIND: Final = 12
"""Above this many runs of tier 0, merging no longer pauses."""


class _Stopped(Exception):
    """The store closes; what was begun is garbage that the next start removes."""


@dataclass(frozen=True, slots=True)
class BackgroundOptions:
    limits: SegmentLimits
    pause: Callable[[float], None] | None
    memtable_bytes: int
    fan_in: int


@dataclass(frozen=True, slots=True)
class _Made:
    opened: OpenSegment | None
    entry: SegmentEntry | None
    exhausted: bool


class Background:
    """Keeps memory, log and segments in bounds. `on_change` is called after each step forward,
    `on_failure` when nothing may be written any more."""

    def __init__(
        self,
        tiers: Tiers,
        memory: Memory,
        log: LogFiles,
        pool: Executor,
        options: BackgroundOptions,
        on_change: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._tiers = tiers
        self._memory = memory
        self._log = log
        self._pool = pool
        self._options = options
        self._on_change = on_change
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.Event()
        self._stopping = False
        self._flushing = False
        self.disk_full = False
        """The last attempt to make a file found no room; tried again every second."""
        self._waiting = False
        self._reads = 0
        self.merging = 0
        """Rows of the runs that are being merged; 0: no merge is under way."""
        self.trouble = ""
        """Empty, or why compaction stopped until the store is opened again."""
        self._task = self._loop.create_task(self._run())

    def wake(self) -> None:
        """Look for work."""
        self._work.set()

    @property
    def behind(self) -> bool:
        """Whether writers should wait for merges."""
        segments = self._tiers.manifest.segments
        late = len(segments) > 2 * _RUNS_BEHIND and segments[2 * _RUNS_BEHIND].tier == 0
        return late and bool(self._mergeable())

    async def stop(self) -> None:
        self._stopping = True
        self._work.set()
        await self._task

    async def _run(self) -> None:
        while not self._stopping:
            self._work.clear()
            try:
                worked = await self._one_job()
            except _Stopped:
                return
            except (OSError, DiskFull) as error:
                worked = self._no_room(error)
            except Exception as error:
                _log.exception("the metadata store stops writing")
                worked = self._failed(error)
            if not worked:
                await self._work.wait()

    async def _one_job(self) -> bool:
        """Do what is most urgent; whether there was anything to do."""
        if self._waiting or self._stopping:
            return False
        few_spares = len(self._log.spares) < SPARES_WANTED
        if self._memory.frozen is not None:
            await self._flush()
        elif few_spares and not self.disk_full:
            await self._loop.run_in_executor(self._pool, self._log.prepare_spare)
        elif runs := self._mergeable():
            await self._merge_or_leave(runs)
        elif few_spares:
            await self._loop.run_in_executor(self._pool, self._log.prepare_spare)
        else:
            return False
        self.disk_full = False
        self._on_change()
        return True

    def _mergeable(self) -> list[Run]:
        if self.trouble:
            return []
        damaged = {n for n, segment in self._tiers.opened.items() if segment.damage}
        return choose(self._tiers.manifest.segments, damaged, self._options.fan_in)

    def _no_room(self, error: Exception) -> bool:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return self._failed(error)
        if not self.disk_full:
            _log.error("the disk of the metadata is full")
        self.disk_full = self._waiting = True
        self._loop.call_later(_RETRY_SECONDS, self._retry)
        self._on_change()
        return False

    def _retry(self) -> None:
        self._waiting = False
        self._work.set()

    def _failed(self, error: Exception) -> bool:
        self._stopping = True
        self._on_failure(f"the metadata can't be written: {error!r}")
        return False

    # --- the jobs

    async def _flush(self) -> None:
        frozen = self._memory.frozen
        assert frozen is not None
        self._flushing = True
        try:
            known = len(frozen.drops)
            rows = without_ranges(frozen.table.blocks(b"", None), tuple(frozen.drops))
            kept = without_deletions(rows, self._tiers.view.may_hold)
            batches = reblock(kept, BLOCK_ROWS, BLOCK_BYTES)
            endless = SegmentLimits(1 << 62, 1 << 62)
            run = next(self._tiers.numbers)
            made = await self._drive(self._write(batches, endless, run, 0))

            def edit(segments: Entries) -> Entries:
                if made.entry is None:
                    return segments
                return (replace(made.entry, drops=tuple(frozen.drops[known:])), *segments)

            def then() -> None:
                self._log.recycle(frozen.sequence)

            await self._tiers.change(edit, made.opened, frozen.sequence, then)
            self._memory.frozen = None
        finally:
            self._flushing = False

    async def _merge_or_leave(self, runs: list[Run]) -> None:
        """Merge; a damaged input stays as it is, and reads of it keep saying so."""
        self.merging = sum([entry.rows for run in runs for entry in run])
        try:
            await self._merge(runs)
        except DamagedRow:
            _log.error("damaged metadata: %s", "; ".join(self._tiers.damage()))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            self.trouble = f"compaction stopped: {error}"
            _log.error("%s", self.trouble)
        finally:
            self.merging = 0

    async def _merge(self, runs: list[Run]) -> None:
        planned = [entry for run in runs for entry in run]
        inputs = {entry.number for entry in planned}
        run, tier = next(self._tiers.numbers), planned[-1].tier + 1
        batches = self._merged_rows(runs)
        finished = False
        while not finished:
            made = await self._drive(self._write(batches, self._options.limits, run, tier))
            low = None if made.exhausted or made.entry is None else made.entry.last + b"\x00"
            finished = low is None

            def edit(segments: Entries, made: _Made = made, low: bytes | None = low) -> Entries:
                entry = made.entry
                if entry is not None:
                    entry = replace(entry, drops=drops_since(planned, segments))
                return after_merge_step(segments, inputs, entry, run, low)

            await self._commit_merge(edit, made.opened)

    async def _commit_merge(
        self, edit: Callable[[Entries], Entries], opened: OpenSegment | None
    ) -> None:
        try:
            await self._tiers.change(edit, opened, 0, lambda: None)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise RuntimeError(f"the manifest can't be written: {error}") from error
        self._on_change()

    def _merged_rows(self, runs: list[Run]) -> Iterator[Batch]:
        """The rows of the runs in blocks; nothing but the sources holds the segments, so each
        can be freed once it is passed."""
        tiers = self._tiers
        segments = tiers.manifest.segments
        below = segments[segments.index(runs[-1][-1]) + 1 :]
        older = SegmentSet(below, tiers.opened, tiers.suffix_bytes)
        planned = [entry for run in runs for entry in run]
        access = Access(on_read=self._pause_between_reads)
        sources = SegmentSet(planned, tiers.opened, tiers.suffix_bytes).sources(b"", None, access)
        return reblock(without_deletions(merge(sources), older.may_hold), BLOCK_ROWS, BLOCK_BYTES)

    def _write(
        self, batches: Iterator[Batch], limits: SegmentLimits, run: int, tier: int
    ) -> Generator[None, None, _Made]:
        """One segment of rows, durable and its name too. Raises OSError, DamagedRow."""
        tiers = self._tiers
        number = next(tiers.numbers)
        builder = SegmentBuilder(number, tiers.suffix_bytes)
        try:
            made = yield from write_segment(
                tiers.files, tiers.directory, builder, number, batches, limits
            )
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._discard(number)
            raise
        if not made:
            return _Made(None, None, exhausted=True)
        tiers.files.sync_directory(tiers.directory)
        opened = OpenSegment(tiers.files, tiers.directory, number)
        if opened.damage:
            raise OSError(errno.EIO, f"what was just written can't be read: {opened.damage}")
        entry = SegmentEntry(
            number, run, tier, builder.rows, builder.size, builder.first, builder.last
        )
        exhausted = builder.rows < limits.rows and builder.size < limits.bytes
        return _Made(opened, entry, exhausted)

    def _discard(self, number: int) -> None:
        path = numbered(self._tiers.directory, SEGMENT_PREFIX, number)
        if self._tiers.files.exists(path):
            self._tiers.files.remove(path)

    # --- pacing

    async def _drive(self, steps: Generator[None, None, T]) -> T:
        """Run the steps in the background, a slice at a time; a flush that is due goes between."""
        while True:
            done = await self._loop.run_in_executor(self._pool, self._slice, steps)
            if done:
                return done[0]
            if self._stopping:
                raise _Stopped
            if self._memory.frozen is not None and not self._flushing:
                await self._flush()
                self._on_change()

    def _slice(self, steps: Generator[None, None, T]) -> tuple[T] | None:
        for _ in range(_STEPS_PER_SLICE):
            try:
                next(steps)
            except StopIteration as end:
                return (end.value,)
            self._pause()
        return None

    def _pause(self) -> None:
        self._reads = 0
        if self._options.pause is not None and not self._hurry():
            self._options.pause(PAUSE_SECONDS)

    def _pause_between_reads(self) -> None:
        self._reads += 1
        if self._reads >= _READS_PER_PAUSE:
            self._pause()

    def _hurry(self) -> bool:
        segments = self._tiers.manifest.segments
        late = len(segments) > _RUNS_BEHIND and segments[_RUNS_BEHIND].tier == 0
        return late or self._memory.active.bytes > self._options.memtable_bytes
