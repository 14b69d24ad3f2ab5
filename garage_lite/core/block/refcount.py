"""How many live references a block has, counted from its block_ref rows themselves.

There is no second counter that could drift: the rows are the count. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from garage_lite.core.ids import BucketId, DataId
from garage_lite.core.model.rowkeys import block_ref_row, block_refs_prefix
from garage_lite.core.model.versions import BlockRef

Row = tuple[bytes, bytes]

__all__ = ["Reference", "Row", "block_ref_row", "block_refs_prefix", "live_count", "references"]


class Reference(NamedTuple):
    """One use of a block: which run of bytes of which bucket names it."""

    data: DataId
    bucket: BucketId
    deleted: bool


def references(rows: Iterable[Row]) -> list[Reference]:
    """The references among the block_ref rows of one block, deleted ones too.

    Raises StorageFailed on a row that can't be read: an unknown count is never taken for zero.
    """
    found = []
    for key, value in rows:
        ref = BlockRef.decode(value)
        found.append(Reference(DataId(key[-16:]), ref.bucket, ref.deleted))
    return found


def live_count(rows: Iterable[Row]) -> int:
    """How many of the block_ref rows of one block keep it. Raises StorageFailed as above."""
    return sum(not BlockRef.decode(value).deleted for _, value in rows)
