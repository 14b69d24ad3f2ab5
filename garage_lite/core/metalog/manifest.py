"""The manifest: the one small file that says which segments live and where the log begins.

    offset  bytes
     0      32    magic, plain text, so that whoever opens the file knows what it is
    32       4    crc32 of the rest
    36       -    msgpack array [format, store id, sequence, next number, damage,
                  [[number, run, tier, rows, size, first, last, low, drops], ...]]

It is replaced whole (written beside, synced, renamed, directory synced), so it is either the old
or the new one. `sequence` is the newest record whose rows are in segments: recovery replays the
log above it. Segments are listed newest first; those of one run (one sorted file cut into
several) stand side by side with disjoint ranges. `low` hides the rows of a segment below it: a
merge replaces its inputs range by range, so that it never needs a second copy of the whole.
`drops` hides ranges that were dropped after the segment was written.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, Final
from zlib import crc32

import msgpack

from garage_lite.core.errors import DataDirError, StorageFailed

FORMAT: Final = 1
_MAGIC: Final = b"garage-lite metadata manifest\n".ljust(32, b"\n")
_CRC: Final = struct.Struct("<I")

Range = tuple[bytes, bytes]
"""start <= key < end."""


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A live segment. `first` and `last` are its outermost keys as written, `size` its bytes."""

    number: int
    run: int
    tier: int
    rows: int
    size: int
    first: bytes
    last: bytes
    low: bytes = b""
    drops: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    store_id: bytes
    sequence: int = 0
    next_number: int = 1
    """Greater than the number of every log file, spare, segment and run made before this was
    written; those made since are found by their names."""
    damage: tuple[str, ...] = ()
    segments: tuple[SegmentEntry, ...] = ()


def encode_manifest(manifest: Manifest) -> bytes:
    segments = [
        [s.number, s.run, s.tier, s.rows, s.size, s.first, s.last, s.low, s.drops]
        for s in manifest.segments
    ]
    body: bytes = msgpack.packb(
        [
            FORMAT,
            manifest.store_id,
            manifest.sequence,
            manifest.next_number,
            manifest.damage,
            segments,
        ]
    )
    return _MAGIC + _CRC.pack(crc32(body)) + body


def decode_manifest(data: bytes) -> Manifest:
    """Raises StorageFailed on damage, DataDirError when a newer program wrote it."""
    body = data[len(_MAGIC) + _CRC.size :]
    if data[: len(_MAGIC)] != _MAGIC or _CRC.pack(crc32(body)) != data[len(_MAGIC) :][: _CRC.size]:
        raise StorageFailed("the metadata manifest is damaged")
    fields: list[Any] = msgpack.unpackb(body, raw=False)
    if fields[0] > FORMAT:
        raise DataDirError(
            f"the metadata was written by a newer version of garage-lite (format {fields[0]},"
            f" this one reads up to {FORMAT}): install that version, or restore a snapshot"
        )
    _, store_id, sequence, next_number, damage, segments = fields
    return Manifest(
        store_id,
        sequence,
        next_number,
        tuple(damage),
        tuple([_segment_entry(fields) for fields in segments]),
    )


def _segment_entry(fields: list[Any]) -> SegmentEntry:
    drops = tuple([(start, end) for start, end in fields[8]])
    return replace(SegmentEntry(*fields[:8]), drops=drops)
