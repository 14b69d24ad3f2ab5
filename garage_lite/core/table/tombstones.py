"""When a row that only says "removed" may be forgotten. Pure.

It may once every owner in every active layout holds it: then no older row is left that it would
have to remove, and none can come back, for it is older than any message may be. All owners are
asked to hold it, then all are told to drop exactly that value. An owner of which nothing was heard
for DEAD_MS is not waited for; all others must agree on that, and remember that it missed it.
"""

from __future__ import annotations

from typing import Final

from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import Table, local_row, stamp_of
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.model.versions import BlockRef, Pending, PendingState
from garage_lite.core.table.schema import EMPTY_IS_REMOVED, Update

DEAD_MS: Final = 10 * 86_400_000
TURN_US: Final = 3_600_000_000
"""Owners take their turns: the first of a partition at once, each next one so much later, by when
it mostly finds nothing left to do."""
RETRY_US: Final = 600_000_000
_FIRST: Final = b"\x01"
_AGAIN: Final = b"\x02"
_KEY_AT: Final = 10


def says_only_removed(key: bytes, value: bytes) -> bool:
    """Whether a row is nothing but the memory of a removal."""
    match key[0]:
        case Table.OBJECT:
            version = ObjectVersion.decode(stamp_of(key), value)
            return version.removed or not version.has_data
        case Table.BLOCK_REF:
            return BlockRef.decode(value).deleted
        case Table.UPLOAD:
            return Upload.decode(value).state in (UploadState.COMPLETED, UploadState.REMOVED)
        case Table.PENDING:
            return Pending.decode(value).state >= PendingState.DONE
        case table:
            return table in EMPTY_IS_REMOVED and not value


def due_before(now_us: int) -> tuple[bytes, bytes]:
    """The range of the queue's rows that are due."""
    start = bytes((Table.TOMBSTONE,))
    return start, local_row(Table.TOMBSTONE, (now_us + 1).to_bytes(8, "big"))


def row_of(todo: bytes) -> bytes:
    """The key of the row that a queue row's key means."""
    return todo[_KEY_AT:]


def not_yet(todo: bytes, value: bytes, turn: int) -> list[Update]:
    """The queue row put off, if it is not this node's turn, the `turn`th of the owners; else
    nothing."""
    if value != _FIRST or turn == 0:
        return []
    return _put_off(todo, int.from_bytes(todo[2:_KEY_AT], "big") + turn * TURN_US)


def try_again(todo: bytes, now_us: int) -> list[Update]:
    """The queue row put off for a while."""
    return _put_off(todo, now_us + RETRY_US)


def done(todo: bytes) -> Update:
    return Update(todo, b"")


def _put_off(todo: bytes, due_us: int) -> list[Update]:
    later = local_row(Table.TOMBSTONE, due_us.to_bytes(8, "big") + row_of(todo))
    return [done(todo), Update(later, _AGAIN)]
