"""One record of the metadata log: one transaction, all of it or nothing.

    a log file, by pages of 4096 bytes
    +--------+---------+--------+------------+--------+----------+-----------------------
    | record | record  | record | zeros to a | record | zeros to | what an earlier use of
    |        |         |        | full page  |        | a page   | the file left, or zeros
    +--------+---------+--------+------------+--------+----------+-----------------------
    ^ batch 0, one write                     ^ batch 1            ^ end

    a record, little endian
    offset  bytes
     0      4     crc32 of all that follows, to the end of the rows
     4      4     length of the rows
     8      8     use: the number in the file's name. A file is recycled under a new number, so
                  records of an earlier use never pass for ours
    16      4     batch: the page, counted from the start of the file, at which the write that
                  holds this record begins
    20      4     kind: 0 rows, 1 range drop
    24      8     sequence: 1 + that of the record before, across files
    32      -     rows: msgpack array of [key, value], value nil = deleted;
                  of a range drop: one [start, end]

A batch is one write and is durable before the next begins, on a page that was never written in
this use. So after a crash only the last batch of the last use can be torn, and whatever way its
sectors were lost or reordered, recovery keeps its records up to the first bad one. A bad record
is damage, not a tail, when a valid record of a later batch of the same use follows: a batch that
begins beyond the bad place proves that the bad place was durable once. The batch being a place
makes that one comparison. Damage in the very last batch can't be told from a tail by the file
alone; the next file's first sequence, or the manifest's, then shows the gap.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgpack

from garage_lite.core.ports import Buffer

PAGE_BYTES: Final = 4096
HEADER_BYTES: Final = 32
ROWS: Final = 0
DROP: Final = 1

_AFTER_CRC: Final = struct.Struct("<IQIIQ")
_HEADER: Final = struct.Struct("<IIQIIQ")
_PREFIX: Final = struct.Struct("<IIQI")
_crc_bytes: Final[Callable[[int], bytes]] = struct.Struct("<I").pack
_packer: Final = msgpack.Packer(use_bin_type=True, autoreset=True)

Rows = list[tuple[bytes, bytes | None]]


class Record(NamedTuple):
    use: int
    batch: int
    kind: int
    sequence: int
    rows: list[Any]
    """Of [key, value or None]; of a drop one [start, end]."""
    end: int
    """Where the record after it would begin."""


def pack_rows(rows: Any) -> bytes:
    """The payload of a record: what the writer's side can make before its place is known."""
    packed: bytes = _packer.pack(rows)
    return packed


def header(payload: bytes, use: int, batch: int, kind: int, sequence: int) -> bytes:
    """The 32 bytes before a payload."""
    after = _AFTER_CRC.pack(len(payload), use, batch, kind, sequence)
    return _crc_bytes(crc32(payload, crc32(after))) + after


def padding(length: int) -> bytes:
    """The zeros that fill the last page of a batch of `length` bytes."""
    return bytes(-length % PAGE_BYTES)


def read_record(data: Buffer, offset: int, use: int) -> Record | None:
    """The record at `offset`, or None: none of this use is there whole."""
    view = memoryview(data)
    if offset + HEADER_BYTES > len(view):
        return None
    crc, length, found_use, batch, kind, sequence = _HEADER.unpack_from(view, offset)
    end = offset + HEADER_BYTES + length
    if found_use != use or end > len(view) or batch * PAGE_BYTES > offset:
        return None
    if crc32(view[offset + 4 : end]) != crc:
        return None
    try:
        rows = msgpack.unpackb(view[offset + HEADER_BYTES : end], raw=False, use_list=True)
    except (ValueError, msgpack.UnpackException):
        return None
    if not isinstance(rows, list) or kind not in (ROWS, DROP):
        return None
    return Record(found_use, batch, kind, sequence, rows, end)


class LogReader:
    """The records of one use of a log file; iterate once, then read `end` and `damage`.

    A torn tail is cut at the first bad record. Beyond damage the good records are read too: each
    carries whole rows, and a newer row is worth keeping; `damage` says that some are missing.
    """

    def __init__(self, data: Buffer, use: int) -> None:
        self._view = memoryview(data)
        self._use = use
        self.end = 0
        """First byte after the last good record."""
        self.damage = ""
        """Empty, or what is wrong, in words."""

    def __iter__(self) -> Iterator[Record]:
        start: int | None = 0
        sequence: int | None = None
        while start is not None:
            for record in self._walk(start):
                if sequence is not None and record.sequence != sequence + 1:
                    self.damage = f"records {sequence + 1} to {record.sequence - 1} are damaged"
                sequence = record.sequence
                self.end = record.end
                yield record
            start = self._later_batch(self.end)
            if start is not None and sequence is None:
                self.damage = "its first record is damaged"

    def _walk(self, offset: int) -> Iterator[Record]:
        """Records from the start of a batch to the first place where none follows."""
        batch = offset // PAGE_BYTES
        while True:
            record = read_record(self._view, offset, self._use)
            if record is None:
                offset += -offset % PAGE_BYTES
                record = read_record(self._view, offset, self._use)
                if record is None or record.batch * PAGE_BYTES != offset:
                    return
            elif record.batch != batch and record.batch * PAGE_BYTES != offset:
                return
            batch = record.batch
            offset = record.end
            yield record

    def _later_batch(self, bad: int) -> int | None:
        """Where a batch begins beyond `bad` with a good record: proof that `bad` was durable."""
        view = self._view
        for page in range(bad // PAGE_BYTES + 1, len(view) // PAGE_BYTES):
            offset = page * PAGE_BYTES
            _, _, use, batch = _PREFIX.unpack_from(view, offset)
            if use == self._use and batch == page and read_record(view, offset, use):
                return offset
        return None
