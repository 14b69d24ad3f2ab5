"""The metadata engine of one node: rows by key, durable, in bounded memory.

It knows keys and values as bytes and nothing of tables, except how many last bytes of a key each
table's bloom filter leaves out. Formats and plans are in `core/metalog`; here they meet files.

Two views. Readers see durable rows only. Writers (`latest`) also see what is on its way to the
log, so that a decision made on it can go into a later record: records are durable in order, so
that record can't outlive the one it was decided on.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from garage_lite.core.disk.group_commit import LogFiles
from garage_lite.core.disk.metadata_background import Background, BackgroundOptions
from garage_lite.core.disk.metadata_memory import Memory
from garage_lite.core.disk.metadata_options import MetadataOptions, MetadataStatus
from garage_lite.core.disk.metadata_recovery import SNAPSHOTS, Recovered, recover
from garage_lite.core.disk.metadata_snapshot import LogPart, prune_snapshots, take_snapshot
from garage_lite.core.disk.metadata_tiers import Tiers
from garage_lite.core.disk.row_watch import Watcher
from garage_lite.core.disk.segment_files import ABSENT, Access, SegmentLimits, lesser
from garage_lite.core.errors import (
    DataDirError,
    DiskFull,
    NodeError,
    StorageFailed,
    Unavailable,
)
from garage_lite.core.limits import (
    COMMIT_QUEUE_BYTES_MAX,
    TRANSACTION_BYTES_MAX,
)
from garage_lite.core.metalog.cache import ByteCache
from garage_lite.core.metalog.manifest import Range
from garage_lite.core.metalog.memtable import ROW_OVERHEAD_BYTES
from garage_lite.core.metalog.merge import live_rows, without_ranges
from garage_lite.core.metalog.overlay import Overlay
from garage_lite.core.metalog.record import DROP, HEADER_BYTES, PAGE_BYTES, ROWS, pack_rows
from garage_lite.core.ports import Clock, Entropy, Files

__all__ = ["MetadataOptions", "MetadataStatus", "MetadataStore"]

_log: Final = logging.getLogger(__name__)

Row = tuple[bytes, bytes | None]
_TIMINGS_KEPT: Final = 512
_SNAPSHOT_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(slots=True)
class _Waiting:
    """A record on its way to the log."""

    payload: bytes
    kind: int
    rows: Sequence[Row]
    drops: list[Range]
    future: asyncio.Future[None]


class MetadataStore:
    """See the module. All methods are called on the event loop's thread."""

    def __init__(
        self,
        files: Files,
        directory: str,
        clock: Clock,
        options: MetadataOptions,
        found: Recovered,
    ) -> None:
        self.watcher: Watcher | None = None
        self._loop = asyncio.get_running_loop()
        self._files = files
        self._directory = directory
        self._snapshots = options.snapshots_directory or f"{directory}/{SNAPSHOTS}"
        self._clock = clock
        self._options = options
        self._sequence = found.sequence
        self._memory = Memory(found.memtable)
        self._queued = Overlay(options.suffix_bytes)
        self._writing = Overlay(options.suffix_bytes)
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._busy = False
        self._failed = ""
        self._closed = False
        self._room: list[asyncio.Future[None]] = []
        self._timings: deque[tuple[int, int]] = deque(maxlen=_TIMINGS_KEPT)
        self._access = Access(
            ByteCache(options.block_cache_bytes), ByteCache(options.index_cache_bytes)
        )
        numbers = itertools.count(found.next_number)
        self._log = LogFiles(
            files,
            directory,
            file_bytes=options.log_file_bytes,
            durable=options.fsync,
            numbers=numbers,
            next_sequence=found.sequence + 1,
        )
        self._log.closed.extend(found.closed)
        self._log.spares.extend(found.spares)
        self._log.damaged.update(found.damaged)
        self._log.set_aside.extend(found.set_aside)
        self._writer = ThreadPoolExecutor(1, "metadata-log")
        self._pool = ThreadPoolExecutor(1, "metadata-background")
        self._tiers = Tiers(
            files,
            directory,
            found.manifest,
            found.opened,
            options.suffix_bytes,
            numbers,
            self._pool,
        )
        self._background = Background(
            self._tiers,
            self._memory,
            self._log,
            self._pool,
            BackgroundOptions(
                SegmentLimits(options.segment_rows_max, options.segment_bytes_max),
                options.pause,
                options.memtable_bytes,
                options.fan_in,
            ),
            self._moved_on,
            self._stop_writing,
        )
        self._freeze_if_due()

    @classmethod
    async def open(
        cls,
        files: Files,
        directory: str,
        clock: Clock,
        entropy: Entropy,
        options: MetadataOptions | None = None,
    ) -> MetadataStore:
        """The store in `directory`, made if nothing is there.

        Damage that leaves the rest readable doesn't stop it: `status().damage` says so. Raises
        DataDirError (not ours, a newer format) and StorageFailed (can't be read).
        """
        chosen = options or MetadataOptions()
        new_id = entropy.token(16)
        found = await asyncio.get_running_loop().run_in_executor(
            None, lambda: recover(files, directory, new_id, chosen.log_file_bytes)
        )
        store = cls(files, directory, clock, chosen, found)
        for line in store.status().damage:
            _log.error("damaged metadata: %s", line)
        return store

    # --- reading

    def get(self, key: bytes, *, latest: bool = False) -> bytes | None:
        """The value of a row, or None. Raises DamagedRow when that can't be told."""
        if latest:
            value = self._queued.get(key, self._writing.get(key, ABSENT))
            if value is not ABSENT:
                return value
        value = self._memory.get(key)
        if value is ABSENT:
            value = self._tiers.view.get(key, self._access)
        return None if value is ABSENT else value

    def with_prefix(
        self, prefix: bytes, most: int | None = None, *, latest: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """The rows whose key without its table's suffix is `prefix`, ascending: the first `most`,
        read no further than that, or all, meant for few. Raises DamagedRow."""
        fresh: dict[bytes, bytes | None] = {}
        if latest:
            fresh = self._queued.lay_over(prefix, self._writing.lay_over(prefix, fresh))
        rows: dict[bytes, bytes | None] = {}
        bound = None if most is None else most + len(fresh)
        known = self._tiers.view.with_prefix(prefix, self._access, rows, bound)
        known = lesser(known, self._memory.with_prefix(prefix, rows, bound))
        if latest:
            rows = self._queued.lay_over(prefix, self._writing.lay_over(prefix, rows))
        length = len(prefix) + self._options.suffix_bytes.get(prefix[0], 0)
        live = [(k, v) for k, v in sorted(rows.items()) if v is not None and len(k) == length]
        if known is None:
            return live[:most]
        live = [(key, value) for key, value in live if key <= known]
        if most is not None and len(live) < most:  # deletions took the place of rows
            return self._first_rows(prefix, length, most, latest)
        return live[:most]

    def _first_rows(
        self, prefix: bytes, length: int, most: int, latest: bool
    ) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        end = prefix + b"\xff" * (length - len(prefix) + 1)
        for keys, values in self.scan(prefix, end, latest=latest):
            found += [(k, v) for k, v in zip(keys, values, strict=True) if len(k) == length]
            if len(found) >= most:
                break
        return found[:most]

    def scan(
        self, start: bytes, end: bytes, *, latest: bool = False
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Rows of start <= key < end, ascending, in batches of up to some hundred.

        Lazy: a row that changes while the scan is under way is met as it was or as it is. After
        many deletions a batch is empty, so that the caller may let others run. Raises DamagedRow
        when it comes to a block that can't be read.
        """
        sources = [
            *self._memory.sources(start, end),
            *self._tiers.view.sources(start, end, self._access),
        ]
        if latest:
            for overlay in (self._writing, self._queued):
                if overlay.drops:
                    drops = tuple(overlay.drops)
                    sources = [without_ranges(source, drops) for source in sources]
                keys = sorted([k for k in overlay.rows if start <= k < end])
                if keys:
                    sources.insert(0, iter([(keys, [overlay.rows[k] for k in keys])]))
        return live_rows(sources)

    # --- writing

    def commit(self, rows: Sequence[Row], *, reserve: bool = False) -> asyncio.Future[None]:
        """Write the rows (value None: delete) as one record, all or nothing.

        They are in the writers' view on return; the future resolves when they are durable and in
        the readers' view, or fails with StorageFailed or DiskFull, after which they are in
        neither view (after StorageFailed they may be back when the store is opened again).
        `reserve`: a deletion, which may use the room kept for it on a full disk. Raises DiskFull,
        Unavailable; ValueError above TRANSACTION_BYTES_MAX.
        """
        payload = self._admit(rows, reserve)
        self._queued.add(rows)
        return self._enqueue(payload, ROWS, rows, [])

    def _admit(self, rows: Sequence[Row], reserve: bool) -> bytes:
        if self._closed or self._failed:
            raise Unavailable(self._failed or "the metadata store is closed")
        payload = pack_rows(rows)
        if len(payload) > min(TRANSACTION_BYTES_MAX, self._log.record_bytes_max):
            raise ValueError(f"a transaction of {len(payload)} bytes is too big")
        if self._background.disk_full:
            spares = len(self._log.spares) - (0 if reserve else 1)
            room = self._log.room() + max(0, spares) * self._log.file_bytes
            needed = self._waiting_bytes + len(payload) + PAGE_BYTES * (len(self._waiting) + 2)
            # Nothing can be flushed: what may still be held in memory is kept for deletions too.
            held_max = self._options.memtable_bytes * (2 if reserve else 1)
            if needed > room or self._memory.active.bytes > held_max:
                raise DiskFull
        return payload

    def _enqueue(
        self, payload: bytes, kind: int, rows: Sequence[Row], drops: list[Range]
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(_Waiting(payload, kind, rows, drops, future))
        self._waiting_bytes += len(payload) + HEADER_BYTES
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._start_writing)
        return future

    async def room(self) -> None:
        """Wait while too much waits for the log, for a flush or for merges; callers await it
        before they start a write."""
        while self._crowded():
            future: asyncio.Future[None] = self._loop.create_future()
            self._room.append(future)
            await future

    def _crowded(self) -> bool:
        if self._failed or self._closed:
            return False
        if self._waiting_bytes > COMMIT_QUEUE_BYTES_MAX:
            return True
        if self._background.disk_full or self._background.trouble:
            return False
        full = self._memory.active.bytes > self._options.memtable_bytes
        return (full and self._memory.frozen is not None) or self._background.behind

    def _start_writing(self) -> None:
        batch, self._waiting = self._waiting, []
        self._writing, self._queued = self._queued, Overlay(self._options.suffix_bytes)
        entries = [(w.payload, w.kind) for w in batch]
        begun = self._clock.monotonic_us()
        job = self._loop.run_in_executor(self._writer, self._log.write, entries)
        job.add_done_callback(lambda done: self._written(batch, begun, done))

    def _written(self, batch: list[_Waiting], begun: int, job: asyncio.Future[int]) -> None:
        """Back from the writer's thread: what it wrote is durable, readers may see it."""
        error = job.exception()
        if error is not None:
            self._stop_writing(f"the metadata log can't be written: {error}", batch)
            return
        done = job.result()
        self._timings.append((self._clock.monotonic_us() - begun, len(batch)))
        self._sequence += done
        if done < len(batch):
            self._refuse(batch[done:], DiskFull())
            batch = batch[:done]
            self._writing = self._replayed(batch)
        if self.watcher is not None:
            self.watcher.written(self._writing.rows, self._writing.drops, self.get)
        for dropped in self._writing.drops:
            self._memory.drop(dropped)
            self._tiers.drop(dropped)
        size = sum([len(w.payload) + ROW_OVERHEAD_BYTES * len(w.rows) for w in batch])
        self._memory.active.update(self._writing.rows, size)
        self._writing = Overlay(self._options.suffix_bytes)
        self._waiting_bytes -= sum([len(w.payload) + HEADER_BYTES for w in batch])
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_result(None)
        self._busy = bool(self._waiting)
        if self._busy:
            self._start_writing()
        self._freeze_if_due()
        self._wake()

    def _replayed(self, batch: Sequence[_Waiting]) -> Overlay:
        """The rows that some records leave, and the ranges they drop beneath those."""
        left = Overlay(self._options.suffix_bytes)
        for waiting in batch:
            for dropped in waiting.drops:
                left.drop(*dropped)
            left.add(waiting.rows)
        return left

    def _refuse(self, batch: list[_Waiting], error: NodeError) -> None:
        """Fail `batch` and all that came after it: it may have been decided on those rows."""
        refused = batch + self._waiting
        self._waiting = []
        self._queued = Overlay(self._options.suffix_bytes)
        for waiting in refused:
            self._waiting_bytes -= len(waiting.payload) + HEADER_BYTES
            if not waiting.future.done():
                waiting.future.set_exception(error)

    def _stop_writing(self, why: str, batch: Sequence[_Waiting] = ()) -> None:
        """Refuse writes from now on; reads go on."""
        self._failed = why
        if batch or not self._busy:
            self._writing = Overlay(self._options.suffix_bytes)
            self._busy = False
            self._refuse(list(batch), StorageFailed(why))
        self._wake()

    def _freeze_if_due(self) -> None:
        due = (
            self._memory.active.bytes >= self._options.memtable_bytes
            or len(self._log.closed) >= self._options.log_files_max
        )
        if due and self._memory.frozen is None:
            self._memory.freeze(self._sequence)
        if due or len(self._log.spares) < 2:
            self._background.wake()

    def _moved_on(self) -> None:
        """The background has finished something."""
        self._freeze_if_due()
        self._wake()

    def _wake(self) -> None:
        waiters, self._room = self._room, []
        for future in waiters:
            if not future.done():
                future.set_result(None)

    # --- the whole store

    def drop_range(self, start: bytes, end: bytes) -> asyncio.Future[None]:
        """Delete the rows of start <= key < end that were committed before: one small record,
        however many they are. As commit: at once in the writers' view, the future resolves when
        it is durable; the same errors."""
        payload = self._admit([(start, end)], reserve=True)
        self._queued.drop(start, end)
        return self._enqueue(payload, DROP, (), [(start, end)])

    def drop_partition(self, table: int, partition: int) -> asyncio.Future[None]:
        """Delete all rows of a table in one partition: the first two bytes of their keys."""
        prefix = table << 8 | partition
        return self.drop_range(prefix.to_bytes(2, "big"), (prefix + 1).to_bytes(2, "big"))

    async def flush(self) -> None:
        """Bring all that is durable now into segments."""
        await self.commit([])
        while self._memory.frozen is not None or len(self._memory.active) or self._log.damaged:
            if self._failed:
                raise StorageFailed(self._failed)
            if self._background.disk_full:
                raise DiskFull
            if self._memory.frozen is None:
                self._memory.freeze(self._sequence)
            self._background.wake()
            future: asyncio.Future[None] = self._loop.create_future()
            self._room.append(future)
            await future

    async def forget_damage(self) -> None:
        """Remember the damage of log files no longer, and remove those that were set aside: what
        was lost has been brought back or given up. Damaged segments are reported as long as they
        are there. Raises StorageFailed, DiskFull, Unavailable."""
        await self.flush()
        try:
            await self._tiers.forget_damage(self._log.remove_set_aside)
        except OSError as error:
            self._stop_writing(f"the metadata can't be written: {error}")
            raise StorageFailed(self._failed) from error

    async def snapshot(self, name: str) -> str:
        """Make the snapshot `name` of all that is durable now; returns its directory, which
        opens as a store. Raises DataDirError (name taken or bad), DiskFull, StorageFailed."""
        path = f"{self._snapshots}/{name}"
        if not _SNAPSHOT_NAME.fullmatch(name):
            raise DataDirError(f"a snapshot can't be named {name!r}: letters, digits, . _ - only")
        if not self._failed:
            await self.commit([], reserve=True)
        async with self._tiers.turn:
            use, length = self._log.position
            closed = [done for done, _ in self._log.closed]
            log = [LogPart(done, None) for done in closed]
            if use and use not in closed:
                log.append(LogPart(use, length))
            manifest = self._tiers.manifest
            try:
                await self._loop.run_in_executor(
                    self._pool, take_snapshot, self._files, self._directory, path, manifest, log
                )
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise DiskFull from error
                raise StorageFailed(f"the snapshot could not be made: {error}") from error
        return path

    async def prune_snapshots(self, keep: int) -> None:
        """Remove all snapshots but the last `keep` by name. Raises OSError."""
        async with self._tiers.turn:
            await self._loop.run_in_executor(
                self._pool, prune_snapshots, self._files, self._snapshots, keep
            )

    def status(self) -> MetadataStatus:
        segments = self._tiers.manifest.segments
        times = sorted([time for time, _ in self._timings]) or [0]
        frozen = self._memory.frozen
        return MetadataStatus(
            store_id=self._tiers.manifest.store_id,
            sequence=self._sequence,
            rows=sum([s.rows for s in segments])
            + len(self._memory.active)
            + (len(frozen.table) if frozen is not None else 0),
            segments=len(segments),
            segment_bytes=sum([s.size for s in segments]),
            log_bytes=self._log.file_bytes * (len(self._log.closed) + 1),
            sync_p50_us=times[len(times) // 2],
            sync_p99_us=times[len(times) * 99 // 100],
            records_per_batch=sum([n for _, n in self._timings]) / max(1, len(self._timings)),
            merging_rows=self._background.merging,
            disk_full=self._background.disk_full,
            damage=self._tiers.damage(),
            set_aside=tuple(self._log.set_aside),
            failed=self._failed,
            trouble=self._background.trouble,
        )

    async def close(self) -> None:
        """Wait for what is on its way, then close the files. Further writes are refused."""
        if self._closed:
            return
        self._closed = True
        while self._busy:
            future: asyncio.Future[None] = self._loop.create_future()
            self._room.append(future)
            await future
        await self._background.stop()
        try:
            await self._loop.run_in_executor(self._writer, self._log.close)
        except OSError as error:  # all that was acknowledged was durable before
            _log.error("the metadata log could not be closed: %s", error)
        self._writer.shutdown()
        self._pool.shutdown()
        for opened in self._tiers.opened.values():
            opened.close()
