"""The block files of this node, in all its data directories.

A block is written to a temporary file, synced, renamed into its place, and acknowledged when its
folder is synced too; so a name never holds anything but the whole block. Every read is verified
against the name. What does not match is set aside (`.corrupted`), never served, never deleted
while it is all there is. An error from write, sync or close is never retried and acknowledged.

Knows nothing of references, peers or clients. Callers that add references or delete hold the
block's lock (`block_locks.py`) around the whole of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Final, TypeVar

from garage_lite.core.block.frame import StoredBlock
from garage_lite.core.block.markers import DataDirectory
from garage_lite.core.disk.block_directories import (
    NO_ROOM,
    BlockDirectory,
    SmallState,
    keep_placement,
    open_directories,
)
from garage_lite.core.disk.block_locks import BlockLocks
from garage_lite.core.disk.block_shelf import Copy, CorruptCopy, Shelf, Unsynced
from garage_lite.core.disk.directory_syncs import DirectorySyncs
from garage_lite.core.errors import BlockCorrupt, DiskFull, NodeError, StorageFailed
from garage_lite.core.ids import BlockHash
from garage_lite.core.ports import Buffer, Entropy, Files

log = logging.getLogger(__name__)
T = TypeVar("T")

_READ_ATTEMPTS: Final = 8
"""Copies of one block that a read finds corrupt before it gives up."""


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """How blocks are kept."""

    fsync: bool = True
    level: int | None = 1
    """zstd level; None stores all blocks plain."""
    reserve_bytes: int | None = None
    """Room that each file system keeps free; None: a hundredth of it, at most 1 GiB."""
    node: str = "-"
    """How marker files name this node."""
    reads_max: int = 16
    threads: int = 4
    """For writing, and as many for reading."""


@dataclass(frozen=True, slots=True)
class DirectoryStatus:
    path: str
    free_bytes: int
    total_bytes: int
    read_only: bool
    failed: str | None
    slices: int
    """Of 1,024: its share of new blocks."""


@dataclass(slots=True)
class BlockCounts:
    """Since the start. Bytes are of plain content, but for stored_bytes."""

    written: int = 0
    written_bytes: int = 0
    stored_bytes: int = 0
    read: int = 0
    read_bytes: int = 0
    deleted: int = 0
    moved: int = 0
    corrupted: int = 0


class Checked(Enum):
    """What a scrub found of one file."""

    GOOD = "good"
    GONE = "gone"
    CORRUPT = "corrupt"
    """It was set aside now."""
    ASIDE = "aside"
    """It was set aside before, and still is all there is."""
    HEALED = "healed"
    """It was set aside before; it matches now and is back, or a good copy made it needless."""


class BlockFiles:
    """Puts, gets and deletes blocks. Made by `open`; to be closed."""

    def __init__(
        self,
        files: Files,
        shelf: Shelf,
        state: SmallState,
        options: BlockOptions,
        pool: Executor | None,
    ) -> None:
        threads = options.threads
        self.counts = BlockCounts()
        self.on_corrupt: Callable[[BlockHash], Awaitable[None]] | None = None
        """Called after a file was set aside: have the block looked at."""
        self._files = files
        self._shelf = shelf
        self._state = state
        self._owned = [] if pool else [_threads("write", threads), _threads("read", threads)]
        self._writers: Executor = pool or self._owned[0]
        self._readers: Executor = pool or self._owned[1]
        self._reads = asyncio.Semaphore(options.reads_max)
        self._busy = BlockLocks()
        self._syncs = DirectorySyncs(files, self._writers)

    @classmethod
    async def open(
        cls,
        files: Files,
        directories: Sequence[DataDirectory],
        state: SmallState,
        entropy: Entropy,
        options: BlockOptions | None = None,
        pool: Executor | None = None,
    ) -> BlockFiles:
        """Open the data directories, making those that are new.

        `pool`: where blocking calls run, in place of threads of its own. Raises DataDirError.
        """
        options = options or BlockOptions()
        opened, placement = await open_directories(
            files, directories, state, entropy, options.node, options.reserve_bytes
        )
        shelf = Shelf(files, opened, placement, fsync=options.fsync, level=options.level)
        return cls(files, shelf, state, options, pool)

    async def close(self) -> None:
        """Wait for what is under way. Nothing may be asked afterwards."""
        loop = asyncio.get_running_loop()
        for pool in self._owned:
            await loop.run_in_executor(None, pool.shutdown)

    # --- blocks

    async def put(
        self, block: BlockHash, parts: Sequence[Buffer], *, compress: bool, verify: bool
    ) -> None:
        """The block is here and durable on return.

        Where a good copy is present (it is read and verified) nothing is written. A second put of
        the same block waits for the first. `verify` checks the parts against the name first; a
        caller that just computed the name needn't. Raises BlockCorrupt (they don't match),
        DiskFull, StorageFailed.
        """
        async with self._busy.hold(block):
            done = await self._write(
                partial(self._shelf.put, block, parts, compress=compress, verify=verify),
                f"block {block.hex()} was not stored",
            )
            await self._settle([done])
        self.counts.written += 1
        self.counts.written_bytes += sum(len(part) for part in parts)
        self.counts.stored_bytes += done.stored_bytes

    async def prepare(self, parts: Sequence[Buffer], *, compress: bool) -> StoredBlock:
        """A block's content as it is to be stored, here by `put_stored` and on other nodes."""
        return await self._write(
            partial(self._shelf.prepare, parts, compress=compress), "a block was not compressed"
        )

    async def put_stored(self, block: BlockHash, stored: StoredBlock, *, verify: bool) -> None:
        """As `put`, of a block that was prepared or came from another node."""
        async with self._busy.hold(block):
            done = await self._write(
                partial(self._shelf.put_stored, block, stored, verify=verify),
                f"block {block.hex()} was not stored",
            )
            await self._settle([done])
        self.counts.written += 1
        self.counts.written_bytes += stored.size
        self.counts.stored_bytes += done.stored_bytes

    async def expand(self, block: BlockHash, stored: StoredBlock) -> bytes:
        """The verified content of a block that came from another node. Raises BlockCorrupt."""
        return await self._read(partial(self._shelf.expand, block, stored))

    async def get(self, block: BlockHash) -> bytes:
        """The plain content, verified.

        A copy that does not match is set aside and the next one is tried. Raises BlockMissing
        (and never where a disk has gone), BlockCorrupt when the last copy was set aside, and
        StorageFailed when none could be read.
        """
        return await self.get_range(block, 0, None)

    async def get_range(self, block: BlockHash, start: int, end: int | None) -> bytes:
        """The bytes [start, end) of a block that was verified whole. Raises as `get`."""
        content = await self._from_good_copy(block, lambda copy: self._shelf.read(copy)[start:end])
        self.counts.read += 1
        self.counts.read_bytes += len(content)
        return content

    async def get_stored(self, block: BlockHash) -> StoredBlock:
        """What the file holds, once it was verified: for a node that asks. Raises as `get`."""
        stored = await self._from_good_copy(block, self._shelf.read_stored)
        self.counts.read += 1
        self.counts.read_bytes += stored.size
        return stored

    async def _from_good_copy(self, block: BlockHash, read: Callable[[Copy], T]) -> T:
        bad: list[Copy] = []
        for _ in range(_READ_ATTEMPTS):
            try:
                async with self._reads:
                    return await self._read(partial(self._shelf.fetch, block, read, tuple(bad)))
            except CorruptCopy as error:
                if await self._set_aside(error.copy) or error.copy.directory.read_only:
                    bad.append(error.copy)
                continue
            except NodeError as error:
                if bad:
                    raise BlockCorrupt(f"block {block.hex()} was corrupt; set aside") from error
                raise
        raise BlockCorrupt(f"block {block.hex()} can't be read the same way twice")

    def has(self, block: BlockHash) -> bool:
        """Whether a file of this block is here; its content is not looked at.

        Raises StorageFailed where the disk can't say.
        """
        try:
            return bool(self._shelf.copies(block))
        except OSError as error:
            raise _failure(error, f"block {block.hex()} can't be looked for") from error

    def stored_size(self, block: BlockHash) -> int | None:
        """Bytes of a file of this block; None if there is none. Raises StorageFailed."""
        try:
            return next(
                (self._files.file_size(copy.path) for copy in self._shelf.copies(block)), None
            )
        except OSError as error:
            raise _failure(error, f"block {block.hex()} can't be looked for") from error

    async def delete(self, block: BlockHash) -> None:
        """Every file of this block is gone, durably, but for those in read-only directories.

        No error if there is none. Raises StorageFailed, also where a disk has gone.
        """
        async with self._busy.hold(block):
            present = self.has(block)
            done = await self._write(
                partial(self._shelf.remove_all, block), f"block {block.hex()} was not deleted"
            )
            await self._settle(done)
        self.counts.deleted += present

    # --- for scrub and rebalance

    @property
    def directories(self) -> list[BlockDirectory]:
        """In the order in which they are walked."""
        return [directory for _, directory in sorted(self._shelf.directories.items())]

    async def next_leaf(
        self, directory: BlockDirectory, leaf: int
    ) -> tuple[int, list[Copy]] | None:
        """The next folder of a directory from number `leaf` on, with its block files.

        None after the last. Raises StorageFailed.
        """
        return await self._read(partial(self._shelf.next_leaf, directory, leaf))

    async def check(self, copy: Copy) -> Checked:
        """Read and verify one file; set it aside, or take it back, as it deserves."""
        if copy.name.corrupted:
            return await self._check_aside(copy)
        try:
            async with self._reads:
                await self._read(partial(self._shelf.read, copy))
        except CorruptCopy:
            aside = await self._set_aside(copy)
            return Checked.CORRUPT if aside or copy.directory.read_only else Checked.GOOD
        except StorageFailed as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return Checked.GONE
            raise
        return Checked.GOOD

    async def _check_aside(self, copy: Copy) -> Checked:
        block = copy.name.block
        if copy.directory.read_only:
            return Checked.ASIDE
        async with self._busy.hold(block):
            if self.has(block):
                done = await self._write(partial(self._shelf.remove, copy), "not removed")
                await self._settle([done])
                return Checked.HEALED
            restored = await self._write(partial(self._shelf.restore, copy), "not taken back")
        return Checked.HEALED if restored else Checked.ASIDE

    def home(self, block: BlockHash) -> BlockDirectory:
        """The directory where a block belongs."""
        return self._shelf.directories[self._shelf.placement.home(block)]

    async def move_home(self, copy: Copy) -> bool:
        """Move a block's file to its home; True once it is not away from home any more.

        False where it can't move (no room, read-only). The new file is durable before the old one
        goes. Raises BlockCorrupt after setting a bad file aside, StorageFailed.
        """
        home = self.home(copy.name.block)
        if home is copy.directory:
            return True
        if copy.directory.read_only or not home.writable:
            return False
        try:
            async with self._busy.hold(copy.name.block):
                moved = await self._write(partial(self._move, copy, home), f"{copy.path} stays")
                if isinstance(moved, bool):
                    return moved
                await self._settle([moved])
                removed = await self._write(partial(self._shelf.remove, copy), "not removed")
                await self._settle([removed])
        except CorruptCopy:
            await self._set_aside(copy)
            raise
        self.counts.moved += 1
        return True

    def _move(self, copy: Copy, home: BlockDirectory) -> Unsynced | bool:
        if not self._files.exists(copy.path):
            return True
        if not home.mounted() or not home.has_room(self._files.file_size(copy.path)):
            return False
        return self._shelf.copy_to(copy, home)

    async def rebalanced(self) -> None:
        """After a whole walk of `move_home`: forget the former places."""
        self._shelf.placement = self._shelf.placement.settled()
        await keep_placement(self._state, self._shelf.placement)

    def status(self) -> tuple[list[DirectoryStatus], BlockCounts]:
        """Each directory's room, and the counts since the start. Raises StorageFailed."""
        slices = self._shelf.placement.shares()
        try:
            directories = [
                DirectoryStatus(
                    directory.path,
                    self._files.free_bytes(directory.path),
                    self._files.total_bytes(directory.path),
                    directory.read_only,
                    directory.failed,
                    slices.get(directory.id, 0),
                )
                for directory in self.directories
            ]
        except OSError as error:
            raise _failure(error, "a data directory can't be asked for its room") from error
        return directories, replace(self.counts)

    # --- how

    async def _set_aside(self, copy: Copy) -> bool:
        """Set a bad file aside and say so; False where it turns out to be good or gone."""
        async with self._busy.hold(copy.name.block):
            aside = await self._write(partial(self._shelf.set_aside, copy), f"{copy.path} stays")
        if aside:
            self.counts.corrupted += 1
            log.error("%s does not match its name; it was set aside as .corrupted", copy.path)
            if self.on_corrupt is not None:
                await self._tell(copy.name.block)
        return aside

    async def _tell(self, block: BlockHash) -> None:
        if self.on_corrupt is None:
            return
        try:
            await self.on_corrupt(block)
        except NodeError as error:
            log.error("block %s could not be queued for healing: %s", block.hex(), error.message)

    async def _settle(self, changes: Iterable[Unsynced]) -> None:
        """Make names durable. A directory whose sync fails takes no more blocks."""
        for change in {change.directory.id: change for change in changes}.values():
            try:
                await self._syncs.sync(change.paths)
            except OSError as error:
                change.directory.failed = f"{change.directory.path} failed: {error.strerror}"
                log.error("%s; it takes no more blocks", change.directory.failed)
                raise _failure(error, f"{change.directory.path} could not be synced") from error
            if change.paths:
                change.directory.leaf_is_durable(change.leaf)

    async def _write(self, job: Callable[[], T], what: str) -> T:
        return await _run(self._writers, job, what)

    async def _read(self, job: Callable[[], T]) -> T:
        return await _run(self._readers, job, "a block can't be read")


def _threads(kind: str, count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix=f"block-{kind}")


def _failure(error: OSError, what: str) -> NodeError:
    if error.errno in NO_ROOM:
        return DiskFull(f"disk full: {what}")
    return StorageFailed(f"{what}: {error.strerror or error}")


async def _run(pool: Executor, job: Callable[[], T], what: str) -> T:
    """Run a blocking job. Who is cancelled waits for it first, or its lock would be let go
    while the job still works under it."""
    future = asyncio.get_running_loop().run_in_executor(pool, job)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _ended(future)
        raise
    except OSError as error:
        raise _failure(error, what) from error


async def _ended(future: asyncio.Future[T]) -> None:
    """Wait for the end of a job whose result nobody wants, however often cancelled."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue
    if not future.cancelled() and (error := future.exception()) is not None:
        log.warning("a cancelled block operation failed: %s", error)
