"""Segments as open files: finding rows in them, writing new ones.

Reads are a cached block or one short pread. A block that fails its check answers DamagedRow for
every key it may hold: an older value beneath it would be a lie. A segment whose footer is gone
answers so for its whole range, which the manifest knows.
"""

from __future__ import annotations

import logging
import weakref
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

import zstandard

from garage_lite.core.disk.group_commit import numbered
from garage_lite.core.errors import DamagedRow
from garage_lite.core.limits import KIB, MIB
from garage_lite.core.metalog.bloom import key_hash, probe
from garage_lite.core.metalog.cache import ByteCache
from garage_lite.core.metalog.manifest import SegmentEntry
from garage_lite.core.metalog.memtable import Batch
from garage_lite.core.metalog.merge import in_ranges, without_ranges
from garage_lite.core.metalog.segment import (
    PLACE,
    TRAILER_BYTES,
    Block,
    Footer,
    SegmentBuilder,
    decode_block,
    decode_footer,
    decode_trailer,
)
from garage_lite.core.ports import File, Files, OpenMode

_log: Final = logging.getLogger(__name__)

SEGMENT_PREFIX: Final = "segment-"
ABSENT: Final[Any] = object()
"""No row with that key here, not even a deletion."""

_WRITE_BYTES: Final = 256 * KIB
_SYNC_BYTES: Final = 8 * MIB
_ENTRY_OVERHEAD_BYTES: Final = 75
"""Of a string inside a cached block: its object and its slot."""
_ALWAYS: Final = memoryview(array("Q", [(1 << 64) - 1]))


class Access:
    """One thread's means to read blocks: the loop's with caches, the background's without."""

    def __init__(
        self,
        blocks: ByteCache[Block] | None = None,
        indexes: ByteCache[Block] | None = None,
        on_read: Callable[[], None] | None = None,
    ) -> None:
        self.blocks = blocks
        self.indexes = indexes
        self.on_read = on_read
        """Called after each block read from the file."""
        self.decompressor = zstandard.ZstdDecompressor()


class OpenSegment:
    """A segment's file. It closes when nobody reads it any more, even if it was removed."""

    def __init__(self, files: Files, directory: str, number: int) -> None:
        self.number = number
        self.damage = ""
        self.path = numbered(directory, SEGMENT_PREFIX, number)
        self.footer: Footer | None = None
        self.words = _ALWAYS
        self._base = number << 40
        self._file: File | None = None
        self._closer: weakref.finalize[..., Any] | None = None
        try:
            self._file = files.open(self.path, OpenMode.READ)
            self._closer = weakref.finalize(self, _close, self._file, self.path)
            self._read_footer(self._file)
        except (DamagedRow, OSError) as error:
            self._spoil(f"its footer can't be read ({error})")
        self.word_count = len(self.words)

    def _read_footer(self, file: File) -> None:
        size = file.size()
        length, crc = decode_trailer(file.read_at(max(0, size - TRAILER_BYTES), TRAILER_BYTES))
        start = max(0, size - TRAILER_BYTES - length)
        footer = decode_footer(file.read_at(start, length), crc, self.number)
        whole = file.map()
        bloom = whole[footer.bloom_offset : footer.bloom_offset + 8 * footer.bloom_words]
        if crc32(bloom) == footer.bloom_crc:
            self.words = bloom.cast("Q")
        else:
            self._spoil("its bloom filter is damaged")
        self.footer = footer

    def close(self) -> None:
        if self._closer is not None:
            self._closer()

    def _spoil(self, what: str) -> None:
        self.damage = f"{self.path}: {what}"

    def _block(self, offset: int, length: int, cache: ByteCache[Block] | None, by: Access) -> Block:
        if cache is not None:
            block = cache.get(self._base + offset)
            if block is not None:
                return block
        assert self._file is not None
        try:
            data = self._file.read_at(offset, length)
            block = decode_block(data, offset, by.decompressor)
        except (DamagedRow, OSError) as error:
            self._spoil(f"the block at byte {offset} can't be read")
            raise DamagedRow from error
        if by.on_read is not None:
            by.on_read()
        if cache is not None:
            strings = block[1]
            values = sum([len(v) for v in block[2] if v is not None]) if cache is by.blocks else 0
            size = len(strings) * 2 * _ENTRY_OVERHEAD_BYTES + sum(map(len, strings)) + values
            cache.put(self._base + offset, block, size + 300)
        return block

    def _index(self, which: int, by: Access) -> Block:
        offset, length = PLACE.unpack_from(self.known.places, which * PLACE.size)
        return self._block(offset, length, by.indexes, by)

    @property
    def known(self) -> Footer:
        """The footer; DamagedRow when it could not be read."""
        if self.footer is None:
            raise DamagedRow
        return self.footer

    def find(self, key: bytes, by: Access) -> Block:
        """The data block that holds `key` if any does; first key <= key."""
        which = bisect_right(self.known.tops, key) - 1
        index = self._index(max(which, 0), by)
        offset, length = PLACE.unpack_from(index[2], _position(index, key) * PLACE.size)
        return self._block(offset, length, by.blocks, by)

    def blocks(self, start: bytes, end: bytes | None, by: Access) -> Iterator[Batch]:
        """Rows of start <= key < end (None: to the last)."""
        tops = self.known.tops
        first = max(0, bisect_right(tops, start) - 1)
        for which in range(first, len(tops)):
            if end is not None and tops[which] >= end:
                return
            index = self._index(which, by)
            prefix, strings, places = index
            for place in range(_position(index, start), len(strings)):
                if end is not None and prefix + strings[place] >= end:
                    return
                offset, length = PLACE.unpack_from(places, place * PLACE.size)
                shared, suffixes, values = self._block(offset, length, by.blocks, by)
                low = _below(shared, suffixes, start)
                high = len(suffixes) if end is None else _below(shared, suffixes, end)
                if low < high:
                    yield [shared + suffix for suffix in suffixes[low:high]], values[low:high]


def _close(file: File, path: str) -> None:
    """It was only read, so nothing is lost when that fails."""
    try:
        file.close()
    except OSError as error:
        _log.warning("%s could not be closed: %s", path, error)


def _below(shared: bytes, suffixes: Sequence[bytes], bound: bytes) -> int:
    """How many of the keys `shared` + suffix (ascending) are below `bound`."""
    if bound.startswith(shared):
        return bisect_left(suffixes, bound[len(shared) :])
    return 0 if bound < shared else len(suffixes)


def _position(index: Block, key: bytes) -> int:
    """Which block of an index a key falls into; the first when the key is below all."""
    prefix, strings, _ = index
    if key.startswith(prefix):
        return max(0, bisect_right(strings, key[len(prefix) :]) - 1)
    return 0 if key < prefix else len(strings) - 1


def lesser(one: bytes | None, other: bytes | None) -> bytes | None:
    """The lesser of two bounds, where None is no bound."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


class Segment:
    """A live segment: its file, and which of its rows still count."""

    __slots__ = ("_drops", "_low", "entry", "opened")

    def __init__(self, opened: OpenSegment, entry: SegmentEntry) -> None:
        self.opened = opened
        self.entry = entry
        self._low = max(entry.low, entry.first)
        self._drops = entry.drops

    def get(self, key: bytes, by: Access) -> bytes | None:
        """The value, None of a deletion, or ABSENT. Raises DamagedRow."""
        absent: bytes | None = ABSENT
        if not self._low <= key <= self.entry.last or in_ranges(key, self._drops):
            return absent
        prefix, suffixes, values = self.opened.find(key, by)
        if not key.startswith(prefix):
            return absent
        suffix = key[len(prefix) :]
        place = bisect_left(suffixes, suffix)
        if place < len(suffixes) and suffixes[place] == suffix:
            found: bytes | None = values[place]
            return found
        return absent

    def blocks(self, start: bytes, end: bytes | None, by: Access) -> Iterator[Batch]:
        if end is not None and any(low <= start and end <= high for low, high in self._drops):
            return iter(())  # unread: a damaged block of what was dropped is no damage
        batches = self.opened.blocks(max(start, self._low), end, by)
        return without_ranges(batches, self._drops) if self._drops else batches

    def lay_over(
        self,
        prefix: bytes,
        end: bytes,
        rows: dict[bytes, bytes | None],
        by: Access,
        most: int | None,
    ) -> bytes | None:
        """Put the rows of prefix <= key < end, or the first `most` of them and some, into `rows`.
        Returns up to which key that is all, None: they are all. Few rows are in one block nearly
        always: then no iterator is set up. Raises DamagedRow."""
        if prefix >= self._low and not self._drops:
            shared, suffixes, values = self.opened.find(prefix, by)
            low, high = _below(shared, suffixes, prefix), _below(shared, suffixes, end)
            full = most is not None and high - low >= most
            if high < len(suffixes) or full:
                for place in range(low, high):
                    rows[shared + suffixes[place]] = values[place]
                return shared + suffixes[high - 1] if full else None
        taken = 0
        for keys, found in self.blocks(prefix, end, by):
            rows.update(zip(keys, found, strict=True))
            taken += len(keys)
            if most is not None and taken >= most:
                return keys[-1]
        return None

    def overlaps(self, start: bytes, end: bytes | None) -> bool:
        return self.entry.last >= start and (end is None or self._low < end)


class SegmentSet:
    """All live segments at one moment; never changed, so a scan may hold on to it."""

    def __init__(
        self,
        entries: Sequence[SegmentEntry],
        opened: Mapping[int, OpenSegment],
        suffix_bytes: Mapping[int, int],
    ) -> None:
        self._suffix_bytes = suffix_bytes
        runs: dict[int, list[Segment]] = {}
        for entry in entries:
            runs.setdefault(entry.run, []).append(Segment(opened[entry.number], entry))
        self.runs = [(segments, [s.entry.first for s in segments]) for segments in runs.values()]
        """Newest first; the segments of a run ascending, with their first keys."""
        self._filters = [
            (segments[0].opened.words, segments[0].opened.word_count, segments, firsts)
            for segments, firsts in self.runs
        ]
        """Per run its first segment's filter: most runs have but one, and this loop is hot."""

    def get(self, key: bytes, by: Access) -> bytes | None:
        """The newest value, None of a deletion, or ABSENT. Raises DamagedRow."""
        position, mask = probe(key_hash(key, self._suffix_bytes))
        for words, count, segments, firsts in self._filters:
            which = 0
            if len(segments) > 1:
                which = max(0, bisect_right(firsts, key) - 1)
                words, count = segments[which].opened.words, segments[which].opened.word_count
            if words[position * count >> 32] & mask == mask:
                value = segments[which].get(key, by)
                if value is not ABSENT:
                    return value
        absent: bytes | None = ABSENT
        return absent

    def may_hold(self, key: bytes) -> bool:
        """False: surely no row with that key, not even a deletion."""
        position, mask = probe(key_hash(key, self._suffix_bytes))
        for segments, firsts in self.runs:
            opened = segments[bisect_right(firsts, key) - 1].opened
            if opened.words[position * opened.word_count >> 32] & mask == mask:
                return True
        return False

    def with_prefix(
        self,
        prefix: bytes,
        by: Access,
        rows: dict[bytes, bytes | None],
        most: int | None = None,
    ) -> bytes | None:
        """Put the rows, deletions too, whose key without its suffix is `prefix` (and maybe some
        whose key only starts with it) into `rows`: all, or of each run the first `most` and some.
        Returns up to which key that is all of them, None: they are all. Raises DamagedRow."""
        position, mask = probe(crc32(prefix))
        end = prefix + b"\xff" * (self._suffix_bytes.get(prefix[0], 0) + 1)
        known: bytes | None = None
        for segments, _ in reversed(self.runs):
            for segment in segments:
                opened = segment.opened
                if opened.words[
                    position * opened.word_count >> 32
                ] & mask == mask and segment.overlaps(prefix, end):
                    reached = segment.lay_over(prefix, end, rows, by, most)
                    if reached is not None:
                        known = lesser(known, reached)
                        break  # the run goes on with greater keys
        return known

    def sources(self, start: bytes, end: bytes | None, by: Access) -> list[Iterator[Batch]]:
        """Per run that holds any, its rows of start <= key < end; newest run first."""
        found = []
        for segments, _ in self.runs:
            within = [segment for segment in segments if segment.overlaps(start, end)]
            if within:
                found.append(_chain(within, start, end, by))
                del within
        return found


def _chain(
    segments: Sequence[Segment], start: bytes, end: bytes | None, by: Access
) -> Iterator[Batch]:
    """The rows of disjoint segments; one that is done is let go, so that its room is free."""
    waiting = deque(segments)
    del segments
    while waiting:
        yield from waiting.popleft().blocks(start, end, by)


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """How large one segment may grow."""

    rows: int
    bytes: int


def write_segment(
    files: Files,
    directory: str,
    builder: SegmentBuilder,
    number: int,
    batches: Iterator[Batch],
    limits: SegmentLimits,
) -> Generator[None, None, bool]:
    """Write rows (blocks of the right size, ascending) until a limit or the end; yields between
    small steps. Returns whether a file was made: durable, but its name not yet. Raises OSError,
    DamagedRow; the file is then garbage."""
    batch = next(batches, None)
    if batch is None:
        return False
    path = numbered(directory, SEGMENT_PREFIX, number)
    file = files.open(path, OpenMode.CREATE)
    try:
        sink = _Sink(file)
        while batch is not None:
            builder.add(*batch)
            sink.pass_on(builder, _WRITE_BYTES)
            yield
            if builder.rows >= limits.rows or builder.size >= limits.bytes:
                break
            batch = next(batches, None)
        for _ in builder.finish():
            sink.pass_on(builder, _WRITE_BYTES)
            yield
        sink.pass_on(builder, 0)
        file.sync()
    finally:
        file.close()
    return True


class _Sink:
    """Writes a builder's bytes on, in large pieces, synced now and then so that the last sync
    doesn't stall the log."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._offset = 0
        self._unsynced = 0

    def pass_on(self, builder: SegmentBuilder, least: int) -> None:
        if builder.ready_bytes <= least:
            return
        size = builder.ready_bytes
        self._file.write_at(self._offset, builder.take())
        self._offset += size
        self._unsynced += size
        if self._unsynced >= _SYNC_BYTES:
            self._file.sync()
            self._unsynced = 0
