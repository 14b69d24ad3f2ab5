"""What is done to block files, call by call: the blocking half of the block store.

Every method blocks and runs in a pool's thread. Methods on one block exclude each other by their
caller; methods on different blocks run side by side, so what they share is only touched by calls
that the interpreter makes whole. OSErrors pass through; `block_files.py` gives them their meaning.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Final, NamedTuple, TypeVar

import zstandard

from garage_lite.core.block.frame import (
    LEAVES_PER_FOLDER,
    BlockName,
    StoredBlock,
    compressed,
    content,
    folder_path,
    leaf_of,
    leaf_path,
    matches,
    parse_name,
    plain_content,
)
from garage_lite.core.block.placement import Placement
from garage_lite.core.disk.block_directories import BlockDirectory
from garage_lite.core.errors import BlockCorrupt, BlockMissing, DiskFull, StorageFailed
from garage_lite.core.ids import BlockHash
from garage_lite.core.limits import BLOCK_BYTES_MAX
from garage_lite.core.ports import Buffer, Files, OpenMode

log = logging.getLogger(__name__)
T = TypeVar("T")

_STORED_BYTES_MAX: Final = BLOCK_BYTES_MAX + 64 * 1024
"""No block file is longer; of one that is, no more is read before it is found corrupt."""


class Copy(NamedTuple):
    """One file of a block, there or not."""

    directory: BlockDirectory
    name: BlockName

    @property
    def path(self) -> str:
        return self.name.path_in(self.directory.path)


class Unsynced(NamedTuple):
    """A change whose names are durable once these directories are synced."""

    directory: BlockDirectory
    paths: list[str]
    leaf: int
    stored_bytes: int = 0


class CorruptCopy(BlockCorrupt):
    """A file that does not match its name; it is still in its place."""

    def __init__(self, copy: Copy) -> None:
        super().__init__(f"{copy.path} does not match its name")
        self.copy = copy


class Shelf:
    """The files of blocks in several directories."""

    def __init__(
        self,
        files: Files,
        directories: Sequence[BlockDirectory],
        placement: Placement,
        *,
        fsync: bool,
        level: int | None,
    ) -> None:
        self.directories = {directory.id: directory for directory in directories}
        self.placement = placement
        self._files = files
        self._fsync = fsync
        self._level = level
        self._compressors: deque[zstandard.ZstdCompressor] = deque()
        self._decompressors: deque[zstandard.ZstdDecompressor] = deque()
        self._serial = count()

    # --- finding

    def candidates(self, block: BlockHash) -> Iterator[Copy]:
        """Where files of a block can be, the likeliest first."""
        for id in self.placement.search_order(block, self.directories):
            directory = self.directories[id]
            yield Copy(directory, BlockName(block))
            yield Copy(directory, BlockName(block, compressed=True))

    def copies(self, block: BlockHash) -> list[Copy]:
        return [copy for copy in self.candidates(block) if self._files.exists(copy.path)]

    def check_mounted(self) -> None:
        """Raises StorageFailed if the disk of a directory has gone: then nothing is missing."""
        for directory in self.directories.values():
            if not directory.mounted():
                raise StorageFailed(f"the data of {directory.path} has gone; is its disk mounted?")

    # --- reading

    def read(self, copy: Copy) -> bytes:
        """The verified content. Raises CorruptCopy, FileNotFoundError, OSError."""
        return self._verified(copy, self._stored(copy, sync=False))

    def read_stored(self, copy: Copy) -> StoredBlock:
        """What is in the file, once it was verified. Raises as `read`."""
        stored = self._stored(copy, sync=False)
        self._verified(copy, stored)
        return StoredBlock(copy.name.compressed, [stored])

    def fetch(self, block: BlockHash, read: Callable[[Copy], T], skip: Sequence[Copy] = ()) -> T:
        """What `read` makes of any copy but those in `skip`.

        Raises CorruptCopy on the first bad one, BlockMissing, StorageFailed (a directory is
        gone), OSError. Looks twice, because a block that is just being moved may be missed once.
        """
        unreadable: OSError | None = None
        for _ in range(2):
            for copy in self.candidates(block):
                if copy in skip:
                    continue
                try:
                    return read(copy)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    unreadable = error
        if unreadable is not None:
            raise unreadable
        self.check_mounted()
        raise BlockMissing(f"block {block.hex()} is not on this node")

    def _stored(self, copy: Copy, *, sync: bool) -> bytes:
        file = self._files.open(copy.path, OpenMode.READ)
        try:
            stored = file.read_at(0, min(file.size(), _STORED_BYTES_MAX))
            if sync:
                file.sync()
        finally:
            file.close()
        return stored

    def _verified(self, copy: Copy, stored: bytes) -> bytes:
        try:
            with self._decompressor(copy.name.compressed) as decompressor:
                return content(copy.name, stored, decompressor)
        except BlockCorrupt as error:
            raise CorruptCopy(copy) from error

    def expand(self, block: BlockHash, stored: StoredBlock) -> bytes:
        """The verified content of a block that came from elsewhere. Raises BlockCorrupt."""
        with self._decompressor(stored.compressed) as decompressor:
            return plain_content(block, stored, decompressor)

    @contextmanager
    def _decompressor(self, wanted: bool) -> Iterator[zstandard.ZstdDecompressor | None]:
        if not wanted:
            yield None
            return
        try:
            decompressor = self._decompressors.pop()
        except IndexError:
            decompressor = zstandard.ZstdDecompressor()
        try:
            yield decompressor
        finally:
            self._decompressors.append(decompressor)

    # --- writing

    def put(
        self, block: BlockHash, parts: Sequence[Buffer], *, compress: bool, verify: bool
    ) -> Unsynced:
        """Make sure that a good copy is there, synced but for its directories.

        Raises BlockCorrupt (the parts are not this block), DiskFull, StorageFailed, OSError.
        """
        if verify and not matches(block, parts):
            raise BlockCorrupt(f"the content received for block {block.hex()} does not match it")
        present = self._good_copy(block)
        if present is not None:
            return self._unsynced(present.directory, block, 0)
        size = sum(len(part) for part in parts)
        directory = self._roomy(block, size)
        frame = self._compressed(parts, size) if compress else None
        copy = Copy(directory, BlockName(block, compressed=frame is not None))
        return self.write(copy, parts if frame is None else frame)

    def prepare(self, parts: Sequence[Buffer], *, compress: bool) -> StoredBlock:
        """The block as it will be stored here and elsewhere: compressed where that pays."""
        frame = self._compressed(parts, sum(map(len, parts))) if compress else None
        return StoredBlock(frame is not None, parts if frame is None else frame)

    def put_stored(self, block: BlockHash, stored: StoredBlock, *, verify: bool) -> Unsynced:
        """As `put`, of what was prepared here or elsewhere."""
        if verify and stored.compressed:
            self.expand(block, stored)
        elif verify and not matches(block, stored.buffers):
            raise BlockCorrupt(f"the content received for block {block.hex()} does not match it")
        present = self._good_copy(block)
        if present is not None:
            return self._unsynced(present.directory, block, 0)
        directory = self._roomy(block, stored.size)
        return self.write(
            Copy(directory, BlockName(block, compressed=stored.compressed)), stored.buffers
        )

    def write(self, copy: Copy, buffers: Sequence[Buffer]) -> Unsynced:
        """Write the file of a copy as stored and rename it into its place."""
        block = copy.name.block
        leaf = leaf_of(block)
        temporary = f"{copy.directory.temporary_path}/{block.hex()}-{next(self._serial)}"
        file = self._files.open(temporary, OpenMode.CREATE)
        try:
            try:
                file.write_at(0, buffers)
                if self._fsync:
                    file.sync()
            finally:
                file.close()
            copy.directory.make_leaf(leaf)
            self._files.rename(temporary, copy.path)
        except OSError:
            copy.directory.leaf_is_durable(leaf, False)
            self._discard(temporary)
            raise
        return self._unsynced(copy.directory, block, sum(len(buffer) for buffer in buffers))

    def _discard(self, temporary: str) -> None:
        try:
            self._files.remove(temporary)
        except OSError as error:
            log.warning("%s stays until the next start: %s", temporary, error.strerror)

    def _unsynced(self, directory: BlockDirectory, block: BlockHash, stored: int) -> Unsynced:
        leaf = leaf_of(block)
        if not self._fsync:
            return Unsynced(directory, [], leaf, stored)
        paths = [leaf_path(directory.path, leaf), *directory.unsynced_parents(leaf)]
        return Unsynced(directory, paths, leaf, stored)

    def _good_copy(self, block: BlockHash) -> Copy | None:
        """A copy that was just read, verified and synced; corrupt ones met are set aside."""
        for copy in self.copies(block):
            if copy.directory.failed is not None:
                continue
            try:
                self._verified(copy, self._stored(copy, sync=self._fsync))
            except CorruptCopy:
                self.set_aside(copy)
            except OSError:
                # Unreadable or not to be synced: what is written now takes its place.
                continue
            else:
                return copy
        return None

    def _roomy(self, block: BlockHash, size: int) -> BlockDirectory:
        """The directory that takes a new block: its home, or another while that is full."""
        full: BlockDirectory | None = None
        broken: str | None = None
        for id in self.placement.search_order(block, self.directories):
            directory = self.directories[id]
            if directory.read_only:
                continue
            if directory.failed is not None:
                broken = directory.failed
            elif not directory.mounted():
                broken = f"the data of {directory.path} has gone; is its disk mounted?"
            elif directory.has_room(size):
                return directory
            else:
                full = directory
        if full is not None:
            raise DiskFull(f"disk full: {full.path} has less than its reserve left")
        raise StorageFailed(broken or "no data directory takes blocks")

    def _compressed(self, parts: Sequence[Buffer], size: int) -> list[bytes] | None:
        if self._level is None:
            return None
        try:
            compressor = self._compressors.pop()
        except IndexError:
            compressor = zstandard.ZstdCompressor(level=self._level)
        frame = compressed(parts, size, compressor)
        self._compressors.append(compressor)
        return frame

    # --- setting aside, moving, removing

    def set_aside(self, copy: Copy) -> bool:
        """Rename a copy that, read again, still does not match; False where it does, or can't."""
        try:
            self.read(copy)
        except FileNotFoundError:
            return False
        except CorruptCopy:
            pass
        else:
            return False
        if copy.directory.read_only:
            return False
        aside = Copy(copy.directory, copy.name._replace(corrupted=True))
        self._files.rename(copy.path, aside.path)
        return True

    def restore(self, copy: Copy) -> bool:
        """Take back a file that was set aside if, read again, it does match its name."""
        try:
            self.read(copy)
        except CorruptCopy:
            return False
        self._files.rename(
            copy.path, Copy(copy.directory, copy.name._replace(corrupted=False)).path
        )
        return True

    def copy_to(self, source: Copy, target: BlockDirectory) -> Unsynced:
        """Write a verified copy as it is stored into another directory."""
        stored = self._stored(source, sync=False)
        self._verified(source, stored)
        return self.write(Copy(target, source.name), [stored])

    def remove(self, copy: Copy) -> Unsynced:
        """Remove this file, if it is there. Its folder is to be synced either way: an earlier
        removal may have got no further than this."""
        try:
            self._files.remove(copy.path)
        except FileNotFoundError:
            log.debug("%s was removed before", copy.path)
        leaf = leaf_of(copy.name.block)
        paths = [leaf_path(copy.directory.path, leaf)] if self._fsync else []
        return Unsynced(copy.directory, paths, leaf)

    def remove_all(self, block: BlockHash) -> list[Unsynced]:
        """Remove every file of a block, those set aside too, where that is allowed."""
        self.check_mounted()
        changed = []
        for copy in self.candidates(block):
            directory = copy.directory
            if directory.read_only or not self._files.exists(
                leaf_path(directory.path, leaf_of(block))
            ):
                continue
            self.remove(Copy(directory, copy.name._replace(corrupted=True)))
            changed.append(self.remove(copy))
        return changed

    # --- walking

    def next_leaf(self, directory: BlockDirectory, leaf: int) -> tuple[int, list[Copy]] | None:
        """The first leaf folder from number `leaf` on, and the block files in it."""
        for folder in self._numbered(directory.path, leaf // LEAVES_PER_FOLDER):
            first = folder * LEAVES_PER_FOLDER
            path = folder_path(directory.path, first)
            for last in self._numbered(path, max(leaf - first, 0)):
                number = first + last
                names = self._files.names(leaf_path(directory.path, number))
                parsed = [name for text in names if (name := parse_name(text)) is not None]
                return number, [Copy(directory, name) for name in parsed]
        return None

    def _numbered(self, path: str, least: int) -> list[int]:
        """The two-digit folders in a folder, from `least` on."""
        folders = [name[:2] for name in self._files.names(path) if len(name) == 3]
        numbers = [int(digits, 16) for digits in folders if _is_folder(digits)]
        return [number for number in numbers if number >= least]


def _is_folder(digits: str) -> bool:
    return all(digit in "0123456789abcdef" for digit in digits)
