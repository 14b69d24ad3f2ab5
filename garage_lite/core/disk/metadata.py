"""The metadata engine of one node: rows by key, durable, in bounded memory.

It knows keys and values as bytes and nothing of tables, except how many last bytes of a key each
table's bloom filter leaves out. Formats and plans are in `core/metalog`; here they meet files.

Two views. Readers see durable rows only. Writers (`latest`) also see what is on its way to the
log, so that a decision made on it can go into a later record: records are durable in order, so
that record can't outlive the one it was decided on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from garage_lite.core.disk.group_commit import LogFiles
from garage_lite.core.disk.metadata_recovery import Recovered, recover
from garage_lite.core.errors import DiskFull, StorageFailed, Unavailable
from garage_lite.core.limits import (
    COMMIT_QUEUE_BYTES_MAX,
    LOG_FILE_BYTES,
    MEMORY_MEMTABLE,
    TRANSACTION_BYTES_MAX,
)
from garage_lite.core.metalog.memtable import ROW_OVERHEAD_BYTES
from garage_lite.core.metalog.record import ROWS, pack_rows
from garage_lite.core.ports import Clock, Entropy, Files

Row = tuple[bytes, bytes | None]
_ABSENT: Final = object()


@dataclass(frozen=True)
class MetadataOptions:
    suffix_bytes: Mapping[int, int] = field(default_factory=dict)
    """First byte of a key -> how many last bytes its bloom filter leaves out."""
    fsync: bool = True
    """False: records are handed to the operating system and acknowledged; a power cut loses the
    last seconds."""
    memtable_bytes: int = MEMORY_MEMTABLE
    log_file_bytes: int = LOG_FILE_BYTES
    pause: Callable[[float], None] | None = None
    """Sleeps the background thread for some seconds between its small steps; None: never."""


@dataclass(frozen=True)
class MetadataStatus:
    store_id: bytes
    sequence: int
    """Of the newest durable record."""
    rows: int
    """An estimate: rows in segments and memory, with those that newer ones replace."""
    segments: int
    log_bytes: int
    damage: tuple[str, ...]
    """What was found damaged, in words; not empty: rows are missing, the node is recovering."""
    failed: str
    """Empty, or why the store refuses writes until it is opened again."""


@dataclass(slots=True)
class _Waiting:
    """A record on its way to the log."""

    payload: bytes
    kind: int
    rows: Sequence[Row]
    future: asyncio.Future[None]


class MetadataStore:
    """See the module. All methods are called on the event loop's thread."""

    def __init__(self, found: Recovered, log: LogFiles, options: MetadataOptions) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._log = log
        self._manifest = found.manifest
        self._damage = found.damage
        self._sequence = found.sequence
        self._active = found.memtable
        self._queued: dict[bytes, bytes | None] = {}
        self._writing: dict[bytes, bytes | None] = {}
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._busy = False
        self._failed = ""
        self._closed = False
        self._room: list[asyncio.Future[None]] = []
        self._writer = ThreadPoolExecutor(1, "metadata-log")

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

        Raises DataDirError (not ours, a newer format) and StorageFailed (can't be read).
        """
        options = options or MetadataOptions()
        loop = asyncio.get_running_loop()
        new_id = entropy.token(16)
        found = await loop.run_in_executor(
            None, lambda: recover(files, directory, new_id, options.log_file_bytes)
        )
        log = LogFiles(
            files,
            directory,
            file_bytes=options.log_file_bytes,
            durable=options.fsync,
            numbers=itertools.count(found.next_number),
            next_sequence=found.sequence + 1,
        )
        log.closed.extend(found.closed)
        log.spares.extend(found.spares)
        return cls(found, log, options)

    # --- reading

    def get(self, key: bytes, *, latest: bool = False) -> bytes | None:
        """The value of a row, or None."""
        if latest:
            value = self._queued.get(key, _ABSENT)
            if value is _ABSENT:
                value = self._writing.get(key, _ABSENT)
            if value is not _ABSENT:
                return value  # type: ignore[return-value]
        return self._active.rows.get(key)

    def with_prefix(self, prefix: bytes, *, latest: bool = False) -> list[tuple[bytes, bytes]]:
        """The rows whose key without its table's suffix is `prefix`, ascending."""
        length = len(prefix) + self._options.suffix_bytes.get(prefix[0], 0)
        rows = {k: self._active.rows[k] for k in self._active.with_prefix(prefix)}
        if latest:
            for overlay in (self._writing, self._queued):
                rows.update({k: v for k, v in overlay.items() if k.startswith(prefix)})
        return [(k, v) for k, v in sorted(rows.items()) if v is not None and len(k) == length]

    def scan(
        self, start: bytes, end: bytes, *, latest: bool = False
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Rows of start <= key < end, ascending, in batches."""
        rows: dict[bytes, bytes | None] = {}
        for keys, values in self._active.blocks(start, end):
            rows.update(zip(keys, values, strict=True))
        if latest:
            for overlay in (self._writing, self._queued):
                rows.update({k: v for k, v in overlay.items() if start <= k < end})
        live = [(k, v) for k, v in sorted(rows.items()) if v is not None]
        for place in range(0, len(live), 256):
            batch = live[place : place + 256]
            yield [k for k, _ in batch], [v for _, v in batch]

    # --- writing

    def commit(self, rows: Sequence[Row], *, reserve: bool = False) -> asyncio.Future[None]:
        """Write the rows (value None: delete) as one record, all or nothing.

        They are in the writers' view on return; the future resolves when they are durable and in
        the readers' view, or fails with StorageFailed or DiskFull. `reserve`: a deletion, which
        may use the room kept for it on a full disk. Raises DiskFull, Unavailable; ValueError
        above TRANSACTION_BYTES_MAX.
        """
        if self._closed or self._failed:
            raise Unavailable(self._failed or "the metadata store is closed")
        payload = pack_rows(rows)
        if len(payload) > TRANSACTION_BYTES_MAX:
            raise ValueError(f"a transaction of {len(payload)} bytes is too big")
        future: asyncio.Future[None] = self._loop.create_future()
        self._queued.update(rows)
        self._waiting.append(_Waiting(payload, ROWS, rows, future))
        self._waiting_bytes += len(payload)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._start_writing)
        return future

    async def room(self) -> None:
        """Wait while too much waits for the log; callers await it before they start a write."""
        while self._waiting_bytes > COMMIT_QUEUE_BYTES_MAX and not self._failed:
            future: asyncio.Future[None] = self._loop.create_future()
            self._room.append(future)
            await future

    def _start_writing(self) -> None:
        batch, self._waiting = self._waiting, []
        self._writing, self._queued = self._queued, {}
        entries = [(w.payload, w.kind) for w in batch]
        job = self._loop.run_in_executor(self._writer, self._log.write, entries)
        job.add_done_callback(lambda done: self._written(batch, done))

    def _written(self, batch: list[_Waiting], job: asyncio.Future[int]) -> None:
        error = job.exception()
        if error is not None:
            self._fail(batch, StorageFailed(f"the metadata log can't be written: {error}"))
            return
        done = job.result()
        self._sequence += done
        if done < len(batch):
            self._refuse(batch[done:], DiskFull())
            batch = batch[:done]
            self._writing = {k: v for w in batch for k, v in w.rows}
        size = sum([len(w.payload) + ROW_OVERHEAD_BYTES * len(w.rows) for w in batch])
        self._active.update(self._writing, size)
        self._writing = {}
        self._waiting_bytes -= sum([len(w.payload) for w in batch])
        for waiting in batch:
            if not waiting.future.done():
                waiting.future.set_result(None)
        self._busy = bool(self._waiting)
        if self._busy:
            self._start_writing()
        self._wake()

    def _fail(self, batch: list[_Waiting], error: StorageFailed) -> None:
        self._failed = error.message
        self._writing = {}
        self._busy = False
        self._refuse(batch, error)
        self._wake()

    def _refuse(self, batch: list[_Waiting], error: Exception) -> None:
        """Fail `batch` and all that came after it: it may have been decided on those rows."""
        refused = batch + self._waiting
        self._waiting = []
        self._queued = {}
        for waiting in refused:
            self._waiting_bytes -= len(waiting.payload)
            if not waiting.future.done():
                waiting.future.set_exception(error)

    def _wake(self) -> None:
        waiters, self._room = self._room, []
        for future in waiters:
            if not future.done():
                future.set_result(None)

    # --- the whole store

    async def drop_range(self, start: bytes, end: bytes) -> None:
        """Delete the rows of start <= key < end."""
        keys = [k for ks, _ in self.scan(start, end, latest=True) for k in ks]
        await self.commit([(k, None) for k in keys], reserve=True)

    async def drop_partition(self, table: int, partition: int) -> None:
        prefix = table << 8 | partition
        await self.drop_range(prefix.to_bytes(2, "big"), (prefix + 1).to_bytes(2, "big"))

    async def snapshot(self, name: str) -> str:
        """Not there yet."""
        raise Unavailable("snapshots are not there yet")

    def status(self) -> MetadataStatus:
        return MetadataStatus(
            store_id=self._manifest.store_id,
            sequence=self._sequence,
            rows=len(self._active),
            segments=0,
            log_bytes=self._log.file_bytes * (len(self._log.closed) + 1),
            damage=self._damage,
            failed=self._failed,
        )

    async def close(self) -> None:
        """Wait for what is on its way, then close the files. Further writes are refused."""
        if self._closed:
            return
        if not self._failed:
            await self.commit([])
        self._closed = True
        await self._loop.run_in_executor(self._writer, self._log.close)
        self._writer.shutdown()
