"""Names of things: fixed-size byte strings, and the partition each falls into.

Bucket and node ids are 32 bytes (64 hex digits, as in Garage's Admin API); version, upload and
data ids are 16 random bytes; a block is named by the 32-byte BLAKE3 of its plain content.
"""

from __future__ import annotations

from typing import Final, NewType

NodeId = NewType("NodeId", bytes)
BucketId = NewType("BucketId", bytes)
BlockHash = NewType("BlockHash", bytes)
VersionId = NewType("VersionId", bytes)
"""Names a version of an object; an upload id is the id of the version it will become."""
DataId = NewType("DataId", bytes)
"""Names one run of bytes cut into blocks: a simple object's (its version id) or a part's."""

NODE_ID_BYTES: Final = 32
BUCKET_ID_BYTES: Final = 32
BLOCK_HASH_BYTES: Final = 32
VERSION_ID_BYTES: Final = 16

PARTITIONS: Final = 256


def partition_of(name: bytes) -> int:
    """The partition of a random id or hash: its first byte (Garage: 256 partitions)."""
    return name[0]
