"""The queue of tombstones: what is due, and whose turn it is."""

from __future__ import annotations

from garage_lite.core.ids import BucketId, DataId, NodeId, VersionId
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    Stamp,
    Table,
    local_row,
    object_prefix,
    object_row,
    page_row,
    pending_row,
)
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.schema import Update
from garage_lite.core.table.tombstones import (
    RETRY_US,
    TURN_US,
    done,
    due_before,
    not_yet,
    row_of,
    says_only_removed,
    try_again,
)

BUCKET = BucketId(b"b" * 32)
ROW = page_row(BUCKET, DataId(b"d" * 16), end=5)


def todo(due_us: int) -> bytes:
    return local_row(Table.TOMBSTONE, due_us.to_bytes(8, "big") + ROW)


def test_what_is_due_is_in_the_range() -> None:
    start, end = due_before(1000)
    assert start <= todo(0) < end
    assert start <= todo(1000) < end
    assert todo(1001) >= end
    assert row_of(todo(7)) == ROW


def test_the_first_owner_acts_at_once_and_each_next_one_later_but_once() -> None:
    assert not_yet(todo(5), b"\x01", 0) == []
    assert not_yet(todo(5), b"\x01", 2) == [
        done(todo(5)),
        Update(todo(5 + 2 * TURN_US), b"\x02"),
    ]
    assert not_yet(todo(5 + 2 * TURN_US), b"\x02", 2) == []
    assert try_again(todo(5), 100) == [done(todo(5)), Update(todo(100 + RETRY_US), b"\x02")]


def test_only_what_says_removed_and_nothing_else_may_be_forgotten() -> None:
    stamp = Stamp(5, 0, VersionId(b"v" * 16))
    key = object_row(object_prefix(BUCKET, b"k"), stamp)
    made = ObjectVersion(stamp, Kind.INLINE, 0, size=1, floor=Floor.ALL)
    gone = ObjectVersion(stamp, Kind.INLINE, 0, size=1, floor=Floor.ALL, removed=True)
    assert not says_only_removed(key, made.encode())
    assert says_only_removed(key, gone.encode())
    assert says_only_removed(ROW, b"")
    assert not says_only_removed(ROW, b"page")
    writing = Pending(PendingState.WRITING, 9, NodeId(b"n" * 32), b"boot")
    pending = pending_row(BUCKET, DataId(b"d" * 16))
    assert not says_only_removed(pending, writing.encode())
    assert says_only_removed(pending, Pending.done(b"owner").encode())
