"""How a block looks on disk: its file names, when it is compressed, how it is verified.

    <directory>/<2 hex>/<2 hex>/<64 hex>              the plain content, verbatim
    <directory>/<2 hex>/<2 hex>/<64 hex>.zst          one zstd frame that names the plain size
    ... .corrupted                                    set aside: its content was not its name's

A block is named by the BLAKE3 of its plain content, so each file can be verified by itself,
compressed or not. Knows neither files nor threads: the caller brings one compressor a thread (a
compressor shared by two threads crashes the process).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import zstandard
from blake3 import blake3

from garage_lite.core.errors import BlockCorrupt
from garage_lite.core.ids import BLOCK_HASH_BYTES, BlockHash
from garage_lite.core.limits import BLOCK_BYTES_MAX
from garage_lite.core.ports import Buffer

COMPRESSED: Final = ".zst"
CORRUPTED: Final = ".corrupted"
LEAVES: Final = 65_536
"""Folders of the second level in a directory: one for each value of a hash's first two bytes."""
LEAVES_PER_FOLDER: Final = 256

SAMPLE_PIECES: Final = 4
SAMPLE_PIECE_BYTES: Final = 16 * 1024
WHOLE_SAMPLE_BYTES: Final = 2 * SAMPLE_PIECES * SAMPLE_PIECE_BYTES
"""Blocks up to this size are tried whole."""
_HEAD_BYTES: Final = 18
"""The header of a zstd frame is no longer."""
KEPT_PERCENT_MAX: Final = 90
"""Compression must save a tenth: below that the reader's time is worth more than the space."""


class BlockName(NamedTuple):
    """What a file name in a leaf folder says."""

    block: BlockHash
    compressed: bool = False
    corrupted: bool = False

    def file_name(self) -> str:
        compressed = COMPRESSED if self.compressed else ""
        return self.block.hex() + compressed + (CORRUPTED if self.corrupted else "")

    def path_in(self, directory: str) -> str:
        return f"{leaf_path(directory, leaf_of(self.block))}/{self.file_name()}"


class StoredBlock(NamedTuple):
    """A block as it is kept and sent: its plain content, or one zstd frame of it."""

    compressed: bool
    buffers: Sequence[Buffer]

    @property
    def size(self) -> int:
        return sum(map(len, self.buffers))


def parse_name(name: str) -> BlockName | None:
    """The block a file name stands for; None if it is no block's."""
    stem = name.removesuffix(CORRUPTED)
    digits = stem.removesuffix(COMPRESSED)
    if len(digits) != 2 * BLOCK_HASH_BYTES:
        return None
    try:
        parsed = BlockName(BlockHash(bytes.fromhex(digits)), stem != digits, name != stem)
    except ValueError:
        return None
    return parsed if parsed.file_name() == name else None


def leaf_of(block: BlockHash) -> int:
    return int.from_bytes(block[:2], "big")


def folder_path(directory: str, leaf: int) -> str:
    """The folder of the first level above a leaf."""
    return f"{directory}/{leaf >> 8:02x}"


def leaf_path(directory: str, leaf: int) -> str:
    return f"{directory}/{leaf >> 8:02x}/{leaf & 255:02x}"


def matches(block: BlockHash, parts: Sequence[Buffer]) -> bool:
    """Whether the parts, one after another, are the content a block is named by."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest() == block


def _pieces(parts: Sequence[Buffer], size: int) -> Iterator[memoryview]:
    """A few stretches of the content, spread evenly: what compression is tried on."""
    step = size // SAMPLE_PIECES
    start = 0
    for part in parts:
        view = memoryview(part)
        for stretch in range(start // step, (start + len(view) - 1) // step + 1):
            low = max(stretch * step - start, 0)
            high = stretch * step + SAMPLE_PIECE_BYTES - start
            if low < high:
                yield view[low:high]
        start += len(view)


def _pays(compressed: int, plain: int) -> bool:
    return compressed * 100 <= plain * KEPT_PERCENT_MAX


def compressed(
    parts: Sequence[Buffer], size: int, compressor: zstandard.ZstdCompressor
) -> list[bytes] | None:
    """The block as one zstd frame, in pieces; None when that would not save a tenth.

    A small sample decides first, so that incompressible content costs next to nothing.
    """
    if size > WHOLE_SAMPLE_BYTES:
        sample = b"".join(_pieces(parts, size))
        if not _pays(len(compressor.compress(sample)), len(sample)):
            return None
    stream = compressor.compressobj(size=size)
    frame = [piece for part in parts if (piece := stream.compress(part))]
    frame.append(stream.flush())
    return frame if _pays(sum(map(len, frame)), size) else None


def content(
    name: BlockName, stored: bytes, decompressor: zstandard.ZstdDecompressor | None = None
) -> bytes:
    """The plain content of a stored block, verified. Raises BlockCorrupt."""
    plain = _expanded(stored, decompressor) if name.compressed else stored
    if blake3(plain).digest() != name.block:
        raise BlockCorrupt(f"block {name.block.hex()} does not match its name")
    return plain


def plain_content(
    block: BlockHash, stored: StoredBlock, decompressor: zstandard.ZstdDecompressor | None = None
) -> bytes:
    """The content of a block that came as it is stored, verified. Raises BlockCorrupt."""
    name = BlockName(block, compressed=stored.compressed)
    return content(name, b"".join(stored.buffers), decompressor)


def plain_size(stored: StoredBlock) -> int:
    """How long the content is by what a block that came from elsewhere says of itself; read
    before it is expanded. Raises BlockCorrupt where it does not say."""
    if not stored.compressed:
        return stored.size
    head = b"".join(bytes(buffer[:_HEAD_BYTES]) for buffer in stored.buffers[:_HEAD_BYTES])
    try:
        return zstandard.frame_content_size(head[:_HEAD_BYTES])
    except zstandard.ZstdError as error:
        raise BlockCorrupt(f"a compressed block can't be read: {error}") from error


def _expanded(stored: bytes, decompressor: zstandard.ZstdDecompressor | None) -> bytes:
    """The content of a frame of known, bounded size and nothing after it."""
    try:
        size = zstandard.frame_content_size(stored)
        if not 0 <= size <= BLOCK_BYTES_MAX:
            raise BlockCorrupt(f"a compressed block claims to hold {size} bytes")
        return (decompressor or zstandard.ZstdDecompressor()).decompress(
            stored, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise BlockCorrupt(f"a compressed block can't be read: {error}") from error
