"""The data of a version: its block pages, its parts, and the mark that data is being written.

A run of bytes (a simple object, or one part) is a *data id*: pages of 1 to `PAGE_BLOCKS` blocks,
never rewritten, so that n blocks cost O(n) metadata bytes. A page is written in the same write
as the block_ref rows of its blocks and before their files, so that whatever an upload that died
has left behind can be found from its data id: an upload writes pages of one block as it goes, a
copy (which knows all blocks) full ones. A block_ref row is what keeps a block.

While data is being written a `pending` row owns it, done in the record that makes the data part
of a version or of an upload. Pending data whose lease ran out is fenced, then removed: a replica
where it is done refuses the fence, one that holds the fence refuses what would make it part of
something. So `removed` comes only where no quorum can have it done, and beats that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from garage_lite.core.codec import decode, encode, row_decoder
from garage_lite.core.ids import BlockHash, BucketId, DataId, NodeId
from garage_lite.core.model.objects import Checksum

TAG = 1
PAGE_BLOCKS: Final = 128
LIST_PARTS: Final = 256


class BlockEntry(NamedTuple):
    """One block of a run: how many plain bytes (after encryption, if any) and its name."""

    size: int
    hash: BlockHash


def encode_page(blocks: Sequence[BlockEntry]) -> bytes:
    """At most PAGE_BLOCKS blocks in order."""
    sizes = [block.size for block in blocks]
    return encode(TAG, [sizes, b"".join(block.hash for block in blocks)])


@row_decoder
def decode_page(data: bytes) -> list[BlockEntry]:
    sizes, hashes = decode(data, TAG)
    if len(hashes) != 32 * len(sizes):
        raise ValueError("a page needs one hash a block")
    return [
        BlockEntry(size, BlockHash(hashes[32 * index : 32 * index + 32]))
        for index, size in enumerate(sizes)
    ]


@dataclass(frozen=True, slots=True)
class PartEntry:
    """One part of a completed multipart object, in part number order."""

    number: int
    """As the client numbered it."""
    data: DataId
    size: int
    etag: bytes
    checksum: Checksum | None = None


def encode_part_list(parts: Sequence[PartEntry]) -> bytes:
    """At most LIST_PARTS parts."""
    rows = [
        [
            part.number,
            part.data,
            part.size,
            part.etag,
            part.checksum.pack() if part.checksum else None,
        ]
        for part in parts
    ]
    return encode(TAG, [rows])


@row_decoder
def decode_part_list(data: bytes) -> list[PartEntry]:
    (rows,) = decode(data, TAG)
    return [
        PartEntry(number, DataId(data_id), size, etag, Checksum.unpack(checksum))
        for number, data_id, size, etag, checksum in rows
    ]


class PendingState(IntEnum):
    WRITING = 0
    FENCED = 1
    """A replica that holds this refuses to let the data become part of anything."""
    DONE = 2
    """It is part of something: no replica that holds this can be fenced any more."""
    REMOVED = 3
    """Only after a quorum of fences: whatever it became part of somewhere is void."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Data being written by `writer`, until `lease_until_ms` at least."""

    state: PendingState
    lease_until_ms: int
    writer: NodeId
    boot: bytes
    """Random id of the writer's run: after its restart nobody will finish this."""
    owner: bytes = b""
    """Once done: what it is part of, an object's prefix or the key of a part's row."""

    @classmethod
    def done(cls, owner: bytes) -> Pending:
        """The same whoever says it."""
        return cls(PendingState.DONE, 0, NodeId(b""), b"", owner)

    def encode(self) -> bytes:
        head = [int(self.state), self.lease_until_ms, self.writer, self.boot]
        return encode(TAG, [*head, self.owner])

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> Pending:
        state, lease, writer, boot, owner = decode(data, TAG)
        return cls(PendingState(state), lease, NodeId(writer), boot, owner)

    def merge(self, other: Pending) -> Pending:
        """The further state wins, then the later lease."""
        return max(
            self,
            other,
            key=lambda row: (row.state, row.lease_until_ms, row.writer, row.boot, row.owner),
        )


@dataclass(frozen=True, slots=True)
class BlockRef:
    """That `data` of `bucket` uses a block. The key names the block and the data id."""

    bucket: BucketId
    deleted: bool = False

    def encode(self) -> bytes:
        return encode(TAG, [self.bucket, self.deleted])

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> BlockRef:
        bucket, deleted = decode(data, TAG)
        return cls(BucketId(bucket), deleted)

    def merge(self, other: BlockRef) -> BlockRef:
        """Deleted absorbs."""
        return BlockRef(max(self.bucket, other.bucket), self.deleted or other.deleted)
