"""A segment: sorted rows in a file that is never changed once closed.

    +-------+-------+---     ---+-------+-------+---     +-------+--------+---------+
    | block | block |  64 of    | index | block |   ...  | index | bloom  | footer  |
    +-------+-------+---     ---+-------+-------+---     +-------+--------+---------+

    block    crc32 (4, seeded with the block's place in the file, so that a block written to the
             wrong place is noticed) | 0 plain or 1 zstd (1) | msgpack [prefix, [suffix, ...],
             [value or nil, ...]]: about 32 rows in key order; nil is a deletion, kept until
             nothing older can hold the key
    index    as a block: [prefix, [suffix, ...], places]; the i-th string is the shortest that is
             above all keys before block i and not above its first; places: per block its offset
             (8) and length (4), little endian
    bloom    64-bit words, at a multiple of 8; see bloom.py
    footer   msgpack [format, number, rows, first key, last key, bloom offset, bloom words,
             bloom crc, [index string, ...], places of the indexes]
    trailer  footer length (4) | crc32 of the footer (4) | magic (8)

All is little endian. Everything but the bloom filter is checked whenever it is read; the filter
when the segment is opened (a lost bit would hide a row).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

import msgpack
import zstandard

from garage_lite.core.errors import DamagedRow
from garage_lite.core.metalog.bloom import fill, key_hash, word_count

FORMAT: Final = 1
BLOCK_ROWS: Final = 32
BLOCK_BYTES: Final = 12 * 1024
"""A block closes at either; one larger row has a block of its own."""
INDEX_BLOCKS: Final = 64
_MAGIC: Final = b"GLseg\r\n\x1a"
_TRAILER: Final = struct.Struct("<II8s")
TRAILER_BYTES: Final = _TRAILER.size
_CRC: Final = struct.Struct("<I")
PLACE: Final = struct.Struct("<QI")
_ZSTD_LEVEL: Final = -1
_PLAIN: Final = b"\x00"
_ZSTD: Final = b"\x01"
_BLOOM_CHUNK: Final = 65536

Block = tuple[bytes, tuple[bytes, ...], Any]
"""prefix, suffixes, and the values of a data block or the places of an index."""

_packer: Final = msgpack.Packer(use_bin_type=True, autoreset=True)


def common_prefix(low: bytes, high: bytes) -> int:
    """How many first bytes two keys share."""
    shorter = min(len(low), len(high))
    if low[:shorter] == high[:shorter]:
        return shorter
    difference = int.from_bytes(low[:shorter], "big") ^ int.from_bytes(high[:shorter], "big")
    return shorter - (difference.bit_length() + 7) // 8


def separator(before: bytes, first: bytes) -> bytes:
    """The shortest string above `before` and not above `first`; before < first."""
    return first[: common_prefix(before, first) + 1]


def encode_block(
    keys: Sequence[bytes], values: Any, offset: int, compressor: zstandard.ZstdCompressor
) -> bytes:
    """The bytes of a block that will stand at `offset`."""
    shared = common_prefix(keys[0], keys[-1])
    plain = _packer.pack([keys[0][:shared], [key[shared:] for key in keys], values])
    packed = compressor.compress(plain)
    body = _ZSTD + packed if len(packed) < len(plain) else _PLAIN + plain
    return _CRC.pack(crc32(body, offset & 0xFFFFFFFF)) + body


def decode_block(data: bytes, offset: int, decompressor: zstandard.ZstdDecompressor) -> Block:
    """The content of a block read at `offset`. Raises DamagedRow."""
    body = data[4:]
    if len(body) < 2 or data[:4] != _CRC.pack(crc32(body, offset & 0xFFFFFFFF)):
        raise DamagedRow
    plain = decompressor.decompress(body[1:]) if body[:1] == _ZSTD else body[1:]
    block: Block = msgpack.unpackb(plain, raw=False, use_list=False)
    return block


@dataclass(frozen=True, slots=True)
class Footer:
    number: int
    rows: int
    first: bytes
    last: bytes
    bloom_offset: int
    bloom_words: int
    bloom_crc: int
    tops: tuple[bytes, ...]
    """The first string of each index."""
    places: bytes
    """PLACE of each index."""


def decode_trailer(data: bytes) -> tuple[int, int]:
    """(length, crc32) of the footer, from a segment's last TRAILER_BYTES. Raises DamagedRow."""
    if len(data) != TRAILER_BYTES:
        raise DamagedRow
    length, crc, magic = _TRAILER.unpack(data)
    if magic != _MAGIC:
        raise DamagedRow
    return length, crc


def decode_footer(data: bytes, crc: int, number: int) -> Footer:
    """Raises DamagedRow when the bytes are not the footer of segment `number`."""
    if crc32(data) != crc:
        raise DamagedRow
    format_, *fields = msgpack.unpackb(data, raw=False, use_list=False)
    if format_ != FORMAT or fields[0] != number:
        raise DamagedRow
    return Footer(*fields)


class SegmentBuilder:
    """Turns rows in key order into a segment's bytes; `take` what is ready, write it, go on."""

    def __init__(self, number: int, suffix_bytes: Mapping[int, int]) -> None:
        self._number = number
        self._suffix_bytes = suffix_bytes
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self._ready: list[bytes] = []
        self.ready_bytes = 0
        self.size = 0
        self.rows = 0
        self.first = b""
        self.last = b""
        self._hashes = array("I")
        self._strings: list[bytes] = []
        self._places: list[bytes] = []
        self._tops: list[bytes] = []
        self._top_places: list[bytes] = []

    def add(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """One block of rows; all above those added before, at least one."""
        first = keys[0]
        if not self.rows:
            self.first = first
        self._strings.append(separator(self.last, first) if self.rows else first)
        self._places.append(self._emit_block(keys, values))
        self.rows += len(keys)
        self.last = keys[-1]
        self._remember(keys)
        if len(self._strings) == INDEX_BLOCKS:
            self._close_index()

    def finish(self) -> Iterator[None]:
        """Emit what follows the blocks; yields where the caller may write and pause."""
        if self._strings:
            self._close_index()
        self._emit(bytes(-self.size % 8))
        words = array("Q", bytes(8 * word_count(len(self._hashes))))
        yield from fill(words, self._hashes)
        bloom = words.tobytes()
        bloom_offset = self.size
        crc = 0
        for start in range(0, len(bloom), _BLOOM_CHUNK):
            piece = bloom[start : start + _BLOOM_CHUNK]
            crc = crc32(piece, crc)
            self._emit(piece)
            yield
        footer = _packer.pack(
            [
                FORMAT,
                self._number,
                self.rows,
                self.first,
                self.last,
                bloom_offset,
                len(words),
                crc,
                self._tops,
                b"".join(self._top_places),
            ]
        )
        self._emit(footer)
        self._emit(_TRAILER.pack(len(footer), crc32(footer), _MAGIC))
        yield

    def take(self) -> list[bytes]:
        """The bytes made since the last call, in order."""
        ready, self._ready = self._ready, []
        self.ready_bytes = 0
        return ready

    def _remember(self, keys: Sequence[bytes]) -> None:
        suffix_bytes = self._suffix_bytes
        before = self._hashes[-1] if self._hashes else -1
        for key in keys:
            hashed = key_hash(key, suffix_bytes)
            if hashed != before:
                self._hashes.append(hashed)
                before = hashed

    def _emit_block(self, keys: Sequence[bytes], values: Any) -> bytes:
        offset = self.size
        block = encode_block(keys, values, offset, self._compressor)
        self._emit(block)
        return PLACE.pack(offset, len(block))

    def _emit(self, data: bytes) -> None:
        self._ready.append(data)
        self.ready_bytes += len(data)
        self.size += len(data)

    def _close_index(self) -> None:
        self._tops.append(self._strings[0])
        self._top_places.append(self._emit_block(self._strings, b"".join(self._places)))
        self._strings = []
        self._places = []
